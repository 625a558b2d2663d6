"""Settings of training: those a head was published with, and each that cannot be is refused by its name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from heads.training.settings import MAX_SEED, Settings, published_settings


def test_published_settings_are_the_heads_unless_given() -> None:
    psp = published_settings("psp", batch_size=None, epochs=7)
    assert (psp.epochs, psp.batch_size, psp.optimiser, psp.schedule) == (7, 128, "adam", "0.8@60,120")
    assert published_settings("linear") == Settings()
    with pytest.raises(ValueError, match="schedule must be one of"):
        published_settings("linear", schedule="steep")
    with pytest.raises(ValueError, match="clip_norm"):
        published_settings("linear", clip_norm=-1.0)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"optimiser": "sgd9"}, "optimiser must be one of"),
        ({"clip_norm": math.inf}, "clip_norm must be a finite number"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"patience": -1}, "patience must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": MAX_SEED + 1}, "seed must be at most 9223372036854775807"),
        ({"learning_rate": 0.0}, "learning_rate must be more than 0"),
        ({"learning_rate": math.nan}, "learning_rate must be at most 1000000"),
        ({"learning_rate": 1e7}, "learning_rate must be at most 1000000"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"weight_decay": math.inf}, "weight_decay must be a finite number"),
        ({"precision": "float64"}, "precision must be one of"),
        ({"precision": "float16"}, "float16 needs a GPU"),
        ({"keep": "first"}, "keep must be one of best, last"),
        ({"crop_share": 0.0}, "crop_share must be more than 0"),
        ({"crop_share": 1.1}, "crop_share must be at most 1"),
        ({"warmup_epochs": 2}, "goes with the schedule warmup-cosine"),
        ({"max_segments": 0}, "max_segments must be at least 1"),
        ({"ema": 1.0}, "ema must be less than 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Settings(**changes)


def test_settings_at_their_bounds_are_taken() -> None:
    Settings(epochs=1, batch_size=1, patience=0, seed=MAX_SEED, weight_decay=0.0, learning_rate=1e6, crop_share=1.0)
    Settings(schedule="warmup-cosine", warmup_epochs=2, max_segments=1, ema=0.5, precision="bfloat16")
