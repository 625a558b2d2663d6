"""UnAV-100 with planted features: an event is only where both are, what surrounds it, and the data set made shorter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from catalog.dataset import Dataset, Item
from catalog.datasets import unav100 as files
from catalog.event import Event
from catalog.synthetic.planted.unav100 import Settings, World, reduced
from catalog.synthetic.planting import grid_of
from catalog.synthetic.storyboard import runs
from catalog.video import Video
from heads.data.targets import segment_labels

Of = Callable[[str], Dataset]
Within = Callable[[int, int, float], bool]


@pytest.fixture(scope="module")
def dataset(made_up: Of) -> Dataset:
    return made_up("unav100")


def one_video(*events: tuple[int, int, int], duration_s: int = 60, classes: int = 12) -> Dataset:
    """Events as (class, start, end) in seconds."""
    names = tuple(f"c{k}" for k in range(classes))
    found = tuple(Event(start_s=Fraction(a), end_s=Fraction(b), label=names[k]) for k, a, b in events)
    return Dataset(
        name="unav100",
        classes=names,
        items=(Item(id="v", video_id="v", split="train", events=found),),
        videos=(Video(id="v", uri="v.mp4", duration_s=Fraction(duration_s)),),
        num_segments=None,
        background=None,
    )


def truth_of(dataset: Dataset, world: World, item: Item) -> NDArray[np.bool_]:
    count = grid_of(world, dataset, item.video_id).count
    (truth_TK,) = segment_labels([item], dataset.classes, world.grid, count)
    return np.asarray(truth_TK)


def test_class_is_heard_and_seen_at_once_in_its_events_and_nowhere_else(dataset: Dataset) -> None:
    _check_truth(dataset)


def test_class_is_heard_and_seen_at_once_in_the_real_events_only(real: Of) -> None:
    dataset = real("unav100")
    _check_truth(replace(dataset, items=dataset.items[::20], videos=dataset.videos[::20]))


def _check_truth(dataset: Dataset) -> None:
    world = World(dataset, Settings(noise_seed=1))
    decoyed = 0
    for item in dataset.items:
        truth_TK = truth_of(dataset, world, item)
        heard_TK, seen_TK = world.scene(item.video_id)
        np.testing.assert_array_equal(heard_TK & seen_TK, truth_TK)
        decoyed += bool((heard_TK & ~truth_TK).any() and (seen_TK & ~truth_TK).any())
    # Where an event fills the video nothing of its class can be beside it.
    assert decoyed > 0.75 * len(dataset.items)


def test_longest_video_has_the_points_asked_for() -> None:
    for points in (96, 192, 60):
        dataset = one_video((0, 1, 2))
        world = World(dataset, Settings(points=points))
        assert grid_of(world, dataset, "v").count == points
        assert world.features("v")[0].shape == (points, 24)
        assert grid_of(world, one_video((0, 1, 2), duration_s=30), "v").count == points // 2


def test_events_are_overshot_on_opposite_sides_by_half_their_length_at_most(within: Within) -> None:
    dataset = one_video((0, 20, 40))
    overshot, early_ears, lengths = 0, 0, []
    for seed in range(300):
        world = World(dataset, Settings(noise_seed=seed, decoys=0.0))
        heard_TK, seen_TK = world.scene("v")
        assert not heard_TK[:, 1:].any()
        assert not seen_TK[:, 1:].any()
        (heard,), (seen,) = runs(heard_TK[:, 0]), runs(seen_TK[:, 0])
        start, stop = max(heard[0], seen[0]), min(heard[1], seen[1])
        assert (start, stop) == (32, 64)
        before, after = start - min(heard[0], seen[0]), max(heard[1], seen[1]) - stop
        assert max(before, after) <= 16
        lengths += [before, after] if before or after else []
        overshot += before > 0 or after > 0
        if before and after:
            # One begins early, the other ends late.
            assert heard != (start - before, stop + after)
            assert seen != (start - before, stop + after)
            early_ears += heard[0] < start
    assert within(overshot, 300, 0.9)
    assert within(early_ears, sum(1 for a, b in zip(lengths[::2], lengths[1::2], strict=True) if a and b), 0.5)
    assert np.mean(lengths) == pytest.approx(8, abs=1)


def test_decoys_are_pairs_apart_in_time_of_the_documented_number_and_length(within: Within) -> None:
    # One event of class 0 in the first second; what is on of other classes is decoys.
    dataset = one_video((0, 0, 1), classes=60)
    pairs, alone, lengths = 0, 0, []
    for seed in range(400):
        world = World(dataset, Settings(noise_seed=seed, decoy_present=0.0, points=960, overshoot=0.0))
        heard_TK, seen_TK = world.scene("v")
        for k in range(1, 60):
            heard, seen = runs(heard_TK[:, k]), runs(seen_TK[:, k])
            assert not (heard_TK[:, k] & seen_TK[:, k]).any()
            if len(heard) == len(seen) == 1:
                pairs += 1
                lengths += [stop - start for start, stop in (*heard, *seen)]
            else:
                alone += len(heard) + len(seen) > 0
    # 59 of 60 classes, and now and then two pairs of one class.
    expected = 400 * 2.5 * 59 / 60
    assert pairs == pytest.approx(expected, rel=0.12)
    assert alone < 0.06 * pairs
    assert min(lengths) >= 3
    assert max(lengths) <= 40
    assert np.median(lengths) == pytest.approx(np.exp(2.2), rel=0.1)


def test_decoys_are_mostly_of_the_videos_own_classes(within: Within) -> None:
    dataset = one_video((0, 0, 1), classes=60)
    own = World(dataset, Settings(decoy_present=1.0))
    assert not any(on_TK[:, 1:].any() for on_TK in own.scene("v"))
    videos = 0
    for seed in range(300):
        heard_TK, seen_TK = World(dataset, Settings(noise_seed=seed, decoys=1.0)).scene("v")
        videos += int((heard_TK | seen_TK)[:, 1:].any())
    # A Poisson number of mean 1 * 0.3 * 59/60 of them is above 0.
    assert within(videos, 300, 1 - np.exp(-0.3 * 59 / 60))


def test_features_without_noise_and_nuisance_are_what_the_scene_says(dataset: Dataset) -> None:
    world = World(dataset, Settings(offset=0.0, walk=0.0, white_noise=0.0))
    logs = []
    for video in dataset.videos[:100]:
        heard_TK, seen_TK = world.scene(video.id)
        visual_TD, audio_TD = world.features(video.id)
        for values_TD, on_TK, prototypes_KD in (
            (visual_TD, seen_TK, world.visual_KD),
            (audio_TD, heard_TK, world.audio_KD),
        ):
            signal_TD = np.stack([sum(prototypes_KD[on_K], np.zeros(24)) for on_K in on_TK])
            gain = (values_TD * signal_TD).sum() / (signal_TD**2).sum()
            np.testing.assert_allclose(values_TD, gain * signal_TD, atol=1e-5)
            logs.append(np.log(gain / 2.6))
    assert abs(np.mean(logs)) < 4 * 0.2 / len(logs) ** 0.5
    assert np.std(logs) == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("scale_to", [None, 200])
def test_nuisance_is_slow_large_and_beside_the_prototypes(scale_to: int | None) -> None:
    dataset = one_video((0, 0, 1))
    samples = []
    for seed in range(200):
        world = World(dataset, Settings(noise_seed=seed, white_noise=0.0, gain=0.0, scale_to=scale_to))
        _, audio_TD = world.features("v")
        np.testing.assert_allclose(audio_TD @ world.audio_KD.T, 0, atol=1e-5)
        samples.append(audio_TD)
    x = np.stack(samples)
    # 16 dimensions of offset and walk, whatever the width: the norm is the same.
    assert (x[:, 0] ** 2).sum(axis=1).mean() == pytest.approx(16 * (1.2**2 + 0.144**2), rel=0.1)
    assert (np.diff(x, axis=1) ** 2).sum(axis=2).mean() == pytest.approx(16 * 0.144**2, rel=0.02)


@pytest.mark.parametrize("scale_to", [None, 200])
def test_white_noise_keeps_its_norm_when_scaled(scale_to: int | None) -> None:
    dataset = one_video((0, 0, 1))
    world = World(dataset, Settings(walk=0.0, offset=0.0, gain=0.0, scale_to=scale_to))
    assert (world.features("v")[0] ** 2).sum(axis=1).mean() == pytest.approx(24 * 0.5**2, rel=0.1)


def test_pairs_of_classes_are_alike_in_other_pairs_for_ear_and_eye() -> None:
    world = World(one_video((0, 0, 1), classes=8), Settings(width=96))
    for prototypes_KD, first in ((world.audio_KD, 0), (world.visual_KD, 1)):
        np.testing.assert_allclose(np.linalg.norm(prototypes_KD, axis=1), 1)
        cosines_KK = prototypes_KD @ prototypes_KD.T
        # (b + 0.35 r) / sqrt(b² + 0.35² + 2 b 0.35 r) with b = 0.65: above 0.8 for any r above -0.6.
        found = {(k, other) for k in range(8) for other in range(k + 1, 8) if cosines_KK[k, other] > 0.8}
        assert found == {(k, k + 1) for k in range(first, 7, 2)}


def test_reduced_by_hand() -> None:
    # 30 s become 96 segments of 5/8 s: a second is 3.2 segments.
    source = one_video((0, 0, 10), (10, 5, 15), (3, 5, 15), (11, 20, 30), duration_s=30)
    short = reduced(source, Settings())
    assert short.classes == ("class 0", "class 1", "class 3")
    assert [(event.label, float(event.start_s), float(event.end_s)) for event in short.items[0].events] == [
        ("class 0", 0.0, 20.0),  # class 10 is class 0 as well, and overlaps it
        ("class 3", 10.0, 30.0),
        ("class 1", 40.0, 60.0),
    ]
    assert short.videos[0].duration_s == 60


def test_reduced_leaves_out_short_events_and_videos_of_many() -> None:
    brief = Event(start_s=Fraction(1), end_s=Fraction("1.4"), label="c1")  # 0.64 segments
    source = one_video((0, 0, 10))
    item = source.items[0]
    kept = reduced(replace(source, items=(replace(item, events=(*item.events, brief)),)), Settings())
    assert [event.label for event in kept.items[0].events] == ["class 0"]
    many = tuple(replace(item.events[0], label=f"c{k}") for k in range(9))
    with pytest.raises(ValueError, match="among 0 videos"):
        reduced(replace(source, items=(replace(item, events=many),)), Settings())
    assert len(reduced(replace(source, items=(replace(item, events=many[:8]),)), Settings()).items[0].events) == 8


def test_reduced_is_written_and_read_as_the_same_data_set(dataset: Dataset, tmp_path: Path) -> None:
    short = reduced(dataset, Settings())
    files.write(short, tmp_path)
    again = files.load(tmp_path)
    assert (again.items, again.classes) == (short.items, short.classes)
    world = World(again, Settings())
    assert {grid_of(world, again, video.id).count for video in again.videos} == {96}
    # Whole segments: each event covers as many as it is long.
    for item in again.items:
        lengths = truth_of(again, world, item).sum(axis=0).sum()
        assert lengths * world.grid.hop_s == sum((event.end_s - event.start_s for event in item.events), Fraction(0))


def test_reduced_real_data_set_has_ten_classes_and_all_videos_of_few_events(real: Of) -> None:
    short = reduced(real("unav100"), Settings())
    assert len(short.classes) == 10
    assert len(short.items) == 10_394
    assert {video.duration_s for video in short.videos} == {Fraction(60)}


def test_reduced_to_no_event_says_what_was_needed(dataset: Dataset) -> None:
    needed = r"an event of at least 2 segments of 60 s each is needed, and there is none among 5 videos \(points 1\)"
    with pytest.raises(ValueError, match=needed + "; take more points, or more videos"):
        reduced(dataset, Settings(points=1), videos={"train": 3, "val": 1, "test": 1})


def test_reduced_to_segments_without_decimals_is_refused(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="points must divide 60 s into decimals, such as 96, 120 or 192; got 70"):
        reduced(dataset, Settings(points=70))


def test_reduced_to_some_videos_keeps_more_of_them_when_more_are_asked_for(dataset: Dataset) -> None:
    def kept(**videos: int) -> dict[str, set[str]]:
        short = reduced(dataset, Settings(), videos=videos)
        assert {video.id for video in short.videos} == {item.video_id for item in short.items}
        return {name: {item.id for item in short.split(name)} for name in ("train", "val", "test")}

    whole, few, more = kept(), kept(train=4, test=2), kept(train=7)
    assert [len(ids) for ids in few.values()] == [4, len(whole["val"]), 2]
    assert few["train"] < more["train"] < whole["train"]
    assert few["val"] == whole["val"]
    # By the ids, not by their place in the file.
    turned = replace(dataset, items=dataset.items[::-1], videos=dataset.videos[::-1])
    assert {item.id for item in reduced(turned, Settings(), videos={"train": 4}).split("train")} == few["train"]
    in_file = [item.id for item in reduced(dataset, Settings()).split("train")]
    assert few["train"] != set(in_file[:4])


@pytest.mark.parametrize("count", [0, 10_000])
def test_reduced_to_videos_that_a_split_does_not_have_is_refused(dataset: Dataset, count: int) -> None:
    with pytest.raises(ValueError, match=rf"videos: val has \d+ to choose from, {count} are wanted"):
        reduced(dataset, Settings(), videos={"val": count})


@pytest.mark.parametrize("scale_to", [None, 64])
def test_texts_are_as_alike_as_what_is_heard_and_seen_of_their_classes(dataset: Dataset, scale_to: int | None) -> None:
    world = World(dataset, Settings(scale_to=scale_to))
    texts_KD = world.texts()
    assert texts_KD.dtype == np.float32
    assert texts_KD.shape == (len(dataset.classes) + 1, scale_to or 24)
    cosines_KK = texts_KD @ texts_KD.T
    alike_KK = (world.audio_KD @ world.audio_KD.T + world.visual_KD @ world.visual_KD.T) / 2
    np.testing.assert_allclose(cosines_KK[:-1, :-1], alike_KK, atol=1e-6)
    np.testing.assert_allclose(cosines_KK[-1, :-1], 0, atol=1e-6)
    # Turned by more than the features are: no text lies in the space of its sound or picture.
    np.testing.assert_array_less(np.abs((texts_KD[:-1] * world.audio_KD).sum(axis=1)), 0.9)
    assert not np.allclose(World(dataset, Settings(seed=1, scale_to=scale_to)).texts(), texts_KD)


def test_reduced_to_other_numbers_of_classes(dataset: Dataset) -> None:
    source = one_video((0, 0, 10), (5, 20, 30), (7, 40, 50))
    assert reduced(source, Settings(), num_classes=5).classes == ("class 0", "class 2")
    with pytest.raises(ValueError, match="needs a class at least, got 0"):
        reduced(dataset, Settings(), num_classes=0)
