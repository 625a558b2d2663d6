"""The plan of made-up videos against slow loops over its spans: what is annotated is what is seen and heard."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from pathlib import Path

import pytest

from catalog import dataset as registry
from catalog.datasets import synthetic
from catalog.datasets.synthetic import Settings, plan
from catalog.synthetic.scene import FPS, RATE_HZ, Scene, Span

LAYOUTS = ("ave", "ovavebench", "unav100")
TICK_S = Fraction(1, 5)


def covers(spans: tuple[Span, ...], at_s: Fraction) -> bool:
    return any(start_s <= at_s < end_s for start_s, end_s in spans)


def seen(scene: Scene, at_s: Fraction) -> set[int]:
    return {actor.kind for actor in scene.actors if actor.kind >= 0 and covers(actor.spans, at_s)}


def heard(scene: Scene, at_s: Fraction) -> set[int]:
    return {voice.kind for voice in scene.voices if covers(voice.spans, at_s)}


def instants(scene: Scene) -> list[Fraction]:
    """The middle of each 0.2 s."""
    return [(n + Fraction(1, 2)) * TICK_S for n in range(int(scene.duration_s / TICK_S))]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_classes_on_are_those_both_seen_and_heard(layout: str, seed: int) -> None:
    scenario = plan(Settings(layout=layout, videos=40, seed=seed), "/x")
    of_pair = {(o, s): synthetic.label((o, s)) for o, s in synthetic.pairs(layout)}
    for item, scene in zip(scenario.dataset.items, scenario.scenes, strict=True):
        for at_s in instants(scene):
            truth = {event.label for event in item.events if event.start_s <= at_s < event.end_s}
            both = itertools.product(seen(scene, at_s), heard(scene, at_s))
            assert {of_pair[pair] for pair in both if pair in of_pair} == truth, (item.id, at_s)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_neither_object_nor_sound_names_a_class(layout: str) -> None:
    pairs = synthetic.pairs(layout)
    for part in (0, 1):
        kinds = [pair[part] for pair in pairs]
        assert all(kinds.count(kind) >= 2 for kind in kinds)
    labels = [synthetic.label(pair) for pair in pairs]
    assert len(set(labels)) == len(labels)
    assert not any(mark in label for label in labels for mark in '&,\n"')


@pytest.mark.parametrize("layout", LAYOUTS)
def test_background_holds_what_is_only_seen_only_heard_and_nothing(layout: str) -> None:
    scenario = plan(Settings(layout=layout, videos=40, seed=0), "/x")
    states = {"seen": 0, "heard": 0, "both": 0, "nothing": 0, "event": 0}
    for item, scene in zip(scenario.dataset.items, scenario.scenes, strict=True):
        for at_s in instants(scene):
            if any(event.start_s <= at_s < event.end_s for event in item.events):
                states["event"] += 1
                continue
            sight, sound = bool(seen(scene, at_s)), bool(heard(scene, at_s))
            states["both" if sight and sound else "seen" if sight else "heard" if sound else "nothing"] += 1
    total = sum(states.values())
    assert 0.3 < states["event"] / total < 0.8
    for state in ("seen", "heard", "nothing"):
        assert states[state] / total > 0.02, states
    if layout != "unav100":
        # An object with a sound that never goes with it.
        assert states["both"] / total > 0.02, states


@pytest.mark.parametrize("layout", LAYOUTS)
def test_boundaries_are_whole_frames_and_samples(layout: str) -> None:
    scenario = plan(Settings(layout=layout, videos=20, seed=3), "/x")
    times_s = [scene.duration_s for scene in scenario.scenes]
    for scene in scenario.scenes:
        for spans in [*(actor.spans for actor in scene.actors), *(voice.spans for voice in scene.voices)]:
            times_s += [edge_s for span in spans for edge_s in span]
            assert all(0 <= start_s < end_s <= scene.duration_s for start_s, end_s in spans)
    for time_s in times_s:
        assert (time_s * FPS).denominator == 1
        assert (time_s * RATE_HZ).denominator == 1
    if layout == "unav100":
        assert all(10 <= scene.duration_s <= 60 for scene in scenario.scenes)
        assert any(time_s.denominator > 1 for time_s in times_s)
    else:
        assert all(scene.duration_s == 10 for scene in scenario.scenes)
        assert all(time_s.denominator == 1 for time_s in times_s)


def test_unav_events_of_different_classes_overlap_and_of_one_class_do_not() -> None:
    overlaps = 0
    for item in plan(Settings(layout="unav100", videos=60, seed=0), "/x").dataset.items:
        for one, other in itertools.combinations(item.events, 2):
            if one.start_s < other.end_s and other.start_s < one.end_s:
                assert one.label != other.label
                overlaps += 1
    assert overlaps >= 10


def test_ave_has_one_event_of_its_category_and_some_full_ones() -> None:
    items = plan(Settings(layout="ave", videos=60, seed=0), "/x").dataset.items
    assert all(len(item.events) == 1 and item.events[0].label == item.category for item in items)
    full = sum(item.events[0].end_s - item.events[0].start_s == 10 for item in items)
    assert 5 <= full <= 30


def test_ovavebench_trains_on_every_seen_class_and_on_no_unseen() -> None:
    items = plan(Settings(layout="ovavebench", videos=60, seed=0), "/x").dataset.items
    of_split = {split: {i.category for i in items if i.split == split} for split in ("train", "val", "test")}
    labels = [synthetic.label(pair) for pair in synthetic.pairs("ovavebench")]
    assert of_split["train"] == set(labels[:8])
    assert of_split["test"] >= set(labels[8:])
    assert {(item.split, item.seen) for item in items} == {
        ("train", True),
        ("val", True),
        ("val", False),
        ("test", True),
        ("test", False),
    }
    assert all(item.seen == (item.category in labels[:8]) for item in items)
    assert any(not item.events for item in items)


def test_sixty_ave_videos_are_split_40_8_12_with_every_class_in_training() -> None:
    dataset = plan(Settings(layout="ave", videos=60, seed=0), "/x").dataset
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [40, 8, 12]
    for split in ("train", "test"):
        assert {item.category for item in dataset.split(split)} == set(dataset.classes)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("videos", [1, 2, 5, 30])
def test_official_files_read_back_equal(layout: str, videos: int, tmp_path: Path) -> None:
    dataset = plan(Settings(layout=layout, videos=videos, seed=0), tmp_path).dataset
    registry.plugin(layout).write(dataset, tmp_path)
    assert registry.load(layout, tmp_path, tmp_path / "videos") == dataset


def test_same_settings_give_the_same_plan_and_another_seed_another() -> None:
    one = plan(Settings(layout="ave", videos=5, seed=1), "/x")
    assert one == plan(Settings(layout="ave", videos=5, seed=1), "/x")
    other = plan(Settings(layout="ave", videos=5, seed=2), "/x")
    assert all(a != b for a, b in zip(one.scenes, other.scenes, strict=True))


def test_load_gives_the_plan_of_the_folder(tmp_path: Path) -> None:
    settings = Settings(layout="unav100", videos=4, seed=7)
    (tmp_path / "synth.json").write_text(synthetic.settings_json(settings), encoding="utf-8")
    found = registry.load("synthetic", tmp_path)
    made = plan(settings, tmp_path).dataset
    assert found.name == "synthetic"
    assert (found.items, found.videos, found.classes) == (made.items, made.videos, made.classes)
    elsewhere = registry.load("synthetic", tmp_path, "s3://bucket/videos")
    assert elsewhere.videos[0].uri == "s3://bucket/videos/synth00000.mp4"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "imagenet"}, "layout must be one of"),
        ({"videos": 0}, "at least 1 video"),
        ({"videos": "4"}, "field 'videos': needs int"),
        ({"seed": True}, "field 'seed': needs int"),
        ({"more": 1}, "needs an object of layout"),
        ({"revision": 999}, "made by revision 999"),
    ],
)
def test_load_wrong_settings_say_what_is_wrong(change: dict[str, object], message: str, tmp_path: Path) -> None:
    value = json.loads(synthetic.settings_json(Settings(layout="ave", videos=4, seed=7)))
    (tmp_path / "synth.json").write_text(json.dumps(value | change), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        registry.load("synthetic", tmp_path)
