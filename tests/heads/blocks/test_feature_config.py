"""What configs of heads have in common: shapes of a store to widths and places, and what is refused."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from heads.blocks.feature_config import FeatureConfig, PlacesConfig
from heads.spec import HeadInput


@dataclass(frozen=True, kw_only=True)
class Own(PlacesConfig):
    way: Literal["short", "long"] = "short"


def config(**changes: Any) -> FeatureConfig:
    fields: dict[str, Any] = {"visual_width": 3, "audio_width": 2, "num_classes": 4, "modality": "both"}
    return FeatureConfig(**(fields | changes))


def test_for_features_takes_widths_places_and_the_class_it_is_asked_of() -> None:
    got = Own.for_features(HeadInput(visual_shape=(7, 5, 12), audio_shape=(8,), num_classes=3, modality="both"))
    assert got == Own(visual_width=12, audio_width=8, num_classes=3, modality="both", places=35, way="short")
    assert list(dataclasses.asdict(got)) == ["visual_width", "audio_width", "num_classes", "modality", "places", "way"]
    vectors = Own.for_features(HeadInput(visual_shape=(12,), audio_shape=None, num_classes=3, modality="visual"))
    assert (vectors.places, vectors.audio_width) == (1, 0)
    silent = Own.for_features(HeadInput(visual_shape=None, audio_shape=(8,), num_classes=3, modality="audio"))
    assert (silent.places, silent.visual_width) == (1, 0)


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({}, (True, True)),
        ({"modality": "audio"}, (False, True)),
        ({"modality": "visual"}, (True, False)),
        ({"visual_width": 0}, (False, True)),
        ({"audio_width": 0}, (True, False)),
    ],
)
def test_uses_what_is_there_and_asked_for(changes: dict[str, Any], used: tuple[bool, bool]) -> None:
    got = config(**changes)
    assert (got.uses_visual, got.uses_audio) == used


def test_choices_of_a_heads_own_are_checked() -> None:
    fields: dict[str, Any] = {"visual_width": 3, "audio_width": 2, "num_classes": 4, "modality": "both"}
    with pytest.raises(ValueError, match="way must be one of short, long, got 'round'"):
        Own(**fields, way="round")  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": "smell"}, "modality must be one of both, audio, visual, got 'smell'"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"audio_width": -1}, "audio_width must be at least 0, got -1"),
        ({"visual_width": 2**25}, "visual_width must be at most 16777216"),
        ({"num_classes": 2**25}, "num_classes must be at most 16777216"),
        ({"audio_width": 0, "modality": "audio"}, "there is nothing to look at: modality audio"),
        ({"audio_width": 0, "visual_width": 0}, "there is nothing to look at: modality both"),
    ],
)
def test_config_that_cannot_be_raises(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": "audio"}, "relates audio to frames and needs both, got modality audio .* linear, .* loco"),
        ({"visual_width": 0}, r"needs both, got modality both and widths 0 \(visual\) and 2 \(audio\)"),
    ],
)
def test_need_both_raises(changes: dict[str, Any], message: str) -> None:
    config().need_both()
    with pytest.raises(ValueError, match=message):
        config(**changes).need_both()


def test_need_heads_raises_where_they_do_not_divide_the_width() -> None:
    config().need_heads(4, 12)
    with pytest.raises(ValueError, match="width must be a multiple of num_heads, got 10 and 4"):
        config().need_heads(4, 10)
