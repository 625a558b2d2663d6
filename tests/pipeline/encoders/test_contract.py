"""What every encoder must keep, whatever it is: run over all files of pipeline/encoders."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from bench import random_weights
from catalog.grid import SegmentGrid
from catalog.recipe import Recipe
from catalog.store.modal import Features
from pipeline.clips import Clips
from pipeline.encode import Encoder, load_encoder
from pipeline.encoder import declaration, encoder_names

PROJECT = Path(__file__).resolve().parents[3]


def clips_for(recipe: Recipe, *, segments: list[bool], seed: int = 0) -> Clips:
    """Noise for `recipe`: segment i has picture and sound where segments[i]."""
    rng = np.random.default_rng(seed)
    count = len(segments)
    grid = SegmentGrid(window_s=recipe.grid.window_s, hop_s=recipe.grid.hop_s, count=count)
    frames = recipe.video.frames_per_segment if recipe.video is not None else 0
    height, width = (recipe.video.height_px, recipe.video.width_px) if recipe.video is not None else (8, 8)
    rate_hz = recipe.audio.rate_hz if recipe.audio is not None else 0
    context_s = recipe.audio.context_s if recipe.audio is not None else Fraction(0)
    index_SP = np.arange(count * frames, dtype=np.int32).reshape(count, frames)
    index_SP[~np.array(segments)] = -1
    margin = round(context_s * rate_hz)
    stop = grid.sample_range(count - 1, rate_hz)[1] if rate_hz else 0
    samples_N = (0.1 * rng.standard_normal(stop + 2 * margin if rate_hz else 0)).astype(np.float32)
    valid_N = np.ones(samples_N.size, np.bool_)
    for segment, present in enumerate(segments):
        if rate_hz and not present:
            start, end = grid.sample_range(segment, rate_hz)
            valid_N[start + margin : end + margin] = False
    samples_N[~valid_N] = 0
    return Clips(
        video_id="v",
        grid=grid,
        first=0,
        frames_FHWC=rng.integers(0, 256, (count * frames, height, width, 3), dtype=np.uint8),
        frame_index_SP=index_SP,
        samples_N=samples_N,
        sample_valid_N=valid_N,
        samples_start=-margin,
        rate_hz=rate_hz,
    )


def cases() -> list[tuple[Recipe, str]]:
    """Every preset without weights; each tower alone of the encoders that seeded weights can be made for."""
    found = []
    for name in encoder_names():
        module = declaration(name)
        if not module.SPEC.needs_weights:
            found += [(preset, "") for preset in module.PRESETS]
        elif name in random_weights.encoders():
            preset = random_weights.small_recipe(module.PRESETS[0], frames=1)
            if preset.video is not None:
                found.append((replace(preset, audio=None), "visual"))
            if preset.audio is not None:
                found.append((replace(preset, video=None), "audio"))
    return found


@pytest.fixture(scope="module", params=cases(), ids=lambda case: " ".join((case[0].name, case[1])).strip())
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    recipe, tower = request.param
    if not tower:
        return load_encoder(recipe)
    folder = tmp_path_factory.mktemp("weights")
    return load_encoder(recipe, random_weights.write(recipe.encoder, tower, folder, small=True))


@pytest.mark.parametrize("name", encoder_names())
def test_presets_name_their_encoder_and_its_towers(name: str) -> None:
    module = declaration(name)
    assert module.SPEC.name == name
    assert module.SPEC.licence
    assert module.SPEC.citation
    assert module.PRESETS, "an encoder without a recipe cannot be asked for"
    for recipe in module.PRESETS:
        assert recipe.encoder == name
        assert Recipe.from_json(recipe.to_json()) == recipe
        assert recipe.video is None or module.SPEC.visual_shape is not None
        assert recipe.audio is None or module.SPEC.audio_shape is not None


def test_import_of_every_encoder_needs_no_torch() -> None:
    # The command line lists recipes and their shapes; torch costs seconds and belongs into load().
    code = (
        "import sys; from pipeline.recipes import feature_shapes, presets; [feature_shapes(recipe, {}) for recipe in "
        "presets().values()]; print('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_encode_marks_absent_segments_with_nan(encoder: Encoder) -> None:
    present = [True, False, True, True, False]
    clips = clips_for(encoder.recipe, segments=present)
    (made,) = encoder.encode([clips])
    # Windows that overlap one without sound have less of it themselves.
    ranges = [clips.grid.sample_range(segment, clips.rate_hz) for segment in range(len(present)) if clips.rate_hz]
    heard = [
        clips.sample_valid_N[start - clips.samples_start : end - clips.samples_start].any() for start, end in ranges
    ]
    for modal, shape, wanted_S in (
        (made.visual, encoder.visual_shape, present),
        (made.audio, encoder.audio_shape, heard),
    ):
        if shape is None:
            assert modal is None
            continue
        assert modal is not None
        assert modal.values.shape == (5, *shape)
        assert modal.values.dtype == np.float32
        np.testing.assert_array_equal(modal.valid, wanted_S)
        np.testing.assert_array_equal(np.isfinite(modal.values.reshape(5, -1)).all(axis=1), wanted_S)


def test_encode_twice_gives_the_same_bits(encoder: Encoder) -> None:
    clips = [clips_for(encoder.recipe, segments=[True], seed=seed) for seed in range(2)]
    assert_equal(encoder.encode(clips), encoder.encode(clips))


def test_encode_keeps_the_order_of_clips(encoder: Encoder) -> None:
    clips = [clips_for(encoder.recipe, segments=[True] * (1 + seed), seed=seed) for seed in range(2)]
    # A network's sums may be taken in another order where a segment has another place in the batch.
    exact = not encoder.spec.needs_weights
    assert_equal(encoder.encode(clips[::-1])[::-1], encoder.encode(clips), rtol=0 if exact else 1e-4)


def assert_equal(left: list[Features], right: list[Features], *, rtol: float = 0) -> None:
    for a, b in zip(left, right, strict=True):
        for (name, one), (same, other) in zip(a.modalities(), b.modalities(), strict=True):
            assert name == same
            np.testing.assert_array_equal(one.valid, other.valid)
            scale = float(np.nanmax(np.abs(other.values), initial=0))
            np.testing.assert_allclose(one.values, other.values, rtol=rtol, atol=rtol * scale)
