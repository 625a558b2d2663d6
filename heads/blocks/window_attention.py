"""Multi-head attention over neighbours in time at a cost that grows with the length, not with its square.

    out_t = sum over s of softmax_s(q_t . k_s / sqrt(D) + bias_(s - t)) v_s,    |s - t| <= window // 2

Segments outside the sequence and beyond the window take no part. The segments are cut into chunks of queries; each
chunk is compared with itself and `window // 2` neighbours a side, and what is too far inside the chunk is masked.
Without a window every segment is compared with every other.

Windows of 4 and 5 are the same, as in the published code. Masked keys get -1e4 added, as there: of an item without any
real segment the result is finite. With the published code's -inf outside the sequence the real segments' results are
the same numbers.

B items, T segments, E width of all attention heads together, H attention heads, N chunks, C segments a chunk, S keys
of a chunk.

Source: Zhang et al., ECCV 2022 (ActionFormer), whose local attention is after Longformer's (Beltagy et al. 2020).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What is added to the logits of masked keys (published): far below any logit, and still finite.
MASKED = -1e4
# Queries a chunk at least: fewer make matrices too small to be fast.
_CHUNK = 32


def window_attention(
    query_BTE: Tensor,
    key_BTE: Tensor,
    value_BTE: Tensor,
    mask_BT: Tensor,
    *,
    num_heads: int,
    window: int | None,
    bias_HW: Tensor | None = None,
) -> Tensor:
    """What each segment takes from its neighbours, (B, T, E).

    Args:
        query_BTE, key_BTE, value_BTE: float, finite everywhere; E a multiple of `num_heads`.
        mask_BT: bool, the segments that may be attended to; those that may not also get zeros.
        window: segments that a query sees, `window // 2` a side and itself; None sees all.
        bias_HW: added to the logits by the distance s - t from -(window // 2) on, W = 2 (window // 2) + 1.

    Raises:
        ValueError: E is no multiple of `num_heads`, `window` is below 1, or the bias has another shape or no window.
    """
    width = query_BTE.shape[-1]
    if num_heads < 1 or width % num_heads:
        raise ValueError(f"the width must be a multiple of num_heads, got {width} and {num_heads}")
    if window is not None and window < 1:
        raise ValueError(f"a window must be at least 1 or None, got {window}")
    reach = None if window is None else window // 2
    if bias_HW is not None and (reach is None or bias_HW.shape != (num_heads, 2 * reach + 1)):
        raise ValueError(
            f"a bias needs a window and shape (num_heads, 2 (window // 2) + 1), got {tuple(bias_HW.shape)} for "
            f"{num_heads} attention heads and window {window}"
        )
    count = query_BTE.shape[1]
    if reach is None or count <= max(_CHUNK, 2 * reach):
        out_BTE = _attended(query_BTE, key_BTE, value_BTE, mask_BT, reach, 0, num_heads, bias_HW)
    else:
        out_BTE = _in_chunks(query_BTE, key_BTE, value_BTE, mask_BT, reach, num_heads, bias_HW)
    return out_BTE * mask_BT[..., None]


class WindowAttention(nn.Module):
    """Projections of queries, keys, values and of the result around `window_attention`: (B, T, E) to (B, T, E).

    Args:
        width: E.
        num_heads: H.
        window: see `window_attention`; None sees all.
        relative: adds a learned number a head and distance to the logits.

    Raises:
        ValueError: a size is not positive, the width is no multiple of `num_heads`, or `relative` has no window.
    """

    def __init__(self, width: int, *, num_heads: int, window: int | None = None, relative: bool = False) -> None:
        super().__init__()
        if min(width, num_heads) < 1 or width % num_heads or (window is not None and window < 1):
            raise ValueError(
                "local attention needs sizes above 0 and a width that is a multiple of num_heads, got "
                f"width {width}, num_heads {num_heads}, window {window}"
            )
        if relative and window is None:
            raise ValueError("a relative bias needs a window, got None")
        self.num_heads, self.window = num_heads, window
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        for linear in (self.query, self.key, self.value, self.output):
            nn.init.zeros_(linear.bias)
        self.bias_HW: nn.Parameter | None = None
        if relative and window is not None:
            # The published start: a normal distribution of sqrt(2 / width).
            self.bias_HW = nn.Parameter(torch.randn(num_heads, 2 * (window // 2) + 1) * (2 / width) ** 0.5)

    def forward(
        self, query_BTE: Tensor, key_BTE: Tensor, value_BTE: Tensor, mask_BT: Tensor, window: int | None = None
    ) -> Tensor:
        """Attention's output, zero outside the mask.

        Args:
            query_BTE, key_BTE, value_BTE: before their projections; finite everywhere.
            mask_BT: bool, the real segments.
            window: in place of the one it was made with; None keeps that.
        """
        attended_BTE = window_attention(
            self.query(query_BTE),
            self.key(key_BTE),
            self.value(value_BTE),
            mask_BT,
            num_heads=self.num_heads,
            window=self.window if window is None else window,
            bias_HW=self.bias_HW,
        )
        out_BTE: Tensor = self.output(attended_BTE) * mask_BT[..., None]
        return out_BTE


def _in_chunks(
    query_BTE: Tensor,
    key_BTE: Tensor,
    value_BTE: Tensor,
    mask_BT: Tensor,
    reach: int,
    num_heads: int,
    bias_HW: Tensor | None,
) -> Tensor:
    batch, count, width = query_BTE.shape
    size = max(_CHUNK, 2 * reach)
    chunks = -(-count // size)
    missing = chunks * size - count

    def with_neighbours(x: Tensor) -> Tensor:
        """(B, T, ...) to (B N, S, ...): each chunk with `reach` segments before and after it, zeros outside."""
        edges = (0, 0) * (x.ndim - 2) + (reach, missing + size - reach)
        x_BNC = F.pad(x, edges).reshape(batch, chunks + 1, size, *x.shape[2:])
        return torch.cat((x_BNC[:, :-1], x_BNC[:, 1:, : 2 * reach]), dim=2).flatten(0, 1)

    query_NCE = F.pad(query_BTE, (0, 0, 0, missing)).reshape(batch * chunks, size, width)
    out_NCE = _attended(
        query_NCE,
        with_neighbours(key_BTE),
        with_neighbours(value_BTE),
        with_neighbours(mask_BT),
        reach,
        reach,
        num_heads,
        bias_HW,
    )
    return out_NCE.reshape(batch, chunks * size, width)[:, :count]


def _attended(
    query_BTE: Tensor,
    key_BSE: Tensor,
    value_BSE: Tensor,
    mask_BS: Tensor,
    reach: int | None,
    first: int,
    num_heads: int,
    bias_HW: Tensor | None,
) -> Tensor:
    """Attention of T queries to S keys; query 0 stands at key `first`, and None reaches all."""
    logits = torch.zeros(mask_BS.shape, dtype=query_BTE.dtype, device=query_BTE.device)
    logits_B1TS = logits.masked_fill(~mask_BS, MASKED)[:, None, None, :]
    if reach is not None:
        places_S = torch.arange(key_BSE.shape[1], device=query_BTE.device)
        ahead_TS = places_S[None, :] - places_S[: query_BTE.shape[1], None] - first
        far_TS = ahead_TS.abs() > reach
        if bias_HW is not None:
            logits_B1TS = logits_B1TS + bias_HW[:, ahead_TS.clamp(-reach, reach) + reach]
        logits_B1TS = logits_B1TS.masked_fill(far_TS, -torch.inf)

    def heads(x_BTE: Tensor) -> Tensor:
        return x_BTE.reshape(*x_BTE.shape[:2], num_heads, -1).transpose(1, 2)

    out_BHTD: Tensor = F.scaled_dot_product_attention(heads(query_BTE), heads(key_BSE), heads(value_BSE), logits_B1TS)
    return out_BHTD.transpose(1, 2).flatten(2)
