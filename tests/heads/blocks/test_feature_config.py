"""What configs of heads have in common: shapes of a store to widths and places, and what is refused."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from heads.blocks.feature_config import FeatureConfig, PlacesConfig, check_choices


@dataclass(frozen=True, kw_only=True)
class Own(PlacesConfig):
    way: Literal["short", "long"] = "short"


def config(**changes: Any) -> FeatureConfig:
    fields: dict[str, Any] = {"visual_width": 3, "audio_width": 2, "num_classes": 4, "modality": "both"}
    return FeatureConfig(**(fields | changes))


def test_for_features_takes_widths_places_and_the_class_it_is_asked_of() -> None:
    got = Own.for_features(visual_shape=(7, 5, 12), audio_shape=(8,), num_classes=3, modality="both")
    assert got == Own(visual_width=12, audio_width=8, num_classes=3, modality="both", places=35, way="short")
    assert list(dataclasses.asdict(got)) == ["visual_width", "audio_width", "num_classes", "modality", "places", "way"]
    vectors = Own.for_features(visual_shape=(12,), audio_shape=None, num_classes=3, modality="visual")
    assert (vectors.places, vectors.audio_width) == (1, 0)
    silent = Own.for_features(visual_shape=None, audio_shape=(8,), num_classes=3, modality="audio")
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
    got.need_either("the head")


def test_check_choices_raises_and_names_the_field() -> None:
    fields: dict[str, Any] = {"visual_width": 3, "audio_width": 2, "num_classes": 4}
    check_choices(Own(**fields, modality="both"))
    with pytest.raises(ValueError, match="modality must be one of both, audio, visual, got 'smell'"):
        check_choices(Own(**fields, modality="smell"))  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="way must be one of short, long, got 'round'"):
        check_choices(Own(**fields, modality="both", way="round"))  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"modality": "smell"}, "modality must be both, audio or visual, got 'smell'"),
        ({"num_classes": 0}, "the head needs a class and widths of at least 0"),
        ({"audio_width": -1}, "the head needs a class and widths of at least 0"),
        ({"visual_width": 2**25}, "the head takes widths and classes up to 16777216"),
        ({"num_classes": 2**25}, "the head takes widths and classes up to 16777216"),
        ({"audio_width": 0, "modality": "audio"}, "the head has nothing to look at: modality audio"),
        ({"audio_width": 0, "visual_width": 0}, "the head has nothing to look at: modality both"),
    ],
)
def test_need_either_raises(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        config(**changes).need_either("the head")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"modality": "smell"}, "modality must be both, audio or visual, got 'smell'"),
        (
            {"modality": "audio"},
            "PSP relates sound to picture and needs both, got modality audio; .* linear, or .* events .* loco",
        ),
        ({"visual_width": 0}, "PSP needs visual features of a width from 1"),
        ({"audio_width": 2**25}, "PSP needs audio features of a width from 1 to 16777216"),
    ],
)
def test_need_both_raises(changes: dict[str, Any], told: str) -> None:
    config().need_both("PSP")
    with pytest.raises(ValueError, match=told):
        config(**changes).need_both("PSP")
