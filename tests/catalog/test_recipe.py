"""Recipes: JSON there and back, one fingerprint a setting, changes from the command line, refusals."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, Scalar, VideoSampling

PROJECT = Path(__file__).resolve().parents[2]


def recipe(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "name": "descriptors-1s",
        "encoder": "descriptors",
        "grid": GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
        "video": VideoSampling(frames_per_segment=4, height_px=64, width_px=64),
        "audio": AudioSampling(rate_hz=16000),
        "settings": {"bins": 8, "colour": "lab", "norm": True, "gain": 0.5, "none": None},
    }
    return Recipe(**(fields | changes))


seconds = st.fractions(min_value=Fraction(1, 100), max_value=30, max_denominator=1000)
grid_rules = st.builds(
    GridRule, window_s=seconds, hop_s=seconds, tail=st.sampled_from(["pad", "drop"]), tail_tolerance_s=seconds
)
videos = st.builds(
    VideoSampling,
    frames_per_segment=st.integers(1, 48),
    height_px=st.integers(1, 512),
    width_px=st.integers(1, 512),
    phase=st.fractions(min_value=0, max_value=1, max_denominator=100),
    fit=st.just("crop"),
    short_side_px=st.none() | st.integers(512, 600),
    interpolation=st.sampled_from(
        ["nearest", "area", "bilinear", "bicubic", "lanczos", "bilinear_tensor", "bicubic_tensor"]
    ),
)
audios = st.builds(
    AudioSampling,
    rate_hz=st.integers(1000, 48000),
    resampler=st.sampled_from(["soxr_vhq", "soxr_hq", "soxr_mq", "kaiser_best", "sinc_hann"]),
    channels=st.sampled_from(["mean", "first"]),
    context_s=seconds,
    min_coverage=st.fractions(min_value=Fraction(1, 1000), max_value=1, max_denominator=1000),
)
scalars: st.SearchStrategy[Scalar] = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
recipes = st.builds(
    Recipe,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    encoder=st.text(min_size=1),
    grid=grid_rules,
    video=videos,
    audio=st.none() | audios,
    revision=st.integers(1, 9),
    precision=st.sampled_from(["float32", "bfloat16", "float16"]),
    storage=st.sampled_from(["float32", "float16"]),
    weights_sha256=st.none() | st.text(alphabet="0123456789abcdef", min_size=64, max_size=64),
    settings=st.dictionaries(st.text(), scalars, max_size=4),
)


@given(recipes)
def test_recipe_through_json_and_pickle_is_the_same(one: Recipe) -> None:
    for other in (Recipe.from_json(one.to_json()), pickle.loads(pickle.dumps(one))):  # noqa: S301  # our own bytes
        assert other == one
        assert hash(other) == hash(one)
        assert other.to_json() == one.to_json()
        assert other.fingerprint() == one.fingerprint()
        assert other.differences(one) == []


@given(recipes, recipes)
def test_recipes_are_equal_differ_and_are_identified_alike(one: Recipe, other: Recipe) -> None:
    other = dataclasses.replace(other, name=one.name)
    same = one.fingerprint() == other.fingerprint()
    assert (one == other) == same
    assert (one.differences(other) == []) == same


@given(scalars, scalars)
def test_settings_that_differ_only_in_type_are_other_recipes(a: Scalar, b: Scalar) -> None:
    one, other = recipe(settings={"k": a}), recipe(settings={"k": b})
    same = json.dumps(a) == json.dumps(b)
    assert (one == other) == same
    assert (one.fingerprint() == other.fingerprint()) == same
    assert len(one.differences(other)) == (not same)


def test_settings_true_one_and_absent_none_are_told_apart() -> None:
    assert recipe(settings={"k": 1}) != recipe(settings={"k": True})
    assert recipe(settings={"k": 1}).differences(recipe(settings={"k": True})) == [("settings.k", 1, True)]
    assert recipe(settings={"k": None}).differences(recipe(settings={})) == [("settings.k", None, "(absent)")]


def test_name_is_not_part_of_the_fingerprint_but_all_else_is() -> None:
    base = recipe()
    assert recipe(name="mine").fingerprint() == base.fingerprint()
    assert recipe(name="mine") != base
    changed = [
        recipe(encoder="other"),
        recipe(grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1, 2))),
        recipe(video=None),
        recipe(audio=None),
        recipe(revision=2),
        recipe(precision="bfloat16"),
        recipe(storage="float16"),
        recipe(weights_sha256="ab"),
        recipe(settings={}),
    ]
    assert len({base.fingerprint(), *(one.fingerprint() for one in changed)}) == 1 + len(changed)
    # A field added to Recipe must be in this list.
    assert {field.name for field in dataclasses.fields(Recipe)} == {
        *("name", "encoder", "grid", "video", "audio", "revision", "precision", "storage", "weights_sha256", "settings")
    }


def test_fingerprint_is_equal_across_processes_with_other_hash_seeds() -> None:
    program = "import sys; from catalog.recipe import Recipe; print(Recipe.from_json(sys.argv[1]).fingerprint())"
    for seed in ("0", "77"):
        found = subprocess.run(
            [sys.executable, "-c", program, recipe().to_json()],
            cwd=PROJECT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == recipe().fingerprint()


def test_settings_cannot_be_changed_from_outside() -> None:
    mine: dict[str, Scalar] = {"bins": 8}
    one = recipe(settings=mine)
    before = one.fingerprint()
    mine["bins"] = 9
    assert one.fingerprint() == before
    with pytest.raises(TypeError):
        one.settings["bins"] = 9  # type: ignore[index] # the point of the test


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("grid.hop_s", "1/2", Fraction(1, 2)),
        ("grid.hop_s", "0.96", Fraction(24, 25)),
        ("grid.hop_s", "0.30000000000000000001", Fraction("0.30000000000000000001")),
        ("video.frames_per_segment", "16", 16),
        ("video.short_side_px", "72", 72),
        ("video.short_side_px", "none", None),
        ("audio.resampler", "soxr_vhq", "soxr_vhq"),
        ("precision", "bfloat16", "bfloat16"),
        ("name", "123", "123"),
        ("encoder", "null", "null"),
        ("weights_sha256", "1234", "1234"),
        ("audio", "none", None),
        ("settings.bins", "16", 16),
        ("settings.bins", "word", "word"),
        ("settings.new", "[1]", "[1]"),
        ("settings.new", "false", False),
    ],
)
def test_changed_sets_one_field_and_leaves_the_rest(path: str, text: str, value: object) -> None:
    base = recipe()
    changed = base.changed({path: text})
    found: Any = changed
    for name in path.split("."):
        found = found[name] if hasattr(found, "keys") else getattr(found, name)
    assert found == value
    assert type(found) is type(value)
    expected = [] if path == "name" or (path, text) == ("video.short_side_px", "none") else [path]
    assert [field for field, _, _ in base.differences(changed)] == expected
    assert base == recipe()


@pytest.mark.parametrize(
    ("path", "text", "match"),
    [
        ("grid.hop", "1", r"no setting 'grid\.hop'.*grid\.hop_s"),
        ("hop_s", "1", "no setting 'hop_s'"),
        ("grid.hop_s.x", "1", "no setting"),
        ("", "1", "no setting ''"),
        ("settings.a.b", "1", "no setting"),
        ("grid.hop_s", "fast", r"recipe\.grid\.hop_s: seconds must be"),
        ("grid.hop_s", "0", "above 0"),
        ("grid.hop_s", "1e999999999", "seconds must be"),
        ("video.frames_per_segment", "1.5", r"recipe\.video\.frames_per_segment: needs a whole number, got '1\.5'"),
        ("video.frames_per_segment", "true", "whole number"),
        ("video.fit", "squash", "must be one of stretch, crop, three_crops, whole, got 'squash'"),
        ("video.phase", "2", r"video\.phase must lie in \[0, 1\]"),
        ("video", "64", "needs an object"),
        ("name", "../x", "name needs letters"),
        ("settings.k", "NaN", "finite"),
    ],
)
def test_changed_to_something_impossible_is_refused_naming_the_field(path: str, text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        recipe().changed({path: text})


def test_differences_names_each_field_with_both_values() -> None:
    one = recipe()
    other = recipe(
        name="mine",
        grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1, 2)),
        audio=None,
        settings={"bins": 8, "colour": "rgb", "norm": True, "gain": 0.5, "extra": 1},
    )
    found = {field: (here, there) for field, here, there in one.differences(other)}
    assert found.keys() == {"audio", "grid.hop_s", "settings.colour", "settings.none", "settings.extra"}
    assert found["grid.hop_s"] == ("1", "1/2")
    assert found["settings.colour"] == ("lab", "rgb")
    assert found["settings.extra"] == ("(absent)", 1)
    assert found["audio"][1] is None


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"name": ""}, "name needs"),
        ({"name": "a/b"}, "name needs"),
        ({"name": "a\n"}, "name needs"),
        ({"video": None, "audio": None}, "needs video, audio or both"),
        ({"settings": {"k": float("nan")}}, "finite"),
        ({"settings": {"k": [1]}}, "settings must be"),
        ({"settings": {1: 2}}, "settings must be"),
    ],
)
def test_recipe_that_cannot_be_is_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        recipe(**change)


@pytest.mark.parametrize(
    ("kind", "fields", "match"),
    [
        (VideoSampling, {"frames_per_segment": 0, "height_px": 1, "width_px": 1}, "at least 1"),
        (VideoSampling, {"frames_per_segment": 1, "height_px": 8, "width_px": 8, "phase": 0.5}, "phase must be exact"),
        (VideoSampling, {"frames_per_segment": 1, "height_px": 8, "width_px": 8, "short_side_px": 7}, "short_side_px"),
        (
            VideoSampling,
            {"frames_per_segment": 1, "height_px": 8, "width_px": 8, "fit": "stretch", "short_side_px": 8},
            "short_side_px",
        ),
        (
            VideoSampling,
            {"frames_per_segment": 10, "height_px": 8, "width_px": 8, "fit": "three_crops"},
            r"height_px of 3 \* width_px",
        ),
        (
            VideoSampling,
            {"frames_per_segment": 10, "height_px": 8, "width_px": 8, "clip_s": 0.5},
            "clip_s must be exact",
        ),
        *(
            (
                VideoSampling,
                {"frames_per_segment": num, "height_px": 8, "width_px": 8, "clip_s": Fraction(at)},
                "clip_s",
            )
            for num, at in ((10, 0), (10, -1), (5, 2), (2, 2))
        ),
        (
            VideoSampling,
            {"frames_per_segment": 4, "height_px": 8, "width_px": 8, "clip_s": Fraction(2), "phase": Fraction(0)},
            "phase has no meaning beside",
        ),
        (
            VideoSampling,
            {"frames_per_segment": 4, "height_px": 8, "width_px": 8, "frames_after": -1},
            "frames_after must be 0 or more",
        ),
        (
            VideoSampling,
            {"frames_per_segment": 4, "height_px": 8, "width_px": 8, "frames_after": 1, "clip_s": Fraction(1)},
            "and 0 beside video.clip_s",
        ),
        (
            VideoSampling,
            {"frames_per_segment": 4, "height_px": 8, "width_px": 8, "fit": "whole", "short_side_px": 7},
            "covers the crop",
        ),
        (AudioSampling, {"rate_hz": 999}, "at least 1000"),
        (AudioSampling, {"rate_hz": 8000, "context_s": Fraction(-1)}, "context_s"),
        (AudioSampling, {"rate_hz": 8000, "min_coverage": Fraction(0)}, "min_coverage"),
        (AudioSampling, {"rate_hz": 8000, "min_coverage": 0.5}, "min_coverage must be exact"),
    ],
)
def test_sampling_that_cannot_be_is_refused(kind: Any, fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        kind(**fields)


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda value: value.pop("encoder"), "field 'encoder' is missing"),
        (lambda value: value.update(colour=1), "unknown field 'colour'; known are name"),
        (lambda value: value["grid"].update(hop_s=True), r"recipe\.grid\.hop_s: needs a number"),
        (lambda value: value["grid"].update(hop_s="1/0"), r"recipe\.grid\.hop_s: seconds"),
        (lambda value: value["video"].update(height_px="64"), r"recipe\.video\.height_px: needs a whole number"),
        (lambda value: value["video"].update(fit=["crop"]), r"recipe\.video\.fit: must be one of"),
        (lambda value: value.update(name=None), r"recipe\.name: needs text"),
        (lambda value: value.update(settings={"k": {}}), r"recipe\.settings: needs an object of numbers"),
        (lambda value: value.update(audio=[]), r"recipe\.audio: needs an object"),
    ],
)
def test_from_json_of_a_strangers_recipe_is_strict(edit: Any, match: str) -> None:
    value = json.loads(recipe().to_json())
    edit(value)
    with pytest.raises(ValueError, match=match):
        Recipe.from_json(json.dumps(value))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "1" * 5000], ids=lambda text: text[:4])
def test_from_json_of_no_recipe_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="recipe"):
        Recipe.from_json(text)


def test_from_json_without_optional_fields_takes_the_defaults() -> None:
    value = json.loads(recipe(settings={}).to_json())
    for name in ("revision", "precision", "storage", "weights_sha256", "settings"):
        del value[name]
    assert Recipe.from_json(json.dumps(value)) == recipe(settings={})


def test_fingerprint_of_a_recipe_from_before_clips_is_kept() -> None:
    old = recipe(video=VideoSampling(frames_per_segment=4, height_px=8, width_px=8))
    assert "clip_s" not in old.to_json()
    clips = old.changed({"video.clip_s": "2"})
    assert clips.fingerprint() != old.fingerprint()
    assert Recipe.from_json(clips.to_json()) == clips
    assert old.differences(clips) == [("video.clip_s", None, "2")]
    assert clips.changed({"video.clip_s": "none"}) == old


def test_fingerprint_of_a_recipe_from_before_frames_after_is_kept() -> None:
    old = recipe(video=VideoSampling(frames_per_segment=4, height_px=8, width_px=8))
    assert "frames_after" not in old.to_json()
    more = old.changed({"video.frames_after": "1"})
    assert more.video is not None
    assert (more.video.slots, more.video.frames_per_segment) == (5, 4)
    assert more.fingerprint() != old.fingerprint()
    assert Recipe.from_json(more.to_json()) == more


def test_bytes_of_a_segment_count_every_slot_and_whole_frames_as_two_to_one() -> None:
    video = VideoSampling(frames_per_segment=24, frames_after=1, height_px=224, width_px=224)
    assert video.segment_bytes == 25 * 224 * 224 * 3
    whole = dataclasses.replace(video, fit="whole", short_side_px=256)
    assert whole.segment_bytes == 25 * 512 * 256 * 3


def test_fingerprint_of_a_recipe_from_before_channels_is_kept() -> None:
    recipe = Recipe(
        name="old",
        encoder="descriptors",
        grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
        video=None,
        audio=AudioSampling(rate_hz=16000),
    )
    assert "channels" not in recipe.to_json()
    assert Recipe.from_json(recipe.to_json()) == recipe
    first = recipe.changed({"audio.channels": "first"})
    assert first.fingerprint() != recipe.fingerprint()
    assert Recipe.from_json(first.to_json()) == first
    assert recipe.differences(first) == [("audio.channels", "mean", "first")]
