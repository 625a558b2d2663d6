"""What dense heads inherit: their loss. B items, P points, K classes, C = K (class-aware regression) or 1, E events.

    loss = (focal loss of all points and classes + IoU loss of positive (point, class) pairs) / normaliser + auxiliary

The normaliser is a moving average of the number of positive points of a batch, taken over in evaluation as it stands.

Source: Geng et al., CVPR 2023 (UnAV) after Zhang et al., ECCV 2022 (ActionFormer), and their published code.
"""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from heads.dense.config import DenseConfig
from heads.dense.losses import Normaliser, diou, focal, giou
from heads.dense.output import DenseOutput
from heads.dense.points import divisor, points
from heads.dense.targets import dense_targets
from heads.features import FeatureBatch, Target
from heads.spec import Head


class DenseHead(Head):
    """Base of the heads that find events with a start and an end of their own."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.config = config
        self.normaliser = Normaliser()

    @property
    def alignment(self) -> int:
        """Segments: what is said of an item's part is what is said of it in the whole, away from the part's ends, where
        the part begins at a multiple of so many."""
        return divisor(self.config.levels)

    @abc.abstractmethod
    def forward(self, batch: FeatureBatch) -> DenseOutput:
        """Logits and offsets at the points of the pyramid, for any T. What was not computed counts as zeros.

        Raises:
            ValueError: a modality that the head uses is missing or of another width.
        """

    def loss(self, batch: FeatureBatch, target: Target) -> tuple[Tensor, Tensor]:
        """(B,) sums and (B,) counts, so that the sums' sum over the counts' sum is the loss above."""
        output = self(batch)
        return self.loss_of(output, target)

    def loss_of(self, output: DenseOutput, target: Target) -> tuple[Tensor, Tensor]:
        """As `loss`, of an output that is there already.

        Raises:
            ValueError: the target has no events' times.
        """
        if target.events_BE2 is None or target.event_labels_BE is None:
            raise ValueError("a dense head learns from events with times, got a target of segments")
        config, mask_BP = self.config, output.mask_BP
        truth = dense_targets(
            points(output.counts[0], len(output.counts), device=mask_BP.device),
            target.events_BE2,
            target.event_labels_BE,
            mask_BP,
            num_classes=config.num_classes,
            class_aware=config.regression == "class_aware",
            center_radius=config.center_radius,
        )
        classes_BPK = focal(output.logits_BPK.float(), truth.classes_BPK) * mask_BP.unsqueeze(-1)
        sums_B = classes_BPK.sum(dim=(1, 2))
        positive_BPC = truth.positive_BPC
        iou = diou if config.iou_loss == "diou" else giou
        pairs_N = iou(output.offsets_BPC2.float()[positive_BPC], truth.offsets_BPC2[positive_BPC])
        sums_B = sums_B.index_add(0, positive_BPC.nonzero()[:, 0], pairs_N)
        normaliser = self.normaliser(positive_BPC.any(dim=-1).sum())
        counts_B = (normaliser / len(sums_B)).expand(len(sums_B))
        if output.auxiliary is not None:
            sums_B = sums_B + output.auxiliary.float() * counts_B
        return sums_B, counts_B.to(torch.float32)
