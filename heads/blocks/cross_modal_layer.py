"""Multi-head attention over time within a modality or from one to another, and the post-norm layer around it.

y = LN(x + attention(x over [context, x])), z = LN(y + W2 relu(W1 y)); without a context the layer attends to its own
segments alone.

B batch, T segments, S segments attended to, D width, H attention heads, A width of one.

Source: Xu et al., ACM MM 2020 (CMRA), whose layers CMBS (Xia and Zhao, CVPR 2022) takes over: width 256, 4 heads,
1024 inside, dropout 0.1. A context is joined with the layer's own segments there too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """(B, T, D) over (B, S, D) to (B, T, D).

    Args:
        width: D.
        num_heads: H, divides D.
        dropout: of the attention weights.

    Raises:
        ValueError: `width` is not a positive multiple of `num_heads`, or dropout is not in [0, 1).
    """

    def __init__(self, width: int, num_heads: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        if min(width, num_heads) < 1 or width % num_heads or not 0 <= dropout < 1:
            raise ValueError(
                "attention needs a width that is a positive multiple of its heads and dropout in [0, 1), got "
                f"width {width}, {num_heads} heads, dropout {dropout}"
            )
        self.num_heads = num_heads
        self.projection, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        # As torch's own module begins: queries, keys and values as one matrix.
        nn.init.xavier_uniform_(self.projection.weight)
        for linear in (self.projection, self.output):
            nn.init.zeros_(linear.bias)

    def forward(self, query_BTD: Tensor, context_BSD: Tensor, attend_BS: Tensor) -> Tensor:
        """What each query takes up; one that may attend to nothing gets the output's bias alone.

        Args:
            query_BTD, context_BSD: finite everywhere, also where not attended to.
            attend_BS: bool, what may be attended to.
        """
        width = query_BTD.shape[-1]
        if query_BTD is context_BSD:
            query, key, value = self.projection(query_BTD).chunk(3, dim=-1)
        else:
            weight, bias = self.projection.weight, self.projection.bias
            query = nn.functional.linear(query_BTD, weight[:width], bias[:width])
            key, value = nn.functional.linear(context_BSD, weight[width:], bias[width:]).chunk(2, dim=-1)
        query_BHTA, key_BHSA, value_BHSA = (self._heads(x) for x in (query, key, value))
        logits_BHTS = query_BHTA.shape[-1] ** -0.5 * query_BHTA @ key_BHSA.transpose(-1, -2)
        attend_B11S = attend_BS[:, None, None, :]
        # The lowest finite number and not -inf: where nothing may be attended to it would be NaN.
        weights_BHTS = logits_BHTS.masked_fill(~attend_B11S, torch.finfo(logits_BHTS.dtype).min).softmax(dim=-1)
        taken_BHTA = self.dropout(weights_BHTS.masked_fill(~attend_B11S, 0.0)) @ value_BHSA
        output_BTD: Tensor = self.output(taken_BHTA.transpose(1, 2).flatten(2))
        return output_BTD

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.reshape(*x_BTD.shape[:2], self.num_heads, -1).transpose(1, 2)


class CrossModalLayer(nn.Module):
    """(B, T, D) to (B, T, D), over its own segments or over another modality's and its own.

    Args:
        width: D.
        num_heads: H.
        feedforward: width of the inner layer.
        dropout: of attention weights, inner layer and both sub-layers' outputs.

    Raises:
        ValueError: as `MultiHeadAttention`, or `feedforward` is below 1.
    """

    def __init__(self, width: int, *, num_heads: int = 4, feedforward: int = 1024, dropout: float = 0.1) -> None:
        super().__init__()
        if feedforward < 1:
            raise ValueError(f"a layer needs an inner width of at least 1, got {feedforward}")
        self.attention = MultiHeadAttention(width, num_heads, dropout=dropout)
        self.inner, self.outer = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x_BTD: Tensor,
        mask_BT: Tensor,
        context_BSD: Tensor | None = None,
        context_mask_BS: Tensor | None = None,
    ) -> Tensor:
        """The layer's output.

        Args:
            x_BTD: finite everywhere.
            mask_BT: bool, its real segments.
            context_BSD: the other modality's; None attends to `x_BTD` alone.
            context_mask_BS: bool; None takes `mask_BT`.
        """
        attended_BSD, attend_BS = x_BTD, mask_BT
        if context_BSD is not None:
            attended_BSD = torch.cat([context_BSD, x_BTD], dim=1)
            attend_BS = torch.cat([mask_BT if context_mask_BS is None else context_mask_BS, mask_BT], dim=1)
        y_BTD = self.attention_norm(x_BTD + self.dropout(self.attention(x_BTD, attended_BSD, attend_BS)))
        inner_BTF = self.dropout(torch.relu(self.inner(y_BTD)))
        z_BTD: Tensor = self.feedforward_norm(y_BTD + self.dropout(self.outer(inner_BTF)))
        return z_BTD


class ModalityInteraction(nn.Module):
    """The product of both modalities' segments, attending to all segments of both: LN(p + attention(p over [b, a])).

    Args:
        width: D.
        num_heads: H.
        attention_dropout: of the attention weights.
        dropout: of the attention's output.

    Raises:
        ValueError: as `MultiHeadAttention`.
    """

    def __init__(self, width: int, *, num_heads: int = 4, attention_dropout: float = 0.2, dropout: float = 0.1) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(width, num_heads, dropout=attention_dropout)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, one_BTD: Tensor, other_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """(B, T, D); finite input everywhere, `mask_BT` bool the real segments of both."""
        product_BTD = one_BTD * other_BTD
        both_BSD, attend_BS = torch.cat([other_BTD, one_BTD], dim=1), torch.cat([mask_BT, mask_BT], dim=1)
        y_BTD: Tensor = self.norm(product_BTD + self.dropout(self.attention(product_BTD, both_BSD, attend_BS)))
        return y_BTD
