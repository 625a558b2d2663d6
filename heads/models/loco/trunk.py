"""LoCo up to what its heads say at the points: encoders of both modalities, LCC, the pyramid, the decoder's blocks.

    each modality: 2 masked convolutions to width C, transformer blocks                    F_v, F_a
    LCC draws F_v and F_a of one time together (a loss, in training only)
    pyramid: both streams ask each other in windows of their own choice, joined a level    (B, T / 2^l, 2 C)
    transformer blocks over each level, one set of weights for all

No code was ever published. Readings of what the paper leaves open:

- width 512, 4 attention heads, 2 unimodal blocks, 6 levels, 1 block a level in the decoder: what the code bases that it
  builds on have (UnAV, UniAV); so are the convolutions before the blocks, the blocks' own convolutions of queries, keys
  and values, and the size of the decoder's blocks, that of the joined streams;
- unimodal and decoder blocks attend to 256 segments a side: all of a video of UnAV-100 (237 at most), as published. In
  longer ones the cost stays linear in T;
- no places in time are added: they would be other numbers in each window of a long video, and beyond 256 none was ever
  seen in training. `sinusoid` adds UnAV's;
- a segment that lacks one modality has zeros there, and no part in LCC.

One modality alone makes a pyramid of one stream that asks itself, without LCC.

B batch, T segments, C width, K classes, L levels.

Source: the LoCo paper (locality-aware cross-modal correspondence learning for dense audio-visual events localization),
sections 3.2 to 3.5 and 4.2; Geng et al., CVPR 2023 (UnAV).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from catalog.fields import Dropout, EvenSize, Size, Weight
from catalog.store.modal import Modal
from heads.blocks.conv_transformer import ConvTransformerBlock
from heads.blocks.segment_vectors import segment_vectors
from heads.blocks.standardise import Standardise
from heads.blocks.temporal_conv import ConvStack, sinusoid
from heads.dense import config as dense_config
from heads.dense.config import Blocks, DenseConfig
from heads.dense.pyramid_input import halvable
from heads.features import FeatureBatch
from heads.models.loco.lcc import SIGMA_RANGE, TAU_RANGE, CorrespondenceCorrection
from heads.models.loco.pyramid import CrossOrOff, Level, PerceptionPyramid

# As UnAV was trained, whose settings the paper takes over; the paper names Adam, that code has AdamW, whose decay holds
# for weights of maps and convolutions.
TRAINING: Mapping[str, int | float | str] = {**dense_config.TRAINING, "max_segments": 256}


@dataclass(frozen=True, kw_only=True)
class LocoConfig(DenseConfig):
    """The architecture and the ablations of the paper's tables.

    Attributes:
        num_heads: of every attention; divides the width, which is even.
        unimodal_layers: transformer blocks a modality.
        window: of the pyramid, in points of a level (table 2d: 4, 8, 16, 32).
        cross: what a point of the pyramid attends to (table 2c); "off": its own stream alone (tables 2a and 3, base).
        lcc: the objective of LCC (table 2b), or no LCC (table 2a).
        lcc_weight: of its loss.
        lcc_sigma: grid steps, where the Gaussian starts (or stays).
        lcc_stride: LCC takes every `lcc_stride`-th segment; its matrix has (B T / stride)^2 entries.
        tau: where LCC's temperature starts.
        decoder_layers: transformer blocks over each level.
        attention_window: of unimodal and decoder blocks, in segments, whatever the level; none attends to all, at a
            cost that grows with the square of T.
        sinusoid: adds positions in time after the convolutions.
        dropout: after every attention and in all feed-forward layers.
        standardise: features by channel, by the training split; the published features are taken as they are.
    """

    width: EvenSize = 512
    num_heads: Size = 4
    unimodal_layers: Blocks = 2
    window: Size = 8
    cross: CrossOrOff = "cdp"
    lcc: Literal["gaussian", "fixed", "diagonal", "softened", "off"] = "gaussian"
    lcc_weight: Weight = 0.1
    lcc_sigma: Annotated[float, Field(ge=SIGMA_RANGE[0], le=SIGMA_RANGE[1])] = 1.0
    lcc_stride: Size = 1
    tau: Annotated[float, Field(ge=TAU_RANGE[0], le=TAU_RANGE[1])] = 0.07
    decoder_layers: Blocks = 1
    attention_window: Size | None = 512
    sinusoid: bool = False
    dropout: Dropout = 0.0
    standardise: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_heads(self.num_heads, self.width)

    @property
    def streams(self) -> tuple[str, ...]:
        """The modalities that are looked at."""
        used = {"visual": self.uses_visual, "audio": self.uses_audio}
        return tuple(name for name, is_used in used.items() if is_used)


class LocoTrunk(nn.Module):
    """Features of audio and frames to the levels of a pyramid."""

    def __init__(self, config: LocoConfig) -> None:
        super().__init__()
        self.config = config
        widths = {"visual": config.visual_width, "audio": config.audio_width}
        names = config.streams
        self.standard = nn.ModuleDict({name: Standardise(widths[name]) for name in names})
        self.embed = nn.ModuleDict({name: ConvStack(widths[name], config.width) for name in names})
        self.encode = nn.ModuleDict(
            {name: _blocks(config, config.width, config.unimodal_layers) for name in names},
        )
        self.lcc: CorrespondenceCorrection | None = None
        if config.lcc != "off" and len(names) == 2:
            self.lcc = CorrespondenceCorrection(
                config.width,
                objective=config.lcc,
                sigma=config.lcc_sigma,
                tau=config.tau,
                stride=config.lcc_stride,
            )
        self.pyramid = PerceptionPyramid(
            config.width,
            streams=len(names),
            levels=config.levels,
            num_heads=config.num_heads,
            window=config.window,
            cross=config.cross,
            dropout=config.dropout,
            drop_path=config.drop_path,
        )
        self.fuse = _blocks(config, len(names) * config.width, config.decoder_layers)

    @property
    def out_width(self) -> int:
        """Channels of a level."""
        return len(self.config.streams) * self.config.width

    def fit_statistics(self, visual: Modal | None, audio: Modal | None) -> None:
        """Take the standardisation, if wanted, from the training split."""
        given = {"visual": visual, "audio": audio}
        for name, standard in self.standard.items():
            rows = given[name]
            if self.config.standardise and rows is not None:
                assert isinstance(standard, Standardise)
                standard.fit(rows.values, rows.valid)

    def encoded(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """F_v and F_a: (B, T, C) of each modality by its name, 0 outside the mask.

        Raises:
            ValueError: a modality that is looked at is missing, or of another width or number of segments.
        """
        mask_BT, streams = batch.mask_BT, {}
        for name in self.config.streams:
            values, valid_BT = batch.modality(name)
            vectors_BTD = segment_vectors(name, values, valid_BT, getattr(self.config, f"{name}_width"))
            if self.config.standardise:
                vectors_BTD = self.standard[name](vectors_BTD, valid_BT)
            x_BTC = self.embed[name](vectors_BTD, mask_BT)
            if self.config.sinusoid:
                x_BTC = x_BTC + sinusoid(x_BTC.shape[1], x_BTC.shape[2], device=x_BTC.device) * mask_BT[..., None]
            streams[name] = _through(self.encode[name], x_BTC, mask_BT)
        return streams

    def forward(self, batch: FeatureBatch) -> tuple[list[Level], Tensor | None]:
        """The levels, finest first, of T padded to what the pyramid needs; in training also LCC's loss, weighted.

        Raises:
            ValueError: a modality that is looked at is missing, or of another width or number of segments.
        """
        streams = self.encoded(batch)
        loss = None
        if self.lcc is not None and self.training:
            paired_BT = batch.visual_valid_BT & batch.audio_valid_BT
            loss = self.config.lcc_weight * self.lcc(streams["visual"], streams["audio"], paired_BT)
        depth = self.config.levels
        levels = self.pyramid([halvable(x_BTC, depth) for x_BTC in streams.values()], halvable(batch.mask_BT, depth))
        return [
            Level(
                x_BTF=_through(self.fuse, level.x_BTF, level.mask_BT, window=self._reach(number)),
                mask_BT=level.mask_BT,
            )
            for number, level in enumerate(levels)
        ], loss

    def _reach(self, level: int) -> int | None:
        """The decoder's window in points of a level: as many segments at each, and no less than the pyramid's."""
        window = self.config.attention_window
        return max(self.config.window, window // 2**level) if window else None


def _blocks(config: LocoConfig, width: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(
        ConvTransformerBlock(
            width,
            num_heads=config.num_heads,
            window=config.attention_window,
            drop_path=config.drop_path,
            dropout=config.dropout,
        )
        for _ in range(count)
    )


def _through(blocks: nn.Module, x_BTC: Tensor, mask_BT: Tensor, *, window: int | None = None) -> Tensor:
    assert isinstance(blocks, nn.ModuleList)
    for block in blocks:
        x_BTC = block(x_BTC, mask_BT, window=window)
    return x_BTC
