"""Transformer blocks over time whose queries, keys and values are convolved first; some halve the length.

    q, k, v = norm(depthwise convolution(norm(x)))      of every `stride`-th segment
    y = pooled x + scale x attention(q, k, v)
    z = y + scale x W2 gelu(W1 norm(y))

In the cross block queries come from the other sequence; keys, values and the residual from its own. So the visual
stream keeps its residual while audio queries it.

Padding is zero where the convolution looks, so that it changes nothing. In the published code the convolution sees the
first norm's bias at the padding, if there is some behind the last real segment, and zero if there is none; with
`published_padding` it does so here. (At the start of training that bias is 0 and both are the same.)

B items, T segments, S = T / stride, C width.

Source: Zhang et al., ECCV 2022 (ActionFormer), the self block; Geng et al., CVPR 2023 (UnAV), the cross block.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from heads.blocks.real_segments import of_real
from heads.blocks.temporal_conv import AffineDropPath, MaskedConv, pooled, strided
from heads.blocks.window_attention import WindowAttention


class ConvAttention(nn.Module):
    """Attention whose queries, keys and values are convolved channel by channel and normalised: (B, T, C) to (B, S, C).

    Args:
        width: C.
        num_heads, window: see `WindowAttention`; the window is in segments of the result.
        stride: between the segments of the result.
    """

    def __init__(self, width: int, *, num_heads: int, stride: int = 1, window: int | None = None) -> None:
        super().__init__()
        self.stride = stride
        # The published kernel is stride + 1 where that is odd; pyramids have strides of 1 and 2.
        self.query_conv, self.key_conv, self.value_conv = (
            MaskedConv(width, width, 3, stride=stride, groups=width, bias=False) for _ in range(3)
        )
        self.query_norm, self.key_norm, self.value_norm = (nn.LayerNorm(width) for _ in range(3))
        self.attention = WindowAttention(width, num_heads=num_heads, window=window)

    def forward(self, query_BTC: Tensor, memory_BTC: Tensor, mask_BT: Tensor, window: int | None = None) -> Tensor:
        """What the queries take from the memory, (B, S, C), zero outside the mask.

        Args:
            query_BTC, memory_BTC: what queries and what keys and values are made of; zero outside the mask.
            mask_BT: bool, the real segments.
            window: in place of the one it was made with; None keeps that.
        """
        query_BSC = self.query_norm(self.query_conv(query_BTC, mask_BT))
        key_BSC = self.key_norm(self.key_conv(memory_BTC, mask_BT))
        value_BSC = self.value_norm(self.value_conv(memory_BTC, mask_BT))
        attended_BSC: Tensor = self.attention(query_BSC, key_BSC, value_BSC, strided(mask_BT, self.stride), window)
        return attended_BSC


class ConvTransformerBlock(nn.Module):
    """A block over one sequence or, made with `cross`, of one that is queried by another: (B, T, C) to (B, S, C).

    Args:
        width: C.
        num_heads: of the attention.
        stride: 2 halves the length.
        window: of the attention, in segments of the result; None sees all.
        hidden: of the two linear maps; None is 4 C.
        drop_path: see `AffineDropPath`.
        dropout: after attention and each of the two linear maps.
        cross: has a norm of its own for the sequence of the queries.

    Attributes:
        published_padding: see above; set it only to get the published numbers with the published weights.
    """

    published_padding = False

    def __init__(
        self,
        width: int,
        *,
        num_heads: int = 4,
        stride: int = 1,
        window: int | None = None,
        hidden: int | None = None,
        drop_path: float = 0.1,
        dropout: float = 0.0,
        cross: bool = False,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.norm = nn.LayerNorm(width)
        self.query_norm = nn.LayerNorm(width) if cross else None
        self.attention = ConvAttention(width, num_heads=num_heads, stride=stride, window=window)
        self.attention_path = AffineDropPath(width, drop_path)
        self.inner_norm = nn.LayerNorm(width)
        self.inner, self.outer = nn.Linear(width, hidden or 4 * width), nn.Linear(hidden or 4 * width, width)
        for linear in (self.inner, self.outer):
            nn.init.zeros_(linear.bias)
        self.inner_path = AffineDropPath(width, drop_path)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x_BTC: Tensor, mask_BT: Tensor, query_BTC: Tensor | None = None, *, window: int | None = None
    ) -> Tensor:
        """The block's output, (B, S, C), zero outside `strided(mask_BT, stride)`.

        Args:
            x_BTC: residual, keys and values; zero outside the mask.
            mask_BT: bool, the real segments of both.
            query_BTC: the sequence that queries, if the block was made with `cross`; zero outside the mask. None is
                x itself.
            window: of the attention, in place of the one it was made with; None keeps that.
        """
        memory_BTC = self._normed(self.norm, x_BTC, mask_BT)
        if self.query_norm is None:
            assert query_BTC is None, "a block of one sequence takes no other"
            normed_BTC = memory_BTC
        else:
            normed_BTC = self._normed(self.query_norm, x_BTC if query_BTC is None else query_BTC, mask_BT)
        attended_BSC = self.dropout(self.attention(normed_BTC, memory_BTC, mask_BT, window))
        real_BS1 = strided(mask_BT, self.stride)[..., None]
        y_BSC = self.attention_path(pooled(x_BTC, self.stride) * real_BS1, attended_BSC)
        z_BSC: Tensor = self.inner_path(y_BSC, of_real(self._inner, y_BSC, real_BS1.squeeze(-1))) * real_BS1
        return z_BSC

    def _inner(self, y_BSC: Tensor) -> Tensor:
        inner_BSH = self.dropout(F.gelu(self.inner(self.inner_norm(y_BSC))))
        out_BSC: Tensor = self.dropout(self.outer(inner_BSH))
        return out_BSC

    def _normed(self, norm: nn.LayerNorm, x_BTC: Tensor, mask_BT: Tensor) -> Tensor:
        normed_BTC: Tensor = norm(x_BTC)
        return normed_BTC if self.published_padding else normed_BTC * mask_BT[..., None]
