"""What dense heads over a pyramid have in common: sizes, and inputs of a length that halves without a rest.

B items, T segments, C width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from heads.blocks.feature_config import MAX_WIDTH, FeatureConfig, check_choices
from heads.blocks.segment_vectors import segment_vectors
from heads.points import LEVELS, divisor

# UnAV's, which the other baselines take on (their own are for data sets of another kind).
TRAINING: Mapping[str, int | float | str] = {
    "epochs": 45,
    "batch_size": 16,
    "learning_rate": 1e-4,
    "weight_decay": 1e-4,
    "optimiser": "adamw-weights",
    "schedule": "warmup-cosine",
    "warmup_epochs": 5,
    "clip_norm": 1.0,
    "ema": 0.999,
    "crop_share": 0.9,
}
# At one rate, of a stream: more than any machine holds.
MOST_BLOCKS = 256
# Far longer than any video: 2^15 segments of a third of a second are three hours.
MOST_LEVELS = 16


@dataclass(frozen=True, kw_only=True)
class PyramidConfig(FeatureConfig):
    """Sizes of a dense head over a pyramid.

    Attributes:
        width: C.
        stack: convolutions of the input.
        levels: of the pyramid, each half as long as the one before.
        hidden: channels inside the decoder.
        drop_path: share of items whose residual branch is left out in training.
        regression: are there a start and an end for each class at a point, or for all classes together?
        iou_loss: of starts and ends.
        center_radius: in strides: points farther from an event's middle do not learn it; None takes all inside.
    """

    width: int = 512
    stack: int = 2
    levels: int = LEVELS
    hidden: int = 512
    drop_path: float = 0.1
    regression: Literal["class_aware", "class_agnostic"] = "class_aware"
    iou_loss: Literal["diou", "giou"] = "diou"
    center_radius: float | None = None

    @property
    def joined_width(self) -> int:
        """Of the features of all modalities that are looked at, side by side."""
        return self.visual_width * self.uses_visual + self.audio_width * self.uses_audio

    def check_pyramid(self, head: str, *more: int) -> None:
        """Sees that sizes are in range, `more` too.

        Raises:
            ValueError: one is not.
        """
        check_choices(self)
        sizes = (self.num_classes, self.width, self.stack, self.hidden, *more)
        if min(sizes) < 1 or max(sizes) > MAX_WIDTH or not 1 <= self.levels <= MOST_LEVELS:
            raise ValueError(f"{head} takes sizes from 1 to {MAX_WIDTH} and up to {MOST_LEVELS} levels, got {self}")
        radius = self.center_radius
        if not 0 <= self.drop_path < 1 or (radius is not None and not (math.isfinite(radius) and radius > 0)):
            raise ValueError(
                f"{head} needs drop_path in [0, 1) and a center_radius above 0 or none, got {self.drop_path} "
                f"and {radius}"
            )


def halvable(x_BT: Tensor, levels: int) -> Tensor:
    """(B, T, ...) with zeros behind, so that T is a multiple of 2^(levels - 1)."""
    missing = -x_BT.shape[1] % divisor(levels)
    return F.pad(x_BT, (0, 0) * (x_BT.ndim - 2) + (0, missing)) if missing else x_BT


def modality(
    name: str, values: Tensor | None, mask_BT: Tensor, valid_BT: Tensor | None, width: int, levels: int
) -> Tensor:
    """One modality's features (B, T, D) float32, zero where not valid, of a length that halves.

    Raises:
        ValueError: they are missing, or of another width or number of segments.
    """
    return halvable(segment_vectors(name, values, mask_BT if valid_BT is None else valid_BT & mask_BT, width), levels)


def joined_features(
    config: PyramidConfig,
    visual: Tensor | None,
    audio: Tensor | None,
    mask_BT: Tensor,
    visual_valid_BT: Tensor | None,
    audio_valid_BT: Tensor | None,
) -> Tensor:
    """All features that are looked at side by side, (B, T, joined_width), as `modality` gives them.

    Raises:
        ValueError: one is missing, or of another width or number of segments.
    """
    parts: list[Tensor] = []
    if config.uses_visual:
        parts.append(modality("visual", visual, mask_BT, visual_valid_BT, config.visual_width, config.levels))
    if config.uses_audio:
        parts.append(modality("audio", audio, mask_BT, audio_valid_BT, config.audio_width, config.levels))
    return torch.cat(parts, dim=-1)


def level_masks(mask_BT: Tensor, levels: int) -> list[Tensor]:
    """The mask of each level: a point is real where the segment is that it stands on."""
    return [mask_BT[:, :: 2**level] for level in range(levels)]
