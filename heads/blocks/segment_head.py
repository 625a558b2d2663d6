"""Base class of the heads that score segments. B items, T segments, K outputs."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from torch import Tensor

from heads.blocks.losses import binary_cross_entropy, cross_entropy
from heads.spec import Head

if TYPE_CHECKING:
    from heads.data.device import Target


class SegmentHead(Head):
    """Features to logits of each segment."""

    @abc.abstractmethod
    def forward(
        self,
        visual: Tensor | None,
        audio: Tensor | None,
        mask_BT: Tensor,
        visual_valid_BT: Tensor | None = None,
        audio_valid_BT: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, K) float32; outside the mask they are finite and mean nothing.

        Args:
            visual, audio: (B, T, D), (B, T, R, D) or maps (B, T, ..., D); None if not used. What was not computed (NaN)
                counts as zeros.
            mask_BT: bool, True where the segment is real.
            visual_valid_BT, audio_valid_BT: bool, True where the feature was computed; None means `mask_BT`.

        Raises:
            ValueError: a modality that the head uses is missing, or of another width or number of segments.
        """

    def loss(
        self,
        visual: Tensor | None,
        audio: Tensor | None,
        target: Target,
        visual_valid_BT: Tensor | None = None,
        audio_valid_BT: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy in nats as (B,) sums and (B,) counts over an item's real segments."""
        logits_BTK: Tensor = self(visual, audio, target.mask_BT, visual_valid_BT, audio_valid_BT)
        return segment_loss(logits_BTK.float(), target)

    def flags(
        self,
        visual: Tensor | None,
        audio: Tensor | None,
        mask_BT: Tensor,
        visual_valid_BT: Tensor | None = None,
        audio_valid_BT: Tensor | None = None,
    ) -> Tensor | None:
        """(B, T) bool, the segments flagged as events, where some may have the background's class (for OV-AVEBench's F1
        measures); None where the classes alone decide, the default."""
        return None


def segment_loss(logits_BTK: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """`cross_entropy` of one class a segment, `binary_cross_entropy` of any number of them."""
    if target.classes_BT is not None:
        return cross_entropy(logits_BTK, target.classes_BT, target.mask_BT)
    assert target.labels_BTK is not None, "a target has classes or labels"
    return binary_cross_entropy(logits_BTK, target.labels_BTK, target.mask_BT)
