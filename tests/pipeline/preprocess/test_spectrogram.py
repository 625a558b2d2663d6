"""Windows, STFT and mel against librosa's whole-array results and plain loops."""

from __future__ import annotations

import warnings
from dataclasses import replace
from fractions import Fraction

import librosa
import numpy as np
import pytest

from catalog.grid import SegmentGrid
from pipeline.clips import Clips
from pipeline.preprocess import spectrogram

RULE = spectrogram.StftRule(rate_hz=16000, fft_size=512, hop_size=160, num_bands=40, low_hz=0.0, high_hz=8000.0)


def make_clips(*, count: int, first: int, start: int, samples: int, rate_hz: int, window_s: Fraction) -> Clips:
    """Sample n of the video's clock has the value n; each 7th is not real."""
    number_N = np.arange(start, start + samples)
    return Clips(
        video_id="v",
        grid=SegmentGrid(window_s=window_s, hop_s=window_s, count=first + count),
        first=first,
        frames_FHWC=np.zeros((0, 8, 8, 3), np.uint8),
        frame_index_SP=np.full((count, 1), -1, np.int32),
        samples_N=number_N.astype(np.float32),
        sample_valid_N=number_N % 7 != 0,
        samples_start=start,
        rate_hz=rate_hz,
    )


@pytest.mark.parametrize("window_s", [Fraction(1), Fraction(1, 3), Fraction(24, 25)])
@pytest.mark.parametrize("context_s", [Fraction(0), Fraction(1, 4)])
def test_windows_equal_a_slow_loop(window_s: Fraction, context_s: Fraction) -> None:
    clips = make_clips(count=3, first=2, start=150, samples=300, rate_hz=100, window_s=window_s)
    samples_SN, real_SN = spectrogram.windows(clips, context_s=context_s)
    for row in range(3):
        begin_s, end_s = (2 + row) * window_s - context_s, (3 + row) * window_s + context_s
        numbers = [n for n in range(-1000, 1000) if begin_s <= Fraction(n, 100) < end_s]
        known = [150 <= n < 450 and n % 7 != 0 for n in numbers]
        padding = samples_SN.shape[1] - len(numbers)
        assert padding in (0, 1)
        np.testing.assert_array_equal(real_SN[row], known + [False] * padding)
        np.testing.assert_array_equal(
            samples_SN[row], [n if k else 0 for n, k in zip(numbers, known, strict=True)] + [0] * padding
        )


def test_coverage_counts_real_samples_of_the_window() -> None:
    clips = make_clips(count=4, first=0, start=-50, samples=300, rate_hz=100, window_s=Fraction(1))
    # Segments 0, 1: all but each 7th of 100; 2: 50 samples there; 3: none.
    np.testing.assert_array_equal(spectrogram.coverage(clips, Fraction(1, 10)), [True, True, True, False])
    np.testing.assert_array_equal(spectrogram.coverage(clips, Fraction(1, 2)), [True, True, False, False])
    np.testing.assert_array_equal(spectrogram.coverage(clips, Fraction(86, 100)), [False, True, False, False])


def test_power_of_a_full_scale_sine_is_one() -> None:
    tone_N = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)  # bin 32 exactly
    power_BT = spectrogram.power(tone_N[None], RULE)[0]
    assert power_BT.shape == (257, RULE.num_frames(16000))
    np.testing.assert_allclose(power_BT[32, 5:-5], 1, rtol=1e-4)
    assert power_BT[:, 5:-5].argmax(axis=0).tolist() == [32] * (power_BT.shape[1] - 10)


def test_mel_equals_librosa_up_to_scale() -> None:
    samples_SN = (0.1 * np.random.default_rng(0).standard_normal((3, 16000))).astype(np.float32)
    ours = spectrogram.mel(spectrogram.power(samples_SN, RULE), RULE)
    theirs = librosa.feature.melspectrogram(
        y=samples_SN, sr=16000, n_fft=512, hop_length=160, n_mels=40, fmin=0, fmax=8000, pad_mode="constant"
    )
    np.testing.assert_allclose(ours, theirs / 128**2, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("samples", [100, 511, 512, 513, 4000, 16000, 16001])
@pytest.mark.parametrize(("fft", "hop"), [(512, 160), (1024, 256), (400, 400), (64, 100)])
def test_transform_is_librosas_to_the_bit(fft: int, hop: int, samples: int) -> None:
    rule = replace(RULE, fft_size=fft, hop_size=hop)
    samples_SN = np.random.default_rng(0).standard_normal((3, max(samples, fft))).astype(np.float32)
    theirs = librosa.stft(samples_SN, n_fft=fft, hop_length=hop, center=True)
    scale = np.float32((4.0 / fft) ** 2)
    np.testing.assert_array_equal(spectrogram.power(samples_SN, rule), (theirs.real**2 + theirs.imag**2) * scale)


@pytest.mark.parametrize(("low_hz", "high_hz"), [(0.0, 8000.0), (125.0, 7500.0), (1000.0, 4000.0), (20.0, 900.0)])
@pytest.mark.parametrize(("fft", "bands"), [(512, 40), (2048, 128), (400, 64)])
def test_filter_bank_is_librosas_to_the_bit(fft: int, bands: int, low_hz: float, high_hz: float) -> None:
    rule = replace(RULE, fft_size=fft, num_bands=bands, low_hz=low_hz, high_hz=high_hz)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # empty bands
        theirs = librosa.filters.mel(sr=16000, n_fft=fft, n_mels=bands, fmin=low_hz, fmax=high_hz)
    np.testing.assert_array_equal(spectrogram.filter_bank(rule), theirs)


def test_mel_rows_do_not_depend_on_their_neighbours() -> None:
    samples_SN = (0.1 * np.random.default_rng(1).standard_normal((9, 16000))).astype(np.float32)
    whole = spectrogram.mel(spectrogram.power(samples_SN, RULE), RULE)
    for low, high in ((0, 1), (1, 2), (2, 5), (5, 9)):
        part = spectrogram.mel(spectrogram.power(samples_SN[low:high], RULE), RULE)
        np.testing.assert_array_equal(part, whole[low:high])


def test_power_of_a_window_shorter_than_the_transform_is_padded() -> None:
    power_SBT = spectrogram.power(np.ones((2, 100), np.float32), RULE)
    padded_SN = np.zeros((2, 512), np.float32)
    padded_SN[:, :100] = 1
    np.testing.assert_array_equal(power_SBT, spectrogram.power(padded_SN, RULE))
    assert power_SBT.shape[2] == RULE.num_frames(100)


def test_decibels_stop_at_the_floor() -> None:
    levels = spectrogram.decibels(np.array([0, 1e-12, 1e-10, 1e-3, 1], np.float32))
    np.testing.assert_allclose(levels, [-100, -100, -100, -30, 0], atol=1e-4)


@pytest.mark.parametrize("change", [{"hop_size": 0}, {"low_hz": 9000.0}, {"high_hz": 9000.0}])
def test_rule_that_cannot_be_raises(change: dict[str, float]) -> None:
    fields = {"rate_hz": 16000, "fft_size": 512, "hop_size": 160, "num_bands": 40, "low_hz": 0.0, "high_hz": 8000.0}
    with pytest.raises(ValueError, match="an STFT rule needs"):
        spectrogram.StftRule(**(fields | change))  # type: ignore[arg-type]  # whole numbers stay whole
