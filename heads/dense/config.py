"""What the configs of dense heads over a pyramid have in common, and how such heads are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from catalog.fields import Dropout, Positive, Size
from heads.blocks.feature_config import FeatureConfig
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
# At one rate, of a stream; more than 256 fit no machine.
Blocks = Annotated[int, Field(ge=0, le=256)]
# The 12th has a point every 2^11 segments, as many as windows of long items overlap by (`heads.dense.detect`).
Levels = Annotated[int, Field(ge=1, le=12)]


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

    width: Size = 512
    levels: Levels = LEVELS
    drop_path: Dropout = 0.1
    regression: Literal["class_aware", "class_agnostic"] = "class_aware"
    iou_loss: Literal["diou", "giou"] = "diou"
    center_radius: Positive | None = None


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(DenseConfig):
    """Of the published baselines.

    Attributes:
        stack: convolutions of the input.
        hidden: channels inside the decoder.
    """

    stack: Size = 2
    hidden: Size = 512

    @property
    def joined_width(self) -> int:
        """Of the features of all modalities that are looked at, side by side."""
        return self.visual_width * self.uses_visual + self.audio_width * self.uses_audio
