"""Base class of the heads that score segments. B items, T segments, K outputs."""

from __future__ import annotations

import abc

from torch import Tensor

from heads.blocks.losses import segment_loss
from heads.features import FeatureBatch, Target
from heads.spec import Head


class SegmentHead(Head):
    """Features to logits of each segment."""

    @abc.abstractmethod
    def forward(self, batch: FeatureBatch) -> Tensor:
        """Logits (B, T, K) float32; outside the mask they mean nothing. What was not computed counts as zeros.

        Raises:
            ValueError: a modality that the head uses is missing or of another width.
        """

    def loss(self, batch: FeatureBatch, target: Target) -> tuple[Tensor, Tensor]:
        """Cross-entropy in nats as (B,) sums and (B,) counts over an item's real segments."""
        logits_BTK: Tensor = self(batch)
        return segment_loss(logits_BTK.float(), target, batch.mask_BT)

    def flags(self, batch: FeatureBatch) -> Tensor | None:
        """(B, T) bool, the segments flagged as events, where some may have the background's class (for OV-AVEBench's F1
        measures); None where the classes alone decide, the default."""
        return None
