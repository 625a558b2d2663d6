"""OV-AVEBench with planted features: texts, rotations, norms, shares, and features without noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from catalog.dataset import Dataset
from catalog.synthetic.planted.ovavebench import Settings, World
from catalog.synthetic.storyboard import runs

Of = Callable[[str], Dataset]
Within = Callable[[int, int, float], bool]


@pytest.fixture(scope="module")
def dataset(made_up: Of) -> Dataset:
    return made_up("ovavebench")


def test_texts_are_unit_vectors_in_a_cone_and_other_leans_to_its_axis(dataset: Dataset) -> None:
    others, classes = [], []
    for seed in range(20):
        texts_KD = World(dataset, Settings(seed=seed)).texts()
        assert texts_KD.dtype == np.float32
        assert texts_KD.shape == (len(dataset.classes) + 1, 96)
        np.testing.assert_allclose(np.linalg.norm(texts_KD, axis=1), 1, atol=1e-6)
        cosines_KK = texts_KD @ texts_KD.T
        classes.append(cosines_KK[:-1, :-1][np.triu_indices(len(dataset.classes), 1)].mean())
        others.append(cosines_KK[-1, :-1].mean())
    # x = (a + c) / |a + c| with |a| = 1 and |c| = 1.05: two classes are at cosine c² / (1 + c²), a class and `other`
    # at c² / (|a + c| |0.6 a + c|).
    square = (3 * 0.35) ** 2
    assert np.mean(classes) == pytest.approx(square / (1 + square), abs=0.03)
    assert np.mean(others) == pytest.approx(square / np.sqrt((1 + square) * (0.36 + square)), abs=0.03)


def test_rotations_are_small_and_never_near_minus_the_identity(dataset: Dataset) -> None:
    for seed in range(10):
        world = World(dataset, Settings(seed=seed))
        for modality in (world.audio, world.visual):
            rotation_DD = modality.rotation_DD
            np.testing.assert_allclose(rotation_DD @ rotation_DD.T, np.eye(96), atol=1e-12)
            assert np.diag(rotation_DD).min() > 0.3
            texts_KD = world.texts_KD
            assert ((texts_KD @ rotation_DD.T) * texts_KD).sum(axis=1).mean() > 0.7
        assert np.abs(world.audio.rotation_DD - world.visual.rotation_DD).max() > 0.1
        for modality, gain in ((world.audio, 0.52), (world.visual, 0.55)):
            np.testing.assert_allclose(np.linalg.norm(modality.source_KD, axis=1), gain)
            np.testing.assert_allclose(np.linalg.norm(modality.gap_D), 0.5)


@pytest.mark.parametrize("scale_to", [None, 1024])
def test_audio_has_norm_20_and_vision_1(dataset: Dataset, scale_to: int | None) -> None:
    world = World(dataset, Settings(scale_to=scale_to))
    for video in dataset.videos[:10]:
        visual_TD, audio_TD = world.features(video.id)
        np.testing.assert_allclose(np.linalg.norm(visual_TD, axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(audio_TD, axis=1), 20, rtol=1e-5)


def test_noise_keeps_its_norm_when_scaled(dataset: Dataset) -> None:
    # Without a signal but the gap, the cosine with it tells the noise's norm: nearly 0.5 / sqrt(0.5² + noise²).
    found = {}
    for scale_to in (None, 1024):
        world = World(dataset, Settings(scale_to=scale_to, audio_gain=0.0))
        audio = np.concatenate([world.features(video.id)[1] for video in dataset.videos])
        found[scale_to] = float((audio @ world.audio.gap_D).mean()) / 20 / 0.5
    noise = 96 * (0.06**2 + 0.10**2)
    assert found[None] == pytest.approx(0.5 / np.sqrt(0.25 + noise), rel=0.02)
    assert found[1024] == pytest.approx(found[None], rel=0.02)


def test_background_runs_have_the_documented_shares(dataset: Dataset, within: Within) -> None:
    _check_background(dataset, within)


def test_background_runs_of_the_real_videos_have_the_documented_shares(real: Of, within: Within) -> None:
    dataset = real("ovavebench")
    assert World(dataset, Settings()).texts().shape == (68, 96)
    _check_background(replace(dataset, items=dataset.items[::8], videos=dataset.videos[::8]), within)


def _check_background(dataset: Dataset, within: Within) -> None:
    world = World(dataset, Settings(noise_seed=5))
    found: Counter[Any] = Counter()
    for item in dataset.items:
        truth_T = np.zeros(10, dtype=bool)
        for event in item.events:
            truth_T[int(event.start_s) : int(event.end_s)] = True
        heard_T, seen_T = world.scene(item.video_id)
        np.testing.assert_array_equal(heard_T & seen_T, truth_T)
        for start, stop in runs(~truth_T):
            assert len(set(heard_T[start:stop])) == len(set(seen_T[start:stop])) == 1
            found[bool(heard_T[start]), bool(seen_T[start])] += 1
    assert found.total() > 200
    for kind, share in (((False, False), 0.15), ((True, False), 0.50), ((False, True), 0.35)):
        assert within(found[kind], found.total(), share), (kind, found)


def test_features_without_noise_are_what_the_scene_says(dataset: Dataset) -> None:
    world = World(
        dataset, Settings(audio_constant=0.0, audio_white=0.0, visual_constant=0.0, visual_white=0.0, gap=0.0)
    )
    texts_KD, num_classes = world.texts_KD, len(dataset.classes)
    for item in dataset.items[:60]:
        assert item.category is not None
        main = dataset.class_index(item.category)
        for values_TD, on_T, modality in zip(
            world.features(item.video_id), world.scene(item.video_id)[::-1], (world.visual, world.audio), strict=True
        ):
            for x_D, on in zip(values_TD, on_T, strict=True):
                if on:
                    possible = [texts_KD[main]]
                else:
                    possible = [0.75 * texts_KD[-1] + 0.25 * texts_KD[k] for k in range(num_classes)]
                cosines = [
                    x_D @ (modality.rotation_DD @ s_D) / np.linalg.norm(x_D) / np.linalg.norm(s_D) for s_D in possible
                ]
                assert max(cosines) == pytest.approx(1, abs=1e-5)


def test_item_without_category_is_refused(dataset: Dataset) -> None:
    odd = replace(dataset, items=(replace(dataset.items[0], category=None, events=()), *dataset.items[1:]))
    with pytest.raises(ValueError, match=f"item {odd.items[0].id} needs a category"):
        World(odd, Settings()).features(odd.items[0].video_id)
