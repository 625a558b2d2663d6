"""What the configs of dense heads over a pyramid have in common, and how such heads are trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from heads.blocks.feature_config import MAX_WIDTH, FeatureConfig, check_choices
from heads.dense.points import LEVELS

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
_MOST_BLOCKS = 256
# The coarsest has a point every 2^11 segments then, as many as windows of long items overlap by (`heads.dense.detect`).
_MOST_LEVELS = 12


@dataclass(frozen=True, kw_only=True)
class DenseConfig(FeatureConfig):
    """Of a head that finds events at the points of a pyramid.

    Attributes:
        width: C.
        levels: of the pyramid, each half as long as the one before.
        drop_path: share of items whose residual branch is left out in training.
        regression: are there a start and an end for each class at a point, or for all classes together?
        iou_loss: of starts and ends; in one dimension with a shared point GIoU is IoU.
        center_radius: in strides: points farther from an event's middle do not learn it; None takes all inside.
    """

    width: int = 512
    levels: int = LEVELS
    drop_path: float = 0.1
    regression: Literal["class_aware", "class_agnostic"] = "class_aware"
    iou_loss: Literal["diou", "giou"] = "diou"
    center_radius: float | None = None

    def check_dense(self, head: str, *sizes: int, blocks: tuple[int, ...] = ()) -> None:
        """Sees that what all dense heads have is in range, and the head's own `sizes` and numbers of `blocks` too.

        Raises:
            ValueError: one is not.
        """
        check_choices(self)
        sizes = (self.num_classes, self.width, *sizes)
        if min(sizes) < 1 or max(sizes) > MAX_WIDTH or not 1 <= self.levels <= _MOST_LEVELS:
            raise ValueError(f"{head} takes sizes from 1 to {MAX_WIDTH} and up to {_MOST_LEVELS} levels, got {self}")
        if any(not 0 <= count <= _MOST_BLOCKS for count in blocks):
            raise ValueError(f"{head} takes 0 to {_MOST_BLOCKS} blocks, got {self}")
        radius = self.center_radius
        if not 0 <= self.drop_path < 1 or (radius is not None and not (math.isfinite(radius) and radius > 0)):
            raise ValueError(
                f"{head} needs drop_path in [0, 1) and a center_radius above 0 or none, got {self.drop_path} "
                f"and {radius}"
            )

    def check_attention(self, head: str, *, num_heads: int, dropout: float = 0.0, **windows: int | None) -> None:
        """Sees that attention heads divide the width, and that dropout and windows are in range.

        Args:
            windows: by the name of the field.

        Raises:
            ValueError: it does not.
        """
        if not 1 <= num_heads <= self.width or self.width % num_heads:
            raise ValueError(f"{head} needs a width that num_heads divides, got {self.width} and {num_heads}")
        for name, window in windows.items():
            if window is not None and not 1 <= window <= MAX_WIDTH:
                raise ValueError(f"{head} needs a {name} of 1 to {MAX_WIDTH} points, or none for all, got {window}")
        if not 0 <= dropout < 1:
            raise ValueError(f"{head} needs a dropout in [0, 1), got {dropout}")


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(DenseConfig):
    """Of the published baselines.

    Attributes:
        stack: convolutions of the input.
        hidden: channels inside the decoder.
    """

    stack: int = 2
    hidden: int = 512

    @property
    def joined_width(self) -> int:
        """Of the features of all modalities that are looked at, side by side."""
        return self.visual_width * self.uses_visual + self.audio_width * self.uses_audio
