"""Classification and regression heads shared across pyramid levels: classes and distances, by convolutions.

    logits = conv(stack(x)),    offsets = relu(scale of the level x conv(stack(x)))

All levels are convolved as one sequence with zeros between them, as wide as a kernel reaches: one matrix product
instead of one for each level, the same numbers.

B items, G places of all levels with the gaps, P points, C channels, O outputs, L levels.

Source: Zhang et al., ECCV 2022 (ActionFormer); Geng et al., CVPR 2023 (UnAV), a distance for each class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.blocks.temporal_conv import ConvStack, MaskedConv
from heads.dense.level_sequence import LevelSequence
from heads.dense.output import DenseOutput

# The probability that every class starts with at every point (Lin et al., ICCV 2017): sigmoid(-ln 99).
PRIOR = 0.01


class PointConvs(nn.Module):
    """Convolutions with norm and ReLU, and one more to the outputs: (B, G, C) to (B, G, O).

    Args:
        width: C.
        outputs: O.
        hidden: channels between.
        layers: convolutions, the last included.
        prior: the probability that the outputs start with as logits; None starts with a bias of 0.
    """

    def __init__(
        self,
        width: int,
        outputs: int,
        *,
        hidden: int = 512,
        layers: int = 3,
        kernel: int = 3,
        prior: float | None = None,
    ) -> None:
        super().__init__()
        self.stack = ConvStack(width, hidden, layers=layers - 1, kernel=kernel)
        self.out = MaskedConv(hidden if layers > 1 else width, outputs, kernel)
        if prior is not None:
            assert self.out.conv.bias is not None, "made with one"
            nn.init.constant_(self.out.conv.bias, -math.log((1 - prior) / prior))

    def forward(self, x_BGC: Tensor, mask_BG: Tensor) -> Tensor:
        """The outputs, zero outside the mask.

        Args:
            x_BGC: zero outside the mask.
            mask_BG: bool, True where a point stands on a real segment.
        """
        out_BGO: Tensor = self.out(self.stack(x_BGC, mask_BG), mask_BG)
        return out_BGO


class DenseDecoder(nn.Module):
    """A pyramid's features to logits and offsets.

    Args:
        width: C of the features.
        num_classes: K.
        levels: L.
        class_aware: a start and an end for each class, else for all together.
        hidden: channels of the convolutions between.
        layers: convolutions of each part, the last included.
    """

    def __init__(
        self, width: int, num_classes: int, *, levels: int, class_aware: bool = True, hidden: int = 512, layers: int = 3
    ) -> None:
        super().__init__()
        self.classify = PointConvs(width, num_classes, hidden=hidden, layers=layers, prior=PRIOR)
        self.regress = PointConvs(width, 2 * (num_classes if class_aware else 1), hidden=hidden, layers=layers)
        self.scale_L = nn.Parameter(torch.ones(levels))

    def forward(self, levels: Sequence[Tensor], masks: Sequence[Tensor]) -> DenseOutput:
        """Logits and offsets, zero at points outside the mask.

        Args:
            levels: (B, T, C) of each level, the finest first, zero outside the mask.
            masks: (B, T) bool of each level.

        Raises:
            ValueError: another number of levels than the decoder was made for.
        """
        if len(levels) != len(self.scale_L) or len(masks) != len(levels):
            raise ValueError(f"the decoder needs {len(self.scale_L)} levels, got {len(levels)} and {len(masks)} masks")
        lay = LevelSequence([x.shape[1] for x in levels], gap=1, device=levels[0].device)
        x_BGC, mask_BG = lay.joined(levels), lay.joined(masks)
        logits_BPK = lay.points(self.classify(x_BGC, mask_BG))
        raw_BPO = lay.points(self.regress(x_BGC, mask_BG))
        scale_P = torch.cat([scale.expand(count) for scale, count in zip(self.scale_L, lay.counts, strict=True)])
        offsets_BPO = F.relu(raw_BPO * scale_P[:, None])
        return DenseOutput(
            logits_BPK=logits_BPK,
            offsets_BPC2=offsets_BPO.reshape(*offsets_BPO.shape[:2], -1, 2),
            mask_BP=lay.points(mask_BG),
            counts=lay.counts,
        )
