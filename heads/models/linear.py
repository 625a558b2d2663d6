"""The linear probe: one linear map a segment, of standardised features and of which of them are there.

The floor that any head must beat, and the quickest test of an encoder. B batch, T segments, D width, K outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from catalog.store.modal import Modal
from heads.blocks.feature_config import FeatureConfig
from heads.blocks.segment_head import SegmentHead
from heads.blocks.standardise import Standardise
from heads.features import FeatureBatch
from heads.spec import HeadSpec

# The reader may average maps over their places while it reads: the head would do the same, in more memory.
SPEC = HeadSpec(
    summary="one linear map a segment; feature maps are averaged over their places",
    pools_places=True,
)


class LinearProbe(SegmentHead):
    """Standardised features and two flags (picture there, sound there) to logits, each segment alone."""

    @dataclass(frozen=True, kw_only=True)
    class Config(FeatureConfig):
        """What fixes the shape of every parameter."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = 0
        if config.uses_visual:
            self.visual_standard = Standardise(config.visual_width)
            width += config.visual_width + 1
        if config.uses_audio:
            self.audio_standard = Standardise(config.audio_width)
            width += config.audio_width + 1
        self.classify = nn.Linear(width, config.num_classes)

    def fit_statistics(self, visual: Modal | None, audio: Modal | None) -> None:
        """Take the standardisation from the training split."""
        if self.config.uses_visual and visual is not None:
            self.visual_standard.fit(visual.values, visual.valid)
        if self.config.uses_audio and audio is not None:
            self.audio_standard.fit(audio.values, audio.valid)

    def forward(self, batch: FeatureBatch) -> Tensor:
        """Logits of each segment by itself."""
        parts = []
        if self.config.uses_visual:
            parts += _inputs("visual", batch, self.config.visual_width, self.visual_standard)
        if self.config.uses_audio:
            parts += _inputs("audio", batch, self.config.audio_width, self.audio_standard)
        logits_BTK: Tensor = self.classify(torch.cat(parts, dim=-1))
        return logits_BTK


Head = LinearProbe


def _inputs(name: str, batch: FeatureBatch, width: int, standard: Standardise) -> list[Tensor]:
    values, valid_BT = batch.modality(name)
    if values is None or values.shape[-1] != width:
        got = "none" if values is None else f"width {values.shape[-1]}"
        raise ValueError(f"the linear head looks at {name} features of width {width}, got {got}")
    if values.ndim > 3:
        values = values.flatten(2, -2).mean(dim=2)
    return [standard(values, valid_BT), valid_BT.unsqueeze(-1).to(values.dtype)]
