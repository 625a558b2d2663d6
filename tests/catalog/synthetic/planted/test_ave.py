"""AVE with planted features: shares within binomial bounds, and features without noise by a slow obvious reading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from catalog.dataset import Dataset, Item
from catalog.event import Event
from catalog.synthetic.planted.ave import Settings, World
from catalog.synthetic.storyboard import runs
from catalog.video import Video

Of = Callable[[str], Dataset]
Within = Callable[[int, int, float], bool]


def dataset_of(*items: Item, classes: int = 6) -> Dataset:
    ids = dict.fromkeys(item.video_id for item in items)
    return Dataset(
        name="ave",
        classes=tuple("abcdefgh"[:classes]),
        items=items,
        videos=tuple(Video(id=id_, uri=f"{id_}.mp4") for id_ in ids),
        num_segments=10,
        background="background",
    )


def item(number: int, video_id: str, label: str, *span: int, split: str = "train") -> Item:
    events = (Event(start_s=Fraction(span[0]), end_s=Fraction(span[1]), label=label),) if span else ()
    return Item(id=f"{number:05d}", video_id=video_id, split=split, events=events, category=label)


def shown_once(dataset: Dataset) -> list[Item]:
    """The items whose video no other item shows."""
    shown = Counter(one.video_id for one in dataset.items)
    return [one for one in dataset.items if shown[one.video_id] == 1]


def test_prototypes_are_unit_and_alike_in_other_pairs_for_ear_and_eye() -> None:
    for seed in range(20):
        world = World(dataset_of(item(0, "v", "a", 0, 3), classes=8), Settings(seed=seed))
        for prototypes_KD, first in ((world.audio_KD, 0), (world.visual_KD, 1)):
            np.testing.assert_allclose(np.linalg.norm(prototypes_KD, axis=1), 1)
            cosines_KK = prototypes_KD @ prototypes_KD.T
            alike = {(k, k + 1) for k in range(first, 7, 2)}
            for k in range(8):
                for other in range(k + 1, 8):
                    # Two vectors at cosine r: the pair's is at least 0.96 for any r above -0.75.
                    assert (cosines_KK[k, other] > 0.95) == ((k, other) in alike)


def test_glitch_rates_are_those_of_the_splits(made_up: Of, within: Within) -> None:
    _check_glitches(made_up("ave"), within)


def test_glitch_rates_and_background_shares_of_the_real_splits(real: Of, within: Within) -> None:
    dataset = real("ave")
    assert len(dataset.videos) == 4097
    _check_glitches(dataset, within)
    _check_background(dataset, within)


def _check_glitches(dataset: Dataset, within: Within) -> None:
    world = World(dataset, Settings(seed=2, noise_seed=2))
    glitches: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for one in shown_once(dataset):
        scene = world.scene(one.video_id)
        glitches[one.split] += int(scene.deaf_T.sum() + scene.blind_T.sum())
        seconds[one.split] += 20
    for split, rate in (("train", 0.05), ("val", 0.30), ("test", 0.30)):
        assert within(glitches[split], seconds[split], rate), (split, glitches[split] / seconds[split])


def test_background_runs_have_the_documented_shares(made_up: Of, within: Within) -> None:
    _check_background(made_up("ave"), within)


def _check_background(dataset: Dataset, within: Within) -> None:
    world = World(dataset, Settings(seed=1, noise_seed=1))
    found: Counter[str] = Counter()
    for one in shown_once(dataset):
        if not one.events or one.category is None:
            continue
        scene, main = world.scene(one.video_id), dataset.class_index(one.category)
        start, stop = int(one.events[0].start_s), int(one.events[0].end_s)
        on_T = np.zeros(10, dtype=bool)
        on_T[start:stop] = True
        np.testing.assert_array_equal((scene.heard_TK & scene.seen_TK).any(axis=1), on_T)
        for first, end in runs(~on_T):
            heard, seen = (set(np.flatnonzero(on_TK[first])) for on_TK in (scene.heard_TK, scene.seen_TK))
            assert (scene.heard_TK[first:end] == scene.heard_TK[first]).all()
            assert (scene.seen_TK[first:end] == scene.seen_TK[first]).all()
            if not heard and not seen:
                found["silent"] += 1
            elif heard and seen:
                assert heard == {main}
                assert len(seen) == 1
                found["different"] += 1
            elif heard == {main}:
                found["audible"] += 1
            elif heard:
                found["other audible"] += 1
            else:
                assert seen == {main}
                found["visible"] += 1
    shares = {"silent": 0.15, "audible": 0.30, "visible": 0.30, "other audible": 0.10, "different": 0.15}
    assert found.total() > 200
    for kind, share in shares.items():
        assert within(found[kind], found.total(), share), (kind, found)


def test_features_without_noise_are_what_the_scene_says(made_up: Of, within: Within) -> None:
    dataset = made_up("ave")
    world = World(dataset, Settings(slow_noise=0.0, white_noise=0.0, places=4))
    gains, clutter, places = [], 0, set()
    for video in dataset.videos[:200]:
        scene = world.scene(video.id)
        visual_TRD, audio_TD = world.features(video.id)
        gain = max(np.linalg.norm(audio_TD, axis=1))
        gains.append(gain)
        for t in range(10):
            heard = [] if scene.deaf_T[t] else list(np.flatnonzero(scene.heard_TK[t]))
            expected = gain * sum((world.audio_KD[k] for k in heard), np.zeros(32))
            np.testing.assert_allclose(audio_TD[t], expected, atol=1e-5)
        # A place whose picture never changes holds clutter or nothing; the other one holds the class.
        lively = [r for r in range(4) if np.ptp(visual_TRD[:, r], axis=0).max() > 0]
        assert len(lively) <= 1
        for r in set(range(4)) - set(lively):
            norm = np.linalg.norm(visual_TRD[0, r])
            if norm > 3:  # the class, seen all the time
                lively = [r]
                continue
            assert norm == pytest.approx(0) or norm == pytest.approx(2.1, rel=1e-6)
            clutter += int(norm > 1)
        for r in lively:
            places.add(r)
            gain = max(np.linalg.norm(visual_TRD[:, r], axis=1))
            for t in range(10):
                seen = [] if scene.blind_T[t] else list(np.flatnonzero(scene.seen_TK[t]))
                expected = gain * sum((world.visual_KD[k] for k in seen), np.zeros(32))
                np.testing.assert_allclose(visual_TRD[t, r], expected, atol=1e-5)
    assert places == {0, 1, 2, 3}
    assert within(clutter, 600, 0.35)
    logs = np.log(np.array(gains)[np.array(gains) > 0.1] / 3)
    assert abs(logs.mean()) < 4 * 0.15 / len(logs) ** 0.5
    assert logs.std() == pytest.approx(0.15, rel=0.25)


def test_noise_has_the_documented_size_slow_part_and_norm_after_scaling(made_up: Of) -> None:
    dataset = made_up("ave")
    power = {}
    for scale_to in (None, 256):
        world = World(dataset, Settings(scale_to=scale_to, audio_gain=0.0, visual_gain=0.0, clutter_gain=0.0))
        audio = np.stack([world.features(video.id)[1] for video in dataset.videos])
        power[scale_to] = float((audio**2).sum(axis=-1).mean())
        if scale_to is None:
            # Neighbours share the slow part, 0.36² at correlation 0.92; white noise adds 0.42² to the variance.
            assert (audio[:, 1:] * audio[:, :-1]).mean() == pytest.approx(0.36**2 * 0.92, rel=0.05)
            assert audio.var() == pytest.approx(0.36**2 + 0.42**2, rel=0.03)
    assert power[256] == pytest.approx(power[None], rel=0.03)


def test_slow_noise_of_a_picture_is_the_same_at_all_places(made_up: Of) -> None:
    dataset = made_up("ave")
    world = World(dataset, Settings(visual_gain=0.0, clutter_gain=0.0, white_noise=0.0))
    visual_TRD, _ = world.features(dataset.videos[0].id)
    np.testing.assert_array_equal(visual_TRD, np.repeat(visual_TRD[:, :1], 4, axis=1))


def test_one_place_is_a_vector_and_49_are_a_map(made_up: Of) -> None:
    dataset = made_up("ave")
    for places, shape in ((1, (32,)), (49, (49, 32))):
        world = World(dataset, Settings(places=places))
        assert world.visual_shape == shape
        assert world.features(dataset.videos[0].id)[0].shape == (10, *shape)


def test_video_of_two_items_holds_both_events_and_is_a_test_video_if_one_is() -> None:
    both = dataset_of(item(0, "v", "a", 0, 3), item(1, "v", "d", 2, 6, split="test"), item(2, "w", "b", 0, 10))
    world = World(both, Settings(glitch_train=0.0, glitch_test=1.0))
    scene = world.scene("v")
    for on_TK in (scene.heard_TK, scene.seen_TK):
        assert [set(np.flatnonzero(on_K)) for on_K in on_TK[:6]] == [{0}, {0}, {0, 3}, {3}, {3}, {3}]
    assert scene.deaf_T.all()
    assert scene.blind_T.all()
    assert not world.scene("w").deaf_T.any()


def test_background_of_a_video_of_two_items_belongs_to_the_first() -> None:
    heard, seen = set(), set()
    for number in range(40):
        id_ = f"v{number}"
        scene = World(dataset_of(item(0, id_, "a", 0, 3), item(1, id_, "d", 2, 6)), Settings()).scene(id_)
        if not (scene.heard_TK & scene.seen_TK)[6:].any():
            heard |= {int(k) for k in np.flatnonzero(scene.heard_TK[6])}
            seen |= {int(k) for k in np.flatnonzero(scene.seen_TK[6] & ~scene.heard_TK[6].any())}
    assert 0 in heard
    assert seen == {0}  # what is seen and not heard is the item's own class


def test_item_without_events_is_one_run_of_background() -> None:
    kinds = set()
    for number in range(60):
        dataset = dataset_of(item(0, f"v{number}", "c"))
        scene = World(dataset, Settings()).scene(f"v{number}")
        heard, seen = (
            tuple(int(k) for k in np.flatnonzero(on_TK.all(axis=0))) for on_TK in (scene.heard_TK, scene.seen_TK)
        )
        assert not (scene.heard_TK & scene.seen_TK).any()
        kinds.add((heard in ((), (2,)), seen in ((), (2,)), bool(heard), bool(seen)))
    assert len(kinds) == 5


def test_item_without_category_and_event_is_refused() -> None:
    dataset = dataset_of(replace(item(0, "v", "a"), category=None))
    with pytest.raises(ValueError, match="ave: item 00000 needs a category or an event"):
        World(dataset, Settings()).features("v")
