"""Event-guided temporal refinement: a mask says how much of an event each segment is, and one more fusion follows.

alpha = sigmoid(W7 BiLSTM(Norm(O))), O' = alpha O, O_w = fusion of O' over the refiner's windows. With supervision the
mask's logits also learn event against background.

B batch, T segments, I input width, D width.

Source: Mahmud and Marculescu, WACV 2023 (AVE-CLIP), equations 13 to 15 and the first term of 17. Readings of what they
leave open: Norm is a LayerNorm over the channels, the BiLSTM's output is as wide as the head, W7 has a bias.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.blocks.masked_lstm import MaskedLSTM
from heads.models.ave_clip.mwtf import Attention, MultiWindowFusion


class EventAttention(nn.Module):
    """The mask's logits: (B, T, I) to (B, T).

    Args:
        input_width: I.
        width: of the BiLSTM's output, even.

    Raises:
        ValueError: a width is below 1, or `width` is odd.
    """

    def __init__(self, input_width: int, width: int) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"two directions need an even width, got {width}")
        self.norm = nn.LayerNorm(input_width)
        self.lstm = MaskedLSTM(input_width, width // 2)
        self.score = nn.Linear(width, 1)

    def forward(self, x_BTI: Tensor, mask_BT: Tensor) -> Tensor:
        """Logits (B, T); outside the mask they mean nothing."""
        logits_BT1: Tensor = self.score(self.lstm(self.norm(x_BTI), mask_BT))
        return logits_BT1[..., 0]


class EventRefinement(nn.Module):
    """The mask, and the refiner after it: (B, T, I) to (B, T, `output_width`).

    Args:
        input_width: I.
        width: D, of the mask's BiLSTM and of the refiner.
        masked: weigh segments by the event mask at all.
        windows: the refiner's, as `parse_windows` reads them; empty: one linear map and relu in its place, the
            paper's rows "without" it.
        attention, shared, residual: of the refiner, as of `MultiWindowFusion`.

    Raises:
        ValueError: as `EventAttention` and `MultiWindowFusion`.
    """

    def __init__(
        self,
        input_width: int,
        width: int,
        *,
        masked: bool = True,
        windows: str = "T",
        attention: Attention = "both",
        shared: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.event = EventAttention(input_width, width) if masked else None
        self.fusion = (
            MultiWindowFusion(
                input_width, width, windows=windows, attention=attention, shared=shared, residual=residual
            )
            if windows
            else None
        )
        self.linear = None if windows else nn.Linear(input_width, width)
        self.output_width = self.fusion.output_width if self.fusion is not None else width

    def forward(self, x_BTI: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor | None]:
        """Refined features, and the mask's logits (B, T), None without a mask. Finite input everywhere."""
        logits_BT = None
        if self.event is not None:
            logits_BT = self.event(x_BTI, mask_BT)
            x_BTI = x_BTI * logits_BT.sigmoid()[..., None]
        if self.fusion is not None:
            return self.fusion(x_BTI, mask_BT), logits_BT
        assert self.linear is not None, "made where there is no fusion"
        return torch.relu(self.linear(x_BTI)), logits_BT


def event_cross_entropy(logits_BT: Tensor, event_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of the mask against event or background.

    Args:
        event_BT: bool.
        mask_BT: bool; the rest weighs nothing.

    Returns:
        (B,) sums over an item's real segments in nats, and (B,) counts of them.
    """
    loss_BT = F.binary_cross_entropy_with_logits(logits_BT, event_BT.to(logits_BT.dtype), reduction="none")
    return torch.where(mask_BT, loss_BT, 0.0).sum(dim=1), mask_BT.sum(dim=1)
