"""Audio-visual transformer: instance attention over neighbouring seconds, then transformer layers across modalities.

    v = instance attention of sound over the places of seconds t - 1 .. t + 1, a = linear(audio)
    v, a += position of the second
    N times, at once: v = layer(v over [a, v]), a = layer(a over [v, a])
    logits = W2 relu(W1 [v, a])

No code is public and the sources here tell no more than the idea (co-attention of intra-frame, inter-frame and audio
information; regions that sound, at the level of instances). Readings: width 256, 4 heads, 1024 inside and dropout 0.1,
as in CMRA's layers; 2 layers; sinusoidal positions; one second's reach; standardised features; plain cross-entropy;
AdamW with 3e-4 and a cosine over 100 epochs. Its numbers are of this reading, not of the paper (76.8 on AVE).

B batch, T segments, R places, D width, K outputs.

Source: Lin and Wang, ACCV 2020; the layers of Xu et al., ACM MM 2020 (CMRA).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from catalog.fields import Count, Dropout, EvenSize, Size
from heads.blocks.cross_modal_layer import CrossModalLayer
from heads.blocks.feature_config import FeatureConfig
from heads.blocks.segment_positions import PairedPositions
from heads.features import FeatureBatch
from heads.models.av_transformer.instance_attention import InstanceAttention
from heads.spec import HeadSpec

SPEC = HeadSpec(
    summary="audio-visual transformer: instance attention over neighbouring seconds, cross-modal layers",
    pools_places=False,
    training={
        "epochs": 100,
        "batch_size": 64,
        "learning_rate": 3e-4,
        "weight_decay": 1e-2,
        "optimiser": "adamw",
        "schedule": "cosine",
    },
)


class AudioVisualTransformer(PairedPositions):
    """Features of audio and frames to logits a segment."""

    @dataclass(frozen=True, kw_only=True)
    class Config(FeatureConfig):
        """The architecture.

        Attributes:
            width: D, even.
            num_heads, feedforward, layers: of the transformer; N layers a modality.
            reach: segments on either side that the instance attention looks at.
            dropout: in every layer and before the last map.
            standardise: features by channel, by the training split.
        """

        width: EvenSize = 256
        num_heads: Size = 4
        feedforward: Size = 1024
        layers: Count = 2
        reach: Count = 1
        dropout: Dropout = 0.1
        standardise: bool = True

        def __post_init__(self) -> None:
            super().__post_init__()
            self.need_both()
            self.need_heads(self.num_heads, self.width)

    def __init__(self, config: Config) -> None:
        super().__init__(config.visual_width, config.audio_width, standardise=config.standardise)
        self.config = config
        width = config.width
        self.attend = InstanceAttention(
            config.visual_width,
            config.audio_width,
            width,
            num_heads=config.num_heads,
            reach=config.reach,
            dropout=config.dropout,
        )
        self.audio_map = nn.Linear(config.audio_width, width)
        self.visual_layers, self.audio_layers = (
            nn.ModuleList(
                CrossModalLayer(
                    width, num_heads=config.num_heads, feedforward=config.feedforward, dropout=config.dropout
                )
                for _ in range(config.layers)
            )
            for _ in range(2)
        )
        self.inner, self.classify = nn.Linear(2 * width, width), nn.Linear(width, config.num_classes)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, batch: FeatureBatch) -> Tensor:
        """Logits; places that were not computed are not attended to."""
        mask_BT = batch.mask_BT
        visual_BTRV, audio_BTA = self.inputs(batch)
        position_TD = sinusoid(mask_BT.shape[1], self.config.width).to(audio_BTA.device)
        visual_BTD = self.attend(visual_BTRV, audio_BTA, batch.visual_valid_BT) + position_TD
        audio_BTD = self.audio_map(audio_BTA) + position_TD
        for visual_layer, audio_layer in zip(self.visual_layers, self.audio_layers, strict=True):
            visual_BTD, audio_BTD = (
                visual_layer(visual_BTD, mask_BT, audio_BTD),
                audio_layer(audio_BTD, mask_BT, visual_BTD),
            )
        inner_BTD = torch.relu(self.inner(torch.cat([visual_BTD, audio_BTD], dim=-1)))
        logits_BTK: Tensor = self.classify(self.dropout(inner_BTD))
        return logits_BTK


Head = AudioVisualTransformer


def sinusoid(count: int, width: int) -> Tensor:
    """Positions (T, D) float32: sines of t / 10000^(2i/D) in the first half, cosines in the second (Vaswani 2017)."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(count)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
