"""ActionFormer: one stream through a pyramid of transformer blocks that look at their neighbours in time.

    x = stack([visual, audio])                          then 2 blocks at full rate
    x_l = halving block(x_l-1)                          5 times
    logits, offsets = decoder(norm x_0 ... norm x_5)    a start and an end at each point

As a baseline of audio-visual events: both modalities' features are joined at the input, and trained as UnAV is (no
published config is for UnAV-100). Sizes, windows of 19 segments, the start and end that all classes share, and points
within 1.5 strides of an event's middle are those of its config for THUMOS14.

B items, T segments, C width.

Source: Zhang et al., ECCV 2022 (ActionFormer), and its published code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from catalog.fields import Dropout, Positive, Size
from heads.blocks.conv_transformer import ConvTransformerBlock
from heads.blocks.temporal_conv import ConvStack, sinusoid
from heads.dense.config import TRAINING, BaselineConfig, Blocks
from heads.dense.decoder import DenseDecoder
from heads.dense.halving_pyramid import HalvingPyramid
from heads.dense.head import DenseHead
from heads.dense.output import DenseOutput
from heads.dense.pyramid_input import halvable, joined_features
from heads.features import FeatureBatch
from heads.spec import HeadSpec

SPEC = HeadSpec(
    summary="ActionFormer on joined features: a pyramid of local attention; finds events with start and end",
    task="events",
    pools_places=True,
    training=TRAINING,
)


class ActionFormer(DenseHead):
    """Features of either modality, or both joined, to events."""

    @dataclass(frozen=True, kw_only=True)
    class Config(BaselineConfig):
        """The architecture; defaults as published for THUMOS14.

        Attributes:
            num_heads: of attention; divides the width.
            window: of attention, in points of the level; None sees all.
            blocks: at full rate; the other levels have one each.
            sinusoid: are positions in time added to the input?
            dropout: after attention and each linear map of a block.
        """

        num_heads: Size = 4
        window: Size | None = 19
        blocks: Blocks = 2
        sinusoid: bool = False
        dropout: Dropout = 0.1
        regression: Literal["class_aware", "class_agnostic"] = "class_agnostic"
        center_radius: Positive | None = 1.5

        def __post_init__(self) -> None:
            super().__post_init__()
            self.need_heads(self.num_heads, self.width)

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.stack = ConvStack(config.joined_width, config.width, layers=config.stack)

        def block(stride: int) -> ConvTransformerBlock:
            return ConvTransformerBlock(
                config.width,
                num_heads=config.num_heads,
                stride=stride,
                window=config.window,
                drop_path=config.drop_path,
                dropout=config.dropout,
            )

        self.pyramid = HalvingPyramid(
            config.width,
            blocks=[block(1) for _ in range(config.blocks)],
            halving=[block(2) for _ in range(config.levels - 1)],
        )
        self.decoder = DenseDecoder(
            config.width,
            config.num_classes,
            levels=config.levels,
            class_aware=config.regression == "class_aware",
            hidden=config.hidden,
        )

    def forward(self, batch: FeatureBatch) -> DenseOutput:
        """As `DenseHead`, over T padded to a multiple of 2^(levels - 1)."""
        config = self.config
        joined_BTD = joined_features(config, batch)
        mask_BT = halvable(batch.mask_BT, config.levels)
        x_BTC: Tensor = self.stack(joined_BTD, mask_BT)
        if config.sinusoid:
            places_TC = sinusoid(x_BTC.shape[1], x_BTC.shape[2], device=x_BTC.device)
            x_BTC = x_BTC + places_TC * mask_BT[..., None]
        output: DenseOutput = self.decoder(*self.pyramid(x_BTC, mask_BT))
        return output


Head = ActionFormer
