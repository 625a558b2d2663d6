"""Augmented pictures and sounds keep what pictures and sounds of one event have in common."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.finetune.augment import SHIFT, SNR_DB, noisy_audio, shift_frames


def test_shift_frames_moves_them_and_keeps_their_colours() -> None:
    frames = np.full((40, 32, 48, 3), 60, np.uint8)
    frames[:, 12:20, 20:28] = (220, 100, 140)
    made = shift_frames(frames, np.random.default_rng(0))
    assert made.shape == frames.shape
    assert made.dtype == np.uint8
    tops, lefts = set(), set()
    for frame in made.astype(float):
        bright = frame[..., 0] > 140
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        assert bright.sum() == 64  # the square keeps its size
        np.testing.assert_allclose(frame[bright].mean(axis=0), (220, 100, 140), atol=4)  # grain of 64 pixels, 8 / 8
        tops.add(int(rows[0]))
        lefts.add(int(columns[0]))
    assert tops == set(range(12 - int(32 * SHIFT), 12 + int(32 * SHIFT) + 1))
    assert {min(lefts), max(lefts)} <= set(range(20 - int(48 * SHIFT), 20 + int(48 * SHIFT) + 1))
    assert len(lefts) > 6


def test_noisy_audio_keep_pitch_and_level_under_noise_of_the_stated_range() -> None:
    size = 8000
    tone = np.rint(8000 * np.sin(2 * np.pi * 440 * np.arange(size) / size)).astype(np.int16)
    made = noisy_audio(np.tile(tone, (200, 1)), np.random.default_rng(0))
    assert made.shape == (200, size)
    assert made.dtype == np.int16
    spectrum = np.abs(np.fft.rfft(made, axis=1)) ** 2  # whole turns a second: moving spreads no line
    assert (spectrum.argmax(axis=1) == 440).all()
    line = spectrum[:, 440].copy()
    np.testing.assert_allclose(10 * np.log10(line / np.abs(np.fft.rfft(tone)[440]) ** 2), 0, atol=0.5)
    spectrum[:, 440] = 0
    # The line's own bin holds a little of the noise too, where the noise falls with frequency.
    snr_db = 10 * np.log10(line / spectrum.sum(axis=1))
    low, high = SNR_DB
    assert snr_db.min() == pytest.approx(low, abs=1)
    assert snr_db.max() == pytest.approx(high, abs=1)
    phases = np.angle(np.fft.rfft(made, axis=1)[:, 440])
    assert abs(np.exp(1j * phases).mean()) < 0.25  # 200 phases by chance: 0.07


def test_noisy_audio_leave_silence_and_full_scale() -> None:
    silent = np.zeros((2, 4000), np.int16)
    np.testing.assert_array_equal(noisy_audio(silent, np.random.default_rng(0)), silent)
    loud = np.tile(np.array([32767, -32768], np.int16), (3, 2000))
    made = noisy_audio(loud, np.random.default_rng(0))
    assert (np.abs(np.diff(made.astype(int), axis=1)) > 32767).mean() > 0.99  # clipped, not wrapped


def test_augment_same_generator_gives_the_same() -> None:
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (4, 16, 16, 3), np.uint8)
    sound = rng.integers(-9000, 9000, (4, 2000)).astype(np.int16)
    before = frames.copy(), sound.copy()
    one, two = (
        (shift_frames(frames, generator), noisy_audio(sound, generator))
        for generator in (np.random.default_rng(5), np.random.default_rng(5))
    )
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)
    for now, then in zip((frames, sound), before, strict=True):
        np.testing.assert_array_equal(now, then)
