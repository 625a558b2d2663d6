"""How a head is trained, from options: as published, changed, and switched off."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from catalog.errors import BadArguments
from jobs.cli.head_options import add_how
from jobs.cli.head_settings import settings_of


def settings(head: str, *words: str) -> Any:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_how(parser)
    return settings_of(parser.parse_args(words), head, seed=0)


def test_options_unsaid_are_the_published_ones() -> None:
    found = settings("loco")
    assert (found.ema, found.clip_norm, found.max_segments, found.warmup_epochs) == (0.999, 1.0, 256, 5)


def test_options_none_switch_off_what_was_published() -> None:
    found = settings("loco", "--ema", "none", "--clip-norm", "None", "--max-segments", "none")
    assert (found.ema, found.clip_norm, found.max_segments) == (None, None, None)
    assert settings("linear", "--ema", "none") == settings("linear")
    found = settings("loco", "--ema", "0.5", "--clip-norm", "2", "--max-segments", "64")
    assert (found.ema, found.clip_norm, found.max_segments) == (0.5, 2.0, 64)


def test_options_another_schedule_leaves_the_published_warm_up_out() -> None:
    assert settings("loco", "--schedule", "one-cycle").warmup_epochs == 0
    assert settings("loco", "--schedule", "warmup-cosine").warmup_epochs == 5
    assert settings("loco", "--warmup-epochs", "2").warmup_epochs == 2
    with pytest.raises(BadArguments, match="goes with the schedule warmup-cosine"):
        settings("loco", "--schedule", "one-cycle", "--warmup-epochs", "2")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--ema", "never"), "needs a number or none, got 'never'"),
        (("--max-segments", "1.5"), "needs a whole number or none, got '1.5'"),
    ],
)
def test_options_that_are_no_numbers_are_refused(words: tuple[str, ...], told: str) -> None:
    with pytest.raises(argparse.ArgumentError, match=told):
        settings("loco", *words)
    with pytest.raises(BadArguments, match="ema must be less than 1"):
        settings("loco", "--ema", "1.5")
