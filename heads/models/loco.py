"""LoCo: local correspondence of sound and picture finds events with a start and an end of their own.

    levels = trunk(visual, audio)                                       heads.blocks.loco_trunk, lcc, cdp, pyramid
    logits, offsets = three convolutions each, shared by the levels     (B, P, K), (B, P, K, 2)
    loss = (focal + IoU loss) / normaliser + 0.1 LCC                    (equation 9)

The paper's IoU loss is GIoU (`iou_loss="giou"`, in one dimension 1 - IoU); the default is DIoU, which is what the code
base that it builds on computes under that name.

No code was ever published; what the paper leaves open and how it is read here stands in the blocks. Training needs
O((B T)^2) for LCC's matrix, everything else is linear in T.

B batch, T segments, P points of all levels, K classes, C = K (class-aware regression) or 1.

Source: the LoCo paper (locality-aware cross-modal correspondence learning for dense audio-visual events localization).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from heads.blocks import loco_trunk
from heads.blocks.dense_decoder import DenseDecoder
from heads.blocks.dense_head import DenseHead
from heads.blocks.dense_output import DenseOutput
from heads.blocks.loco_trunk import LocoConfig, LocoTrunk

SUMMARY = "LoCo: local correspondence of sound and picture, windows that move themselves; dense events"
POOLS_PLACES = True
DENSE = True
TRAINING = loco_trunk.TRAINING


class Loco(DenseHead):
    """Features of sound and picture to logits and offsets at the points of a pyramid."""

    @dataclass(frozen=True, kw_only=True)
    class Config(LocoConfig):
        """See `LocoConfig`.

        Attributes:
            regression: a start and an end for each class at a point, or for all classes together.
        """

        regression: Literal["class_aware", "class_agnostic"] = "class_aware"

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.trunk = LocoTrunk(config)
        self.decoder = DenseDecoder(
            self.trunk.out_width,
            config.num_classes,
            levels=config.levels,
            class_aware=config.regression == "class_aware",
            hidden=config.width,
        )

    @property
    def sigma(self) -> float | None:
        """LCC's standard deviation as it stands, in grid steps; None without LCC."""
        return None if self.trunk.lcc is None else self.trunk.lcc.sigma

    def fit_statistics(
        self,
        visual: NDArray[np.float32] | None,
        audio: NDArray[np.float32] | None,
        visual_valid_NT: NDArray[np.bool_],
        audio_valid_NT: NDArray[np.bool_],
    ) -> None:
        """Take the standardisation, if wanted, from the training split: features (N, T, ..., D), validity (N, T)."""
        self.trunk.fit_statistics(visual, audio, visual_valid_NT, audio_valid_NT)

    def forward(
        self,
        visual: Tensor | None,
        audio: Tensor | None,
        mask_BT: Tensor,
        visual_valid_BT: Tensor | None = None,
        audio_valid_BT: Tensor | None = None,
    ) -> DenseOutput:
        """Logits and offsets at the points; P covers T padded to a multiple of 2^(levels - 1).

        Args:
            visual, audio: (B, T, D) or maps (B, T, ..., D), averaged over the places; None if not used. What was not
                computed (NaN) is taken as zeros.
            mask_BT: bool, True where the segment is real.
            visual_valid_BT, audio_valid_BT: bool, True where the feature was computed; None means `mask_BT`.

        Raises:
            ValueError: a modality that the head looks at is missing, or of another width or number of segments.
        """
        levels, loss = self.trunk(visual, audio, mask_BT, visual_valid_BT, audio_valid_BT)
        output: DenseOutput = self.decoder([level.x_BTF for level in levels], [level.mask_BT for level in levels])
        return dataclasses.replace(output, auxiliary=loss)


Head = Loco
configure = Loco.Config.for_features
