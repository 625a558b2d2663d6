"""How a head is trained: every setting of the training loop, and those that a head was published with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from catalog.fields import Count, Positive, Size, Weight, check_fields
from heads.registry import spec
from heads.training.optim import Optimiser, canonical_schedule, schedule

# Beyond, AdamW's step overflows with an error of torch's own, not with a loss that could be reported.
MAX_LEARNING_RATE = 1e6

# Generators are seeded with a signed number of 64 bits.
MAX_SEED = 2**63 - 1

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a head is trained.

    Attributes:
        epochs: at most.
        learning_rate, weight_decay: the optimiser's.
        batch_size: items a step; the last batch of an epoch may be smaller.
        patience: stop after this many epochs without a better validation; 0 never stops early.
        seed: of parameters and of the order of items.
        device: torch's name.
        optimiser: see `heads.training.optim.optimiser`.
        schedule: of the learning rate, see `heads.training.optim.schedule`.
        clip_norm: the gradient's norm is held below; None leaves it.
        precision: what the head computes in while it is trained (parameters, loss and validation are float32 always);
            float16 scales the loss, and needs a GPU.
        keep: whose parameters are kept: the "best" epoch's on validation, or the "last" one's (patience stops nothing).
        ema: decay a step of the average of parameters that is validated and kept; None keeps the parameters themselves.
        warmup_epochs: of the schedule "warmup-cosine".
        crop_share: dense heads see a crop of each video at a step, drawn anew; this is its least share.
        max_segments: dense heads see at most so many segments of a video at a step; None sets no bound.

    The defaults do for thirty training items (two steps an epoch) and for AVE's 3,339 alike: on planted features
    0.913 after 14 epochs there, against 0.903 after 57 with a learning rate of 1e-3 and batches of 64.
    """

    epochs: Size = 100
    learning_rate: Annotated[float, Field(gt=0, le=MAX_LEARNING_RATE)] = 3e-3
    weight_decay: Weight = 1e-2
    batch_size: Size = 16
    patience: Count = 15
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    device: str = "cpu"
    optimiser: Optimiser = "adamw"
    schedule: str = "constant"
    clip_norm: Positive | None = None
    precision: Precision = "float32"
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    keep: Literal["best", "last"] = "best"
    warmup_epochs: Count = 0
    crop_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_segments: Size | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", canonical_schedule(self.schedule))
        schedule(self.schedule)
        check_fields(self)
        if self.precision == "float16" and torch.device(self.device).type == "cpu":
            raise ValueError("precision float16 needs a GPU (--device cuda); on a CPU take bfloat16 or float32")
        if self.warmup_epochs and self.schedule != "warmup-cosine":
            raise ValueError(f"warmup_epochs goes with the schedule warmup-cosine, got {self.schedule}")


def published_settings(head_name: str, **given: Any) -> Settings:
    """The settings that a head was published with (its spec's `training`), but for those given that are not None.

    No head's file names a patience: published runs are as long as they are, and here validation ends them.

    Raises:
        ValueError: a setting that cannot be.
    """
    published = dict(spec(head_name).training)
    return Settings(**(published | {name: value for name, value in given.items() if value is not None}))
