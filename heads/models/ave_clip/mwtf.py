"""Multi-window temporal fusion: attention over time and over channels inside windows of several lengths.

A window splits the segments into blocks. For a block X of w segments (x its rows after LayerNorm)

    Q = W2 tanh(W1 x),  K = W4 tanh(W3 x),  V = W6 relu(W5 x)
    A_t = softmax(Q K^T / sqrt(d)), each row sums to 1
    A_f = softmax(K^T Q / sqrt(w)), each column sums to 1
    block's output = A_t (V A_f)  [+ W x, the residual, of X before LayerNorm]

and the outputs of all windows are joined along the channels. Readings of what the paper leaves open: equation 9 prints
K Q^T, whose size would be w x w, where it says d x d; W1, W3 and W5 take the whole input and not 256 of its channels;
no matrix has a bias. The residual is not in the paper: without it every segment is a mixture of its block, and on
planted features accuracy fell from 77.5 to 70.8 (three seeds); `residual=False` is the literal form.

Columns of A_f are attention in which the channels are the sequence: V A_f is scaled dot-product attention of Q^T, K^T,
V^T. Torch has that without ever holding the d x d map of each block, which would be the most memory a head needs.
Q, K and V depend on no window, so windows with shared weights compute them once.

B batch, T segments, I input width, D width, N windows, C blocks, L segments a block.

Source: Mahmud and Marculescu, WACV 2023 (AVE-CLIP), equations 4 to 12.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Attention = Literal["both", "temporal", "feature"]

# Far beyond the paper's four; a text from a damaged file must not take all memory.
MAX_WINDOWS = 32


@dataclass(frozen=True, kw_only=True)
class Window:
    """How segments are split into blocks of `length`.

    Attributes:
        length: segments a block; None is all of an item's segments.
        merged: what remains at the end joins the last block (3* over 10 segments: 3, 3, 4); else it is a shorter
            block of its own (3, 3, 3, 1).
    """

    length: int | None
    merged: bool = False

    def __post_init__(self) -> None:
        if self.length is not None and self.length < 1:
            raise ValueError(f"a window needs a length of at least 1, got {self.length}")


def parse_windows(text: str) -> tuple[Window, ...]:
    """The windows that a text such as "10,5,3*,2" or "T" names; the star merges, T is the whole item.

    Raises:
        ValueError: the text is empty or wrong.
    """
    windows = []
    for part in text.split(","):
        match = re.fullmatch(r"T|([1-9][0-9]{0,5})(\*?)", part.strip(), re.ASCII)
        if match is None:
            raise ValueError(
                f"windows are lengths joined by commas, a star where the remainder joins the last block, T for the "
                f"whole item (10,5,3*,2); got {part.strip()!r} in {text!r}"
            )
        length, star = match.groups()
        windows.append(Window(length=int(length) if length else None, merged=bool(star)))
    if len(windows) > MAX_WINDOWS:
        raise ValueError(f"at most {MAX_WINDOWS} windows, got {len(windows)}")
    return tuple(windows)


class MultiWindowFusion(nn.Module):
    """(B, T, I) to (B, T, N D).

    Args:
        input_width: I.
        width: D.
        windows: text for `parse_windows`.
        attention: over time, over channels, or both.
        shared: one set of weights for all windows; else one each.
        residual: adds W x.

    Raises:
        ValueError: a width is below 1, or the windows' text is wrong.
    """

    def __init__(
        self,
        input_width: int,
        width: int,
        *,
        windows: str,
        attention: Attention = "both",
        shared: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__()
        if min(input_width, width) < 1:
            raise ValueError(f"fusion needs widths of at least 1, got input {input_width}, width {width}")
        self.windows = parse_windows(windows)
        self.attention: Attention = attention
        self.output_width = width * len(self.windows)
        count = 1 if shared else len(self.windows)
        self.projections = nn.ModuleList(_Projections(input_width, width, residual=residual) for _ in range(count))

    def forward(self, x_BTI: Tensor, mask_BT: Tensor) -> Tensor:
        """The joined outputs of all windows; 0 where not real.

        Args:
            x_BTI: what lies outside the mask does not matter, NaN included.
            mask_BT: bool, True where real. An item's last real segment ends it: the blocks are cut as if the batch
                held this item alone.
        """
        full = bool(mask_BT.all())
        if not full:
            x_BTI = torch.where(mask_BT[..., None], x_BTI, 0.0)
        outputs, projected = [], None
        for i, window in enumerate(self.windows):
            if projected is None or len(self.projections) > 1:
                projected = self.projections[i](x_BTI)
            query_BTD, key_BTD, value_BTD, residual_BTD = projected
            blocks = _Blocks(window, mask_BT, full=full)
            query_BCLD, key_BCLD, value_BCLD = (blocks.split(x) for x in (query_BTD, key_BTD, value_BTD))
            fused_BTD = blocks.join(_attend(query_BCLD, key_BCLD, value_BCLD, blocks.real_BCL, self.attention))
            outputs.append(fused_BTD if residual_BTD is None else fused_BTD + residual_BTD)
        fused_BTE = torch.cat(outputs, dim=-1)
        return fused_BTE if full else torch.where(mask_BT[..., None], fused_BTE, 0.0)


class _Projections(nn.Module):
    """Q, K, V and the residual W x of every segment. W1, W3 and W5 are the three parts of `inner`."""

    def __init__(self, input_width: int, width: int, *, residual: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(input_width)
        self.inner = nn.Linear(input_width, 3 * width, bias=False)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.residual = nn.Linear(input_width, width, bias=False) if residual else None

    def forward(self, x_BTI: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        query_BTD, key_BTD, value_BTD = self.inner(self.norm(x_BTI)).chunk(3, dim=-1)
        return (
            self.query(torch.tanh(query_BTD)),
            self.key(torch.tanh(key_BTD)),
            self.value(torch.relu(value_BTD)),
            self.residual(x_BTI) if self.residual is not None else None,
        )


class _Blocks:
    """Where the blocks of one window lie: C blocks of at most L segments, block c from segment c * w on.

    Attributes:
        real_BCL: bool, the slots that hold a real segment; None where all do.
    """

    def __init__(self, window: Window, mask_BT: Tensor, *, full: bool) -> None:
        self.count_T = mask_BT.shape[1]
        # A window longer than the batch is one block.
        self.step = max(1, min(window.length or self.count_T, self.count_T))
        self.real_BCL: Tensor | None = None
        self.from_CL: Tensor | None = None  # the segment in each slot
        if window.merged and (not full or self.count_T % self.step):
            self._place_merged(mask_BT)
            return
        self.pad = -self.count_T % self.step
        if self.pad or not full:
            self.real_BCL = F.pad(mask_BT, (0, self.pad)).reshape(
                len(mask_BT), (self.count_T + self.pad) // self.step, self.step
            )

    def _place_merged(self, mask_BT: Tensor) -> None:
        """Each item's remainder belongs to its own last block, so slots differ between items of different lengths."""
        times_T = torch.arange(self.count_T, device=mask_BT.device)
        ends_B = torch.where(mask_BT, times_T + 1, 0).amax(dim=1)
        last_B = (ends_B // self.step - 1).clamp(min=0)
        longest = max(self.step, int((ends_B - last_B * self.step).max()))
        starts_C = self.step * torch.arange(max(1, self.count_T // self.step), device=mask_BT.device)
        from_CL = starts_C[:, None] + torch.arange(longest, device=mask_BT.device)
        self.from_CL = from_CL.clamp(max=self.count_T - 1)
        block_BT = torch.minimum(times_T // self.step, last_B[:, None])
        blocks_C = torch.arange(len(starts_C), device=mask_BT.device)
        own_BCL = block_BT[:, self.from_CL] == blocks_C[None, :, None]
        self.real_BCL = mask_BT[:, self.from_CL] & own_BCL & (from_CL < self.count_T)
        self.slot_BT = (block_BT * longest + times_T - block_BT * self.step).clamp(max=from_CL.numel() - 1)

    def split(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to (B, C, L, D), exactly 0 in slots without a real segment."""
        if self.from_CL is not None:
            x_BSD = x_BTD.index_select(1, self.from_CL.flatten())
            x_BCLD = x_BSD.reshape(len(x_BTD), *self.from_CL.shape, x_BTD.shape[-1])
        else:
            x_BSD = F.pad(x_BTD, (0, 0, 0, self.pad))
            x_BCLD = x_BSD.reshape(len(x_BTD), x_BSD.shape[1] // self.step, self.step, x_BTD.shape[-1])
        return x_BCLD if self.real_BCL is None else torch.where(self.real_BCL[..., None], x_BCLD, 0.0)

    def join(self, x_BCLD: Tensor) -> Tensor:
        """(B, C, L, D) back to (B, T, D)."""
        if self.from_CL is None:
            return x_BCLD.flatten(1, 2)[:, : self.count_T]
        return x_BCLD.flatten(1, 2).gather(1, self.slot_BT[..., None].expand(-1, -1, x_BCLD.shape[-1]))


def _attend(
    query_BCLD: Tensor, key_BCLD: Tensor, value_BCLD: Tensor, real_BCL: Tensor | None, attention: Attention
) -> Tensor:
    """Equations 8 to 10 for all blocks of a window; slots that are not real hold zeros and are not attended to."""
    x_BCLD = value_BCLD
    if attention != "temporal":
        # Slots of zeros add nothing to K^T Q; the scale is by the real segments of the block.
        if real_BCL is None:
            scaled_BCLD = query_BCLD * query_BCLD.shape[2] ** -0.5
        else:
            scaled_BCLD = query_BCLD * real_BCL.sum(dim=-1).clamp(min=1).rsqrt()[..., None, None]
        query_BCDL, key_BCDL, value_BCDL = (x.transpose(2, 3).contiguous() for x in (scaled_BCLD, key_BCLD, value_BCLD))
        x_BCLD = F.scaled_dot_product_attention(query_BCDL, key_BCDL, value_BCDL, scale=1.0).transpose(2, 3)
    if attention != "feature":
        logits_BCLL = query_BCLD.shape[-1] ** -0.5 * query_BCLD @ key_BCLD.transpose(2, 3)
        if real_BCL is not None:
            # The lowest finite number and not -inf: a block without any real segment would be NaN.
            logits_BCLL = logits_BCLL.masked_fill(~real_BCL[:, :, None, :], torch.finfo(logits_BCLL.dtype).min)
        x_BCLD = logits_BCLL.softmax(dim=-1) @ x_BCLD
    return x_BCLD
