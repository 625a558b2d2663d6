"""One transformer layer over time, normalised after each sub-layer.

y = LN(x + O attention(x)), z = LN(y + W2 relu(W1 y)).

OV-AVEL's layer after each frozen tower. The logits of the attention are scaled by 1/sqrt(hidden) whatever the number
of attention heads; the only dropout is inside the feed-forward part.

B batch, T segments, S segments attended to, D feature width, H attention heads, A width of one.

Source: Zhou et al., CVPR 2025 (OV-AVEL), whose published model uses the plain form; its code shares the layer with
PEL4VAD (Pu et al. 2024), from where the three options come that are off by default.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Where PEL4VAD starts its distance bias.
_DISTANCE_WEIGHT, _DISTANCE_OFFSET = 0.6, 0.2


class TemporalLayer(nn.Module):
    """(B, T, D) to (B, T, D), over its own segments or those of another modality.

    Args:
        width: D.
        hidden: width of queries, keys and values together.
        feedforward: width of the inner layer.
        distance_bias: adds exp(-|w d^2 - b|) to the attention logits, d the distance in segments, w and b learned.
        local_window: also attends within this many segments, from `local_window // 2` before to the rest after, and
            mixes both results by a learned share: sigmoid(alpha) of the whole. None attends to the whole only.
        signed_root_norm: takes the signed square root of the attended values and makes each channel of unit length
            **over time**, as that code does.

    Raises:
        ValueError: a width is not positive, `hidden` is not a multiple of `num_heads`, or dropout is not in [0, 1).
    """

    def __init__(
        self,
        width: int,
        *,
        hidden: int = 256,
        num_heads: int = 1,
        feedforward: int = 512,
        dropout: float = 0.1,
        distance_bias: bool = False,
        local_window: int | None = None,
        signed_root_norm: bool = False,
    ) -> None:
        super().__init__()
        if min(width, hidden, num_heads, feedforward) < 1 or hidden % num_heads or not 0 <= dropout < 1:
            raise ValueError(
                "a temporal layer needs positive widths, hidden a multiple of num_heads and dropout in [0, 1), got "
                f"width {width}, hidden {hidden}, num_heads {num_heads}, feedforward {feedforward}, dropout {dropout}"
            )
        if local_window is not None and local_window < 1:
            raise ValueError(f"local_window must be above 0 or None, got {local_window}")
        self.num_heads = num_heads
        self.scale = hidden**-0.5
        self.local_window = local_window
        self.signed_root_norm = signed_root_norm
        self.query, self.key, self.value = (nn.Linear(width, hidden) for _ in range(3))
        self.output = nn.Linear(hidden, width)
        self.inner, self.outer = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.dropout = nn.Dropout(dropout)
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.distance = nn.Parameter(torch.tensor([_DISTANCE_WEIGHT, _DISTANCE_OFFSET])) if distance_bias else None
        self.alpha = nn.Parameter(torch.zeros(())) if local_window is not None else None

    def forward(self, x_BTD: Tensor, attend_BS: Tensor, context_BSD: Tensor | None = None) -> Tensor:
        """The layer's output, (B, T, D).

        Args:
            x_BTD: queries and what is added to; finite everywhere.
            attend_BS: bool, the segments that may be attended to. A query that may attend to none takes nothing up.
            context_BSD: keys and values; None takes `x_BTD`. Finite everywhere, also where not attended to.

        Raises:
            ValueError: a context with `signed_root_norm`: which queries are real would not be known.
        """
        if context_BSD is None:
            context_BSD = x_BTD
        elif self.signed_root_norm:
            raise ValueError("signed_root_norm runs over a modality's own segments; it takes no context")
        y_BTD = self.attention_norm(x_BTD + self.output(self._attended(x_BTD, context_BSD, attend_BS)))
        z_BTD: Tensor = self.feedforward_norm(y_BTD + self.outer(self.dropout(F.relu(self.inner(y_BTD)))))
        return z_BTD

    def _attended(self, x_BTD: Tensor, context_BSD: Tensor, attend_BS: Tensor) -> Tensor:
        query_BHTA = self._heads(self.query(x_BTD))
        key_BHSA, value_BHSA = self._heads(self.key(context_BSD)), self._heads(self.value(context_BSD))
        logits_BHTS = self.scale * query_BHTA @ key_BHSA.transpose(-1, -2)
        times_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
        times_S = torch.arange(context_BSD.shape[1], device=x_BTD.device)
        ahead_TS = times_S[None, :] - times_T[:, None]
        if self.distance is not None:
            weight, offset = self.distance
            logits_BHTS = logits_BHTS + torch.exp(-(weight * ahead_TS.square() - offset).abs())

        attend_B11S = attend_BS[:, None, None, :]
        attended_BHTA = _softmax(logits_BHTS, attend_B11S) @ value_BHSA
        if self.alpha is not None and self.local_window is not None:
            before = self.local_window // 2
            near_TS = (ahead_TS >= -before) & (ahead_TS < self.local_window - before)
            local_BHTA = _softmax(logits_BHTS, attend_B11S & near_TS) @ value_BHSA
            share = self.alpha.sigmoid()
            attended_BHTA = share * attended_BHTA + (1 - share) * local_BHTA
        attended_BTE = attended_BHTA.transpose(1, 2).flatten(2)
        if self.signed_root_norm:
            attended_BTE = _signed_root_norm(attended_BTE, attend_BS)
        return attended_BTE

    def _heads(self, x_BTE: Tensor) -> Tensor:
        return x_BTE.reshape(*x_BTE.shape[:2], self.num_heads, -1).transpose(1, 2)


def _softmax(logits_BHTS: Tensor, attend: Tensor) -> Tensor:
    """Softmax over the last axis where `attend`; exactly 0 elsewhere, and all 0 where nothing may be attended to."""
    # The lowest finite number and not -inf: a row of -inf alone is NaN until it is filled again, and torch's anomaly
    # detection stops at it.
    weights_BHTS = logits_BHTS.masked_fill(~attend, torch.finfo(logits_BHTS.dtype).min).softmax(dim=-1)
    return weights_BHTS.masked_fill(~attend, 0.0)


def _signed_root_norm(x_BTE: Tensor, real_BT: Tensor) -> Tensor:
    # Padding would lengthen every channel. The root's slope at 0 is infinite: such entries are put aside, so that
    # 0 x infinity never makes NaN.
    some = (x_BTE != 0) & real_BT[..., None]
    root_BTE = torch.where(some, x_BTE.abs().where(some, 1.0).sqrt() * x_BTE.sign(), 0.0)
    return F.normalize(root_BTE, dim=1)
