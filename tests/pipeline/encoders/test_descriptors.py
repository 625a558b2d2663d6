"""Descriptors against plain loops, against librosa's own, and against the laws they promise."""

from __future__ import annotations

import colorsys
import itertools
import math
from fractions import Fraction

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from catalog.grid import GridRule, SegmentGrid
from catalog.store.modal import Features
from pipeline.clips import Clips
from pipeline.encode import load_encoder
from pipeline.encoders import descriptors
from pipeline.preprocess import spectrogram
from pipeline.recipes import find_recipe

RATE_HZ = 16000
RULE = spectrogram.StftRule(rate_hz=RATE_HZ, fft_size=512, hop_size=160, num_bands=64, low_hz=50.0, high_hz=8000.0)
LAYOUT, TEXTURE, HUE, HUES = slice(0, 48), slice(48, 96), slice(96, 112), slice(112, 176)
GRADIENTS, EDGES, MOTION = slice(176, 208), slice(208, 216), slice(216, 232)


def make_clips(*, count: int, seed: int = 0, window_s: Fraction = Fraction(1), repeat_frames: bool = False) -> Clips:
    """Noise pictures and coloured noise with gaps; some segments without picture, some without sound."""
    rng = np.random.default_rng(seed)
    grid = SegmentGrid(window_s=window_s, hop_s=window_s, count=count)
    index_SP = np.arange(8 * count, dtype=np.int32).reshape(count, 8)
    if repeat_frames:
        index_SP = (index_SP // 3).astype(np.int32)
    frames = int(index_SP.max()) + 1
    index_SP[rng.random(count) < 0.2] = -1
    index_SP[0, :3] = -1
    stop = grid.sample_range(count - 1, RATE_HZ)[1]
    samples_N = (rng.standard_normal(stop) * 0.1).astype(np.float32)
    valid_N = np.ones(stop, np.bool_)
    valid_N[int(stop * 0.3) : int(stop * 0.55)] = False
    samples_N[~valid_N] = 0
    return Clips(
        video_id="v",
        grid=grid,
        first=0,
        frames_FHWC=rng.integers(0, 256, (frames, 64, 64, 3), dtype=np.uint8),
        frame_index_SP=index_SP,
        samples_N=samples_N,
        sample_valid_N=valid_N,
        samples_start=0,
        rate_hz=RATE_HZ,
    )


def cut(clips: Clips, first: int, stop: int) -> Clips:
    """Segments first .. stop - 1 as a decoder would hand them over: own frames, own samples."""
    index_SP = clips.frame_index_SP[first:stop]
    used_F = sorted({int(i) for i in index_SP.ravel() if i >= 0})
    renumbered = [[used_F.index(int(i)) if i >= 0 else -1 for i in row] for row in index_SP]
    begin, end = clips.grid.sample_range(first, RATE_HZ)[0], clips.grid.sample_range(stop - 1, RATE_HZ)[1]
    return Clips(
        video_id=clips.video_id,
        grid=clips.grid,
        first=first,
        frames_FHWC=clips.frames_FHWC[used_F],
        frame_index_SP=np.array(renumbered, np.int32),
        samples_N=clips.samples_N[begin:end].copy(),
        sample_valid_N=clips.sample_valid_N[begin:end].copy(),
        samples_start=begin,
        rate_hz=RATE_HZ,
    )


def encode(clips: list[Clips]) -> list[Features]:
    return load_encoder(find_recipe("descriptors-1s")).encode(clips)


def visual(frames_FHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The one row of a segment that sees these frames."""
    index_SP = np.arange(len(frames_FHWC), dtype=np.int32)[None]
    return np.asarray(descriptors.describe_frames(frames_FHWC, index_SP)[0])


def audio(samples_N: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(descriptors.describe_audio(samples_N[None], np.ones((1, samples_N.size), np.bool_), RULE)[0])


def sine(frequency_hz: float, amplitude: float = 0.5, seconds: float = 1.0) -> NDArray[np.float32]:
    at_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return (amplitude * np.sin(2 * np.pi * frequency_hz * at_s)).astype(np.float32)


@settings(max_examples=15, deadline=None)
@given(
    cuts=st.sets(st.integers(1, 10), max_size=6),
    seed=st.integers(0, 3),
    window_s=st.sampled_from([Fraction(1), Fraction(24, 25), Fraction(1, 3)]),
    repeat_frames=st.booleans(),
)
def test_encode_split_anywhere_gives_the_same_bits(
    cuts: set[int], seed: int, window_s: Fraction, repeat_frames: bool
) -> None:
    clips = make_clips(count=11, seed=seed, window_s=window_s, repeat_frames=repeat_frames)
    edges = [0, *sorted(cuts), 11]
    parts = encode([cut(clips, a, b) for a, b in itertools.pairwise(edges)])
    (whole,) = encode([clips])
    for name in ("visual", "audio"):
        for field in ("values", "valid"):
            joined = np.concatenate([getattr(getattr(part, name), field) for part in parts])
            np.testing.assert_array_equal(joined, getattr(getattr(whole, name), field), err_msg=f"{name} {field}")


def test_encode_long_list_equals_one_segment_at_a_time() -> None:
    # 150 segments cross two batch limits of 64.
    clips = make_clips(count=75, seed=5)
    wholes = encode([clips, clips])
    for segment in range(0, 75, 7):
        (single,) = encode([cut(clips, segment, segment + 1)])
        for whole in wholes:
            for (name, one), (_, all_) in zip(single.modalities(), whole.modalities(), strict=True):
                np.testing.assert_array_equal(one.values[0], all_.values[segment], err_msg=name)


def test_encode_absent_picture_or_sound_is_nan_and_not_valid() -> None:
    clips = make_clips(count=12, seed=1)
    (made,) = encode([clips])
    assert made.visual is not None
    assert made.audio is not None
    np.testing.assert_array_equal(made.visual.valid, (clips.frame_index_SP >= 0).any(axis=1))
    share_S = clips.sample_valid_N.reshape(12, RATE_HZ).mean(axis=1)
    np.testing.assert_array_equal(made.audio.valid, share_S >= 0.1)
    assert 0 < made.visual.valid.sum() < 12
    assert 0 < made.audio.valid.sum() < 12
    np.testing.assert_array_equal(np.isnan(made.visual.values), np.repeat(~made.visual.valid[:, None], 232, axis=1))
    np.testing.assert_array_equal(np.isnan(made.audio.values), np.repeat(~made.audio.valid[:, None], 152, axis=1))


def test_encode_video_without_tracks_is_nan() -> None:
    clips = Clips(
        video_id="v",
        grid=SegmentGrid(window_s=Fraction(1), hop_s=Fraction(1), count=2),
        first=0,
        frames_FHWC=np.zeros((0, 64, 64, 3), np.uint8),
        frame_index_SP=np.full((2, 8), -1, np.int32),
        samples_N=np.zeros(0, np.float32),
        sample_valid_N=np.zeros(0, np.bool_),
        samples_start=0,
        rate_hz=RATE_HZ,
    )
    (made,) = encode([clips])
    assert made.visual is not None
    assert made.audio is not None
    assert not made.visual.valid.any()
    assert not made.audio.valid.any()
    assert np.isnan(made.visual.values).all()
    assert np.isnan(made.audio.values).all()


@pytest.mark.parametrize("samples", [1, 2, 100, 1600, 15999])
def test_encode_short_tail_of_sound_is_finite_where_covered(samples: int) -> None:
    recipe = find_recipe("descriptors-1s").changed({"audio.min_coverage": "1/16000"})
    clips = Clips(
        video_id="v",
        grid=SegmentGrid(window_s=Fraction(1), hop_s=Fraction(1), count=1),
        first=0,
        frames_FHWC=np.zeros((1, 64, 64, 3), np.uint8),
        frame_index_SP=np.zeros((1, 8), np.int32),
        samples_N=np.full(samples, 0.5, np.float32),
        sample_valid_N=np.ones(samples, np.bool_),
        samples_start=0,
        rate_hz=RATE_HZ,
    )
    (made,) = load_encoder(recipe).encode([clips])
    assert made.audio is not None
    assert made.audio.valid.all()
    assert np.isfinite(made.audio.values).all()
    (strict,) = encode([clips])
    assert strict.audio is not None
    assert strict.audio.valid.all() == (samples >= 1600)


def test_encode_black_picture_and_digital_silence_are_finite_and_still() -> None:
    row = visual(np.zeros((8, 64, 64, 3), np.uint8))
    np.testing.assert_array_equal(row, 0)
    sound = audio(np.zeros(RATE_HZ, np.float32))
    np.testing.assert_allclose(sound[:64], -10, rtol=1e-6)  # -100 dB in units of 10 dB
    np.testing.assert_allclose(sound[64:], 0, atol=1e-5)


def test_visual_pairs_of_frames_out_of_a_partly_empty_segment() -> None:
    clips = make_clips(count=2, seed=3)
    index_P = np.array([[-1, -1, 0, 0, 3, 1, -1, 1]], np.int32)
    frames_FHWC = clips.frames_FHWC.astype(np.uint8)
    row = descriptors.describe_frames(frames_FHWC, index_P)[0]
    shown = [visual(frames_FHWC[[i]]) for i in (0, 0, 3, 1, 1)]
    np.testing.assert_allclose(row[:216], np.mean(shown, axis=0)[:216], rtol=2e-6, atol=1e-7)
    moves = [visual(frames_FHWC[list(pair)])[MOTION] for pair in ((0, 0), (0, 3), (3, 1), (1, 1))]
    np.testing.assert_allclose(row[MOTION], np.mean(moves, axis=0), rtol=2e-6, atol=1e-7)


def test_oklab_known_colours() -> None:
    # Ottosson's own table of checks goes from XYZ; these are his sRGB values as other implementations print them.
    colours = np.array([[[[255, 255, 255]], [[255, 0, 0]], [[0, 255, 0]], [[0, 0, 255]]]], np.uint8)
    lab_4C = descriptors.oklab(colours)[:, 0, :, 0].T
    expected: list[list[float]] = [
        [1, 0, 0],
        [0.62796, 0.22486, 0.12585],
        [0.86644, -0.23389, 0.17950],
        [0.45201, -0.03246, -0.31153],
    ]
    np.testing.assert_allclose(lab_4C, expected, atol=2e-4)


def test_layout_names_the_cell_and_its_colour() -> None:
    frame_HWC = np.full((64, 64, 3), 128, np.uint8)
    frame_HWC[16:32, 48:64] = (255, 0, 0)  # row 1, column 3
    layout_GC = visual(frame_HWC[None])[LAYOUT].reshape(16, 3)
    np.testing.assert_allclose(layout_GC[7], [0.62796, 0.22486, 0.12585], atol=2e-4)
    others = np.delete(layout_GC, 7, axis=0)
    np.testing.assert_allclose(others, np.broadcast_to([0.5999, 0, 0], (15, 3)), atol=2e-3)


def test_texture_equals_numpy_standard_deviation() -> None:
    frame_HWC = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    lab_CHW = descriptors.oklab(frame_HWC[None])[:, 0].astype(np.float64)
    slow = [lab_CHW[:, r : r + 16, c : c + 16].std(axis=(1, 2)) for r in range(0, 64, 16) for c in range(0, 64, 16)]
    np.testing.assert_allclose(visual(frame_HWC[None])[TEXTURE].reshape(16, 3), slow, rtol=1e-4)


def test_gradients_equal_a_slow_loop() -> None:
    frame_HWC = np.random.default_rng(4).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    light = descriptors.oklab(frame_HWC[None])[0, 0].astype(np.float64)
    slow = np.zeros((2, 2, 8))
    for y in range(16):
        for x in range(16):
            across = light[y, x + 1] - light[y, x - 1] if 0 < x < 15 else 0.0
            down = light[y + 1, x] - light[y - 1, x] if 0 < y < 15 else 0.0
            place = (math.atan2(down, across) % math.pi) / math.pi * 8
            low = math.floor(place)
            slow[y // 8, x // 8, low % 8] += math.hypot(across, down) * (1 - (place - low)) / 64
            slow[y // 8, x // 8, (low + 1) % 8] += math.hypot(across, down) * (place - low) / 64
    row = visual(frame_HWC[None])
    np.testing.assert_allclose(row[GRADIENTS] ** 2, slow.ravel(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(row[EDGES] ** 2, slow.mean(axis=(0, 1)), rtol=1e-3, atol=1e-6)


def test_edges_tell_the_direction_of_stripes() -> None:
    wave = (127 + 100 * np.sin(np.arange(64) * 2 * np.pi / 8)).astype(np.uint8)
    upright = np.repeat(np.tile(wave, (64, 1))[..., None], 3, axis=2)
    flat = upright.transpose(1, 0, 2)
    assert visual(upright[None])[EDGES].argmax() == 0
    assert visual(flat[None])[EDGES].argmax() == 4


def test_hue_peaks_where_the_colour_is() -> None:
    # Oklab's hue angles of saturated sRGB red, green and blue: 29, 142 and 264 degrees; bins are 22.5 degrees.
    for hue, degrees in ((0, 29.2), (1 / 3, 142.5), (2 / 3, 264.1)):
        colour = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 1, 1)]
        histogram = visual(np.full((1, 64, 64, 3), colour, np.uint8))[HUE]
        assert histogram.argmax() == round(degrees / 22.5) % 16
        assert np.count_nonzero(histogram > 1e-3) <= 2


def test_hues_are_the_root_mean_square_chroma_of_each_quarter() -> None:
    frame_HWC = np.full((64, 64, 3), 128, np.uint8)
    frame_HWC[:16, 32:64] = (255, 0, 0)  # half of the quarter at the upper right
    row = visual(frame_HWC[None])
    red_chroma = math.hypot(0.22486, 0.12585)
    power_QK = row[HUES].reshape(4, 16) ** 2
    np.testing.assert_allclose(power_QK.sum(axis=1), [0, red_chroma**2 / 2, 0, 0], atol=1e-5)
    np.testing.assert_allclose((row[HUE] ** 2).sum(), red_chroma**2 / 8, atol=1e-5)


def test_motion_is_where_the_picture_changes() -> None:
    frames = np.zeros((2, 64, 64, 3), np.uint8)
    frames[1, 32:48, 16:32] = 255  # row 2, column 1: lightness 0 to 1
    motion_G = visual(frames)[MOTION]
    np.testing.assert_allclose(motion_G, np.eye(16)[9], atol=1e-3)


def test_log_mel_of_a_sine_peaks_in_its_band() -> None:
    centres_hz = librosa.mel_frequencies(n_mels=66, fmin=50, fmax=8000)[1:-1]
    for band in (5, 20, 40, 60):
        mean_M = audio(sine(float(centres_hz[band])))[:64]
        assert mean_M.argmax() == band


def test_contrast_equals_librosa() -> None:
    rng = np.random.default_rng(6)
    samples_N = (sine(700) + 0.05 * rng.standard_normal(RATE_HZ)).astype(np.float32)
    power_SBT = spectrogram.power(samples_N[None], RULE)
    ours = descriptors.spectral_contrast(power_SBT, RULE)[0]
    # librosa too takes 10 log10 of magnitudes here.
    theirs = librosa.feature.spectral_contrast(
        S=np.sqrt(power_SBT[0]), sr=RATE_HZ, n_fft=512, n_bands=5, fmin=200.0, quantile=0.02
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_onsets_equal_librosa() -> None:
    rng = np.random.default_rng(7)
    samples_N = (0.1 * rng.standard_normal(RATE_HZ)).astype(np.float32)
    samples_N[8000:8200] += 0.8
    level_MT = spectrogram.decibels(spectrogram.mel(spectrogram.power(samples_N[None], RULE), RULE))[0]
    theirs = librosa.onset.onset_strength_multi(
        S=level_MT, sr=RATE_HZ, center=False, channels=[0, 16, 32, 48, 64], lag=1, max_size=1
    )
    rises = audio(samples_N)[140:].reshape(3, 4)
    np.testing.assert_allclose(rises[0], theirs[:, 1:].mean(axis=1) / 10, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(rises[2], theirs[:, 1:].max(axis=1) / 10, rtol=1e-3, atol=1e-4)


def test_padded_tail_is_left_out_of_the_statistics() -> None:
    tone_N = sine(1000)
    real_N = np.arange(RATE_HZ) < 8000
    half = descriptors.describe_audio(np.where(real_N, tone_N, 0).astype(np.float32)[None], real_N[None], RULE)[0]
    whole = audio(tone_N)
    quiet = audio(np.where(real_N, tone_N, 0).astype(np.float32))
    loudest = whole[:64].argmax()
    assert abs(half[loudest] - whole[loudest]) < 0.1
    assert quiet[loudest] < whole[loudest] - 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "float16"}, "need precision float32"),
        ({"video.interpolation": "bicubic_tensor"}, "need a Pillow filter"),
        ({"video.width_px": "66"}, "multiples of 4"),
        ({"audio.context_s": "1/2"}, "audio.context_s"),
        ({"audio.rate_hz": "8000"}, "at least 16000"),
        ({"settings.bins": "9"}, "no setting 'bins'"),
    ],
)
def test_load_recipe_it_cannot_do_raises(change: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_encoder(find_recipe("descriptors-1s").changed(change))


def test_preset_is_one_second_of_both_towers() -> None:
    (recipe,) = descriptors.PRESETS
    assert recipe.grid == GridRule(window_s=Fraction(1), hop_s=Fraction(1))
    assert (descriptors.VISUAL_WIDTH, descriptors.AUDIO_WIDTH) == (232, 152)
