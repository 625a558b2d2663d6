"""UnAV: two streams that query each other at every level of a pyramid, and what classes say of each other.

    v, a = stack(visual) + places, stack(audio) + places         then 2 blocks of self-attention each
    v_0, a_0 = cross(v, a), cross(a, v)                          the first keeps its residual, the second queries it
    v_l, a_l = halving cross(v_l-1, a_l-1), (a_l-1, v_l-1)       5 times
    f_l = dependency([v_l, a_l])
    logits, offsets = decoder(f_0 ... f_5)                       a start and an end for each class

At the published sizes (I3D's 2048 and VGGish's 128 numbers a segment, 100 classes) 139,544,114 parameters, 78,847,232
of them in the dependency block: `dependency=False` leaves it out and takes a fraction of the time.

Readings of what the published code does beyond the paper: places go on beyond the longest training item (it stretches
its table), padding changes nothing (a norm's bias leaks into the last real segment there; 0 at the start), and see the
blocks. Its weights decay apart from biases, norms and scales; the published choice of an epoch is by the raw weights,
whereas the averaged ones are then evaluated.

B items, T segments, C width.

Source: Geng et al., CVPR 2023 (UnAV), and its published code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from catalog.fields import Size
from heads.blocks.conv_transformer import ConvTransformerBlock
from heads.blocks.temporal_conv import ConvStack, sinusoid
from heads.dense.config import TRAINING, BaselineConfig, Blocks
from heads.dense.decoder import DenseDecoder
from heads.dense.head import DenseHead
from heads.dense.output import DenseOutput
from heads.dense.pyramid_input import halvable, level_masks, modality_features
from heads.features import FeatureBatch
from heads.models.unav.class_dependency import ClassDependency
from heads.spec import HeadSpec

SPEC = HeadSpec(
    summary="UnAV: audio and frames query each other over a pyramid in time; finds events with start and end",
    task="events",
    pools_places=True,
    training=TRAINING,
)


class Unav(DenseHead):
    """Features of audio and frames to events."""

    @dataclass(frozen=True, kw_only=True)
    class Config(BaselineConfig):
        """The architecture; defaults as published.

        Attributes:
            dependency: is there the block over classes and time?
            num_heads: of attention; divides the width.
            self_blocks: of each stream.
            class_width: of a class in the dependency block.
        """

        dependency: bool = True
        num_heads: Size = 4
        self_blocks: Blocks = 2
        class_width: Size = 128

        def __post_init__(self) -> None:
            super().__post_init__()
            self.need_both()
            self.need_heads(self.num_heads, self.width)

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.visual, self.audio = (Stream(config, width) for width in (config.visual_width, config.audio_width))
        self.dependency: ClassDependency | None = None
        if config.dependency:
            self.dependency = ClassDependency(
                2 * config.width, config.num_classes, class_width=config.class_width, drop_path=config.drop_path
            )
        self.decoder = DenseDecoder(
            2 * config.width,
            config.num_classes,
            levels=config.levels,
            class_aware=config.regression == "class_aware",
            hidden=config.hidden,
        )

    def forward(self, batch: FeatureBatch) -> DenseOutput:
        """As `DenseHead`, over T padded to a multiple of 2^(levels - 1)."""
        config = self.config
        visual_BTV = modality_features("visual", batch, config.visual_width, config.levels)
        audio_BTA = modality_features("audio", batch, config.audio_width, config.levels)
        masks = level_masks(halvable(batch.mask_BT, config.levels), config.levels)
        visual_BTC = self.visual.encode(visual_BTV, masks[0])
        audio_BTC = self.audio.encode(audio_BTA, masks[0])
        levels: list[Tensor] = []
        for level in range(config.levels):
            # A block that halves sees the mask of the level before.
            mask = masks[max(0, level - 1)]
            visual_BTC, audio_BTC = (
                self.visual.cross[level](visual_BTC, mask, audio_BTC),
                self.audio.cross[level](audio_BTC, mask, visual_BTC),
            )
            levels.append(torch.cat((visual_BTC, audio_BTC), dim=-1))
        if self.dependency is not None:
            levels = self.dependency(levels, masks)
        output: DenseOutput = self.decoder(levels, masks)
        return output


class Stream(nn.Module):
    """One modality's part before the dependency block: its input, and the blocks that the other one queries.

    Args:
        config: the head's.
        in_width: of the modality's features.
    """

    def __init__(self, config: Unav.Config, in_width: int) -> None:
        super().__init__()
        self.stack = ConvStack(in_width, config.width, layers=config.stack)

        def block(stride: int) -> ConvTransformerBlock:
            # A norm for the queries' input even where they are the stream's own: so published.
            return ConvTransformerBlock(
                config.width, num_heads=config.num_heads, stride=stride, drop_path=config.drop_path, cross=True
            )

        self.own = nn.ModuleList(block(1) for _ in range(config.self_blocks))
        self.cross = nn.ModuleList(block(1 if level == 0 else 2) for level in range(config.levels))

    def encode(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """(B, T, D) features to (B, T, C), zero outside the mask."""
        x_BTC: Tensor = self.stack(x_BTD, mask_BT)
        places_TC = sinusoid(x_BTC.shape[1], x_BTC.shape[2], device=x_BTC.device)
        x_BTC = x_BTC + places_TC * mask_BT[..., None]
        for block in self.own:
            x_BTC = block(x_BTC, mask_BT)
        return x_BTC


Head = Unav
