"""TriDet: a pyramid without attention, and starts and ends by the points at which a class starts or ends.

    x = stack([visual, audio])                     then 2 SGP blocks at full rate
    x_l = halving SGP block(x_l-1)                 5 times
    logits = convolutions(x_0 ... x_5),    offsets = expected distances to starts and ends

As a baseline of audio-visual events: both modalities' features are joined at the input, and trained as UnAV is (no
published config is for UnAV-100). Sizes, a far kernel of 5 times, 16 bins and points within 1.5 strides of an event's
middle are those of its config for THUMOS14.

Readings, besides those in the blocks: offsets are of each class, so each class learns its own event at a point
(published: the shortest event of all); the class loss is not weighted by the overlap (published: to the power of 0.2)
and no noise is added to the input (published: of 0.0005).

B items, T segments, C width.

Source: Shi et al., CVPR 2023 (TriDet), and its published code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from catalog.fields import Finite, Positive, Size
from heads.blocks.temporal_conv import ConvStack
from heads.dense.config import TRAINING, BaselineConfig, Blocks
from heads.dense.decoder import PRIOR, PointConvs
from heads.dense.halving_pyramid import HalvingPyramid
from heads.dense.head import DenseHead
from heads.dense.level_sequence import LevelSequence
from heads.dense.output import DenseOutput
from heads.dense.pyramid_input import halvable, joined_features
from heads.features import FeatureBatch
from heads.models.tri_det.sgp import GROUPS, SgpBlock
from heads.models.tri_det.trident import TridentRegression
from heads.spec import HeadSpec

SPEC = HeadSpec(
    summary="TriDet on joined features: convolutions over a pyramid, boundaries by bins; "
    "finds events with start and end",
    task="events",
    pools_places=True,
    training=TRAINING,
)
# Of a kernel and of the bins: beyond, a level of hours would be one window.
MOST_POINTS = 4096
Points = Annotated[int, Field(ge=1, le=MOST_POINTS)]


class TriDet(DenseHead):
    """Features of either modality, or both joined, to events."""

    @dataclass(frozen=True, kw_only=True)
    class Config(BaselineConfig):
        """The architecture; defaults as published for THUMOS14.

        Attributes:
            kernel: of what is near in a block, odd.
            reach: how many times farther the far kernel sees.
            bins: the farthest start or end, in points of the level.
            blocks: at full rate; the other levels have one each.
            inner: width inside a block.
        """

        width: Annotated[Size, Field(multiple_of=GROUPS)] = 512
        kernel: Points = 1
        reach: Finite = 5.0
        bins: Points = 16
        blocks: Blocks = 2
        inner: Size = 768
        regression: Literal["class_aware"] = "class_aware"
        center_radius: Positive | None = 1.5

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.kernel % 2 == 0:
                raise ValueError(f"kernel must be odd, got {self.kernel}")
            if not 1 <= self.reach * (self.kernel + 1) <= MOST_POINTS:
                raise ValueError(f"reach must give a far kernel of 1 to {MOST_POINTS}, got {self.reach}")

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.stack = ConvStack(config.joined_width, config.width, layers=config.stack)

        def block(stride: int, drop_path: float | None) -> SgpBlock:
            return SgpBlock(
                config.width,
                kernel=config.kernel,
                reach=config.reach,
                stride=stride,
                hidden=config.inner,
                drop_path=drop_path,
            )

        self.pyramid = HalvingPyramid(
            config.width,
            blocks=[block(1, None) for _ in range(config.blocks)],
            halving=[block(2, config.drop_path) for _ in range(config.levels - 1)],
        )
        self.classify = PointConvs(config.width, config.num_classes, hidden=config.hidden, prior=PRIOR)
        self.regress = TridentRegression(
            config.width, config.num_classes, levels=config.levels, bins=config.bins, hidden=config.hidden
        )

    def forward(self, batch: FeatureBatch) -> DenseOutput:
        """As `DenseHead`, over T padded to a multiple of 2^(levels - 1)."""
        config = self.config
        joined_BTD = joined_features(config, batch)
        mask_BT = halvable(batch.mask_BT, config.levels)
        levels, masks = self.pyramid(self.stack(joined_BTD, mask_BT), mask_BT)
        lay = LevelSequence([x.shape[1] for x in levels], gap=config.bins, device=mask_BT.device)
        x_BGC, mask_BG = lay.joined(levels), lay.joined(masks)
        return DenseOutput(
            logits_BPK=lay.points(self.classify(x_BGC, mask_BG)),
            offsets_BPC2=self.regress(x_BGC, mask_BG, lay),
            mask_BP=lay.points(mask_BG),
            counts=lay.counts,
        )


Head = TriDet
