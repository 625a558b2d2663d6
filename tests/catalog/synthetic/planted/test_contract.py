"""What every planted benchmark promises; one run over all files of `catalog/synthetic/planted`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from catalog.dataset import Dataset
from catalog.event import Event
from catalog.grid import GridRule
from catalog.synthetic import planting
from catalog.synthetic.planting import World, grid_of, plugin, recipe_of, results, segments_on, settings_from
from heads.data.targets import event_segments

MadeUp = Callable[[str], Dataset]
NAMES = planting.names()


def settings_of(name: str, **changes: Any) -> Any:
    kind: Any = plugin(name).Settings
    return kind(**changes)


def world_of(name: str, dataset: Dataset, **changes: Any) -> World:
    return plugin(name).World(dataset, settings_of(name, **changes))


def bits(world: World, video_id: str) -> bytes:
    return b"".join(values.tobytes() for values in world.features(video_id))


def test_names_are_the_files_there_are() -> None:
    assert NAMES == ("ave", "ovavebench", "unav100")
    with pytest.raises(ValueError, match="no planted benchmark 'cats'; there are ave, ovavebench, unav100"):
        plugin("cats")


@pytest.mark.parametrize("name", NAMES)
def test_features_have_the_shapes_that_the_world_says_and_are_finite(name: str, made_up: MadeUp) -> None:
    dataset = made_up(plugin(name).DATASET)
    world = world_of(name, dataset, seed=1)
    for result in list(results(world, dataset, "r"))[:20]:
        count = grid_of(world, dataset, result.video.id).count
        rows = result.features["r"]
        assert rows.visual is not None
        assert rows.audio is not None
        assert {str(rows.visual.values.dtype), str(rows.audio.values.dtype)} == {"float32"}
        assert rows.visual.values.shape == (count, *world.visual_shape)
        assert rows.audio.values.shape == (count, *world.audio_shape)
        assert np.isfinite(rows.visual.values).all()
        assert np.isfinite(rows.audio.values).all()
        np.testing.assert_array_equal(rows.end_s - rows.start_s, float(world.grid.window_s))


@pytest.mark.parametrize("name", NAMES)
def test_features_are_the_same_bits_in_any_order_and_beside_any_videos(name: str, made_up: MadeUp) -> None:
    whole = made_up(plugin(name).DATASET)
    half = replace(whole, items=whole.items[::2], videos=whole.videos[::2])
    world, again = world_of(name, whole, seed=4), world_of(name, half, seed=4)
    ids = [video.id for video in half.videos][:30]
    expected = {video_id: bits(world, video_id) for video_id in ids}
    assert {video_id: bits(again, video_id) for video_id in reversed(ids)} == expected
    assert [bits(world, video_id) for video_id in ids] == list(expected.values())
    assert len(set(expected.values())) == len(ids)


@pytest.mark.parametrize("name", NAMES)
def test_seed_moves_the_world_and_noise_seed_the_videos_alone(name: str, made_up: MadeUp) -> None:
    dataset = made_up(plugin(name).DATASET)
    video_id = dataset.videos[0].id
    one, other, noisy = (world_of(name, dataset, **seeds) for seeds in ({}, {"seed": 1}, {"noise_seed": 1}))
    assert len({bits(world, video_id) for world in (one, other, noisy)}) == 3
    held = "texts_KD" if name == "ovavebench" else "audio_KD"
    np.testing.assert_array_equal(getattr(one, held), getattr(noisy, held))
    assert np.abs(getattr(one, held) - getattr(other, held)).max() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_split_has_a_stream_of_its_own(name: str, made_up: MadeUp) -> None:
    dataset = made_up(plugin(name).DATASET)
    first = dataset.items[0]
    moved = replace(dataset, items=(replace(first, split="val"), *dataset.items[1:]))
    assert first.split == "train"
    kept = world_of(name, dataset), world_of(name, moved)
    assert bits(kept[0], first.video_id) != bits(kept[1], first.video_id)
    assert bits(kept[0], dataset.items[1].video_id) == bits(kept[1], dataset.items[1].video_id)


@pytest.mark.parametrize("name", NAMES)
def test_recipe_of_every_changed_setting_has_another_fingerprint(name: str, made_up: MadeUp) -> None:
    benchmark = plugin(name)
    dataset = made_up(benchmark.DATASET)

    def fingerprint(dataset: Dataset, **changes: Any) -> str:
        settings = settings_of(name, **changes)
        return recipe_of(name, settings, benchmark.World(dataset, settings), dataset, name="x").fingerprint()

    prints = [fingerprint(dataset)]
    for spec in dataclasses.fields(benchmark.Settings):
        value = 40 if spec.name == "scale_to" else getattr(settings_of(name), spec.name)
        changed = 200 if spec.name == "scale_to" else value * 0.5 if isinstance(value, float) else value + 1
        prints.append(fingerprint(dataset, **{spec.name: changed}))
    prints.append(fingerprint(replace(dataset, classes=dataset.classes[::-1])))
    assert len(set(prints)) == len(prints) == len(dataclasses.fields(benchmark.Settings)) + 2


@pytest.mark.parametrize("name", NAMES)
def test_changed_number_changes_a_feature(name: str, made_up: MadeUp) -> None:
    # What is in the fingerprint decides a value: a setting that does nothing would part equal features.
    benchmark = plugin(name)
    dataset = made_up(benchmark.DATASET)
    ids = [video.id for video in dataset.videos]
    narrow = {"width": 9}
    standard = [bits(world_of(name, dataset, **narrow), video_id) for video_id in ids]
    for spec in dataclasses.fields(benchmark.Settings):
        value = getattr(settings_of(name, **narrow), spec.name)
        if value is not None:
            change = {spec.name: value * 0.5 if isinstance(value, float) else value + 1}
            changed = world_of(name, dataset, **narrow | change)
            some = any(bits(changed, video_id) != was for video_id, was in zip(ids, standard, strict=True))
            assert some, spec.name


@pytest.mark.parametrize("name", NAMES)
def test_scaled_features_keep_the_classes_angles(name: str, made_up: MadeUp) -> None:
    dataset = made_up(plugin(name).DATASET)
    plain, scaled = world_of(name, dataset), world_of(name, dataset, scale_to=300)
    assert scaled.audio_shape == (300,)
    assert scaled.visual_shape[-1] == 300
    for held in ("texts_KD",) if name == "ovavebench" else ("audio_KD", "visual_KD"):
        narrow_KD, wide_KD = getattr(plain, held), getattr(scaled, held)
        assert wide_KD.shape == (len(narrow_KD), 300)
        np.testing.assert_allclose(wide_KD @ wide_KD.T, narrow_KD @ narrow_KD.T, atol=1e-12)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"cats": "1"}, "no setting 'cats'; there are seed, noise_seed, width, scale_to"),
        ({"width": "2"}, "width must be at least 3, got 2"),
        ({"width": "many"}, "width needs a whole number, got 'many'"),
        ({"width": "3.5"}, "width needs a whole number, got '3.5'"),
        ({"seed": "-1"}, "seed and noise_seed must be 0 or more, got -1 and 0"),
        ({"scale_to": "8"}, "scale_to must be at least the width"),
        ({"gain_spread": "nan"}, "gain_spread must be 0 or more, got nan"),
        ({"gain_spread": "wide"}, "gain_spread needs a number, got 'wide'"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_settings_that_cannot_be_are_refused(name: str, texts: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_from(plugin(name), texts)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ave", {"glitch_test": 1.5}, r"glitch_test must lie in \[0, 1\], got 1.5"),
        ("ave", {"places": 0}, "places must be at least 1, got 0"),
        ("ave", {"silent": 0.5}, "add up to 1 at most"),
        ("ovavebench", {"audible": 0.9}, "add up to 1 at most, got 0.15 and 0.9"),
        ("ovavebench", {"other_share": 2.0}, r"other_share must lie in \[0, 1\], got 2.0"),
        ("unav100", {"overshoot": 1.1}, r"overshoot must lie in \[0, 1\], got 1.1"),
        ("unav100", {"decoy_shortest": 50}, "1 <= decoy_shortest <= decoy_longest, got 96, 50 and 40"),
        ("unav100", {"points": 0}, "needs points of at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_of(name, **changes)


@pytest.mark.parametrize("name", NAMES)
def test_dataset_that_lacks_what_is_needed_is_refused(name: str) -> None:
    nothing = Dataset(name="none", classes=(), items=(), videos=(), num_segments=None, background=None)
    with pytest.raises(ValueError, match="none: needs"):
        world_of(name, nothing)


def test_segments_on_are_those_that_heads_train_on() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        hop_s = Fraction(int(rng.integers(1, 9)), 8)
        rule = GridRule(window_s=hop_s * int(rng.integers(1, 4)), hop_s=hop_s)
        grid = rule.grid(Fraction(int(rng.integers(1, 30))))
        start_s = Fraction(int(rng.integers(0, 300)), 10)
        event = Event(start_s=start_s, end_s=start_s + Fraction(int(rng.integers(1, 200)), 10), label="x")
        found = range(grid.count)[segments_on(event, grid)]
        assert list(found) == list(event_segments(event, rule, grid.count))
