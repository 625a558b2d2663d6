"""Windows of audio to log-mel spectrograms, one window independent of the next, bit for bit.

librosa's own mel projection and decibels look at the whole array (one matrix product over all windows; `top_db` below
the loudest of all), so a value could depend on its neighbours in the batch. Here all is done window by window. The
short-time Fourier transform and the filter bank are librosa's to the bit (as the tests compare them), written out
because librosa's first call costs a process 3 s of a CPU: numba, scipy.signal and scipy.stats are imported for it.

Shape suffixes: S windows, N samples a window, B frequency bins, M mel bands, T STFT frames.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from catalog.grid import sample_at
from pipeline.clips import Clips

# Power below this is silence: -100 dB with full scale near 0 dB. Far under 16-bit noise, so digital silence and
# hiss differ, and log 0 never happens.
POWER_FLOOR = 1e-10


@dataclass(frozen=True, kw_only=True)
class StftRule:
    """How audio becomes STFT frames: Hann window, centred, zeros beyond both ends.

    Attributes:
        rate_hz: of the samples.
        fft_size, hop_size: samples a frame, samples between frames.
        num_bands: M.
        low_hz, high_hz: edges of the mel filter bank.
    """

    rate_hz: int
    fft_size: int
    hop_size: int
    num_bands: int
    low_hz: float
    high_hz: float

    def __post_init__(self) -> None:
        if min(self.rate_hz, self.fft_size, self.hop_size, self.num_bands) < 1:
            raise ValueError(f"an STFT rule needs whole numbers of at least 1, got {self}")
        if not 0 <= self.low_hz < self.high_hz <= self.rate_hz / 2:
            raise ValueError(f"an STFT rule needs 0 <= low_hz < high_hz <= rate_hz / 2, got {self}")

    def num_frames(self, num_samples: int) -> int:
        """T for a window of `num_samples`."""
        return 1 + max(num_samples, self.fft_size) // self.hop_size


def windows(clips: Clips, *, context_s: Fraction = Fraction(0)) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The samples of each segment, cut on the grid and padded with zeros to one length.

    Args:
        clips: with audio (rate_hz above 0).
        context_s: how much to take on both sides, beyond the window.

    Returns:
        samples_SN float32 and whether each is real, bool (S, N); N = ceil((window + 2 context) * rate). A sample is
        real where the clips have it and say so; others are 0.
    """
    grid, rate_hz = clips.grid, clips.rate_hz
    size = sample_at(grid.window_s + 2 * context_s, rate_hz)
    samples_SN = np.zeros((clips.count, size), np.float32)
    real_SN = np.zeros((clips.count, size), np.bool_)
    for row in range(clips.count):
        segment = clips.first + row
        begin = sample_at(grid.start_s(segment) - context_s, rate_hz)
        end = min(sample_at(grid.end_s(segment) + context_s, rate_hz), begin + size)
        low = max(begin, clips.samples_start)
        high = min(end, clips.samples_start + clips.samples_N.size)
        if low < high:
            there, here = slice(low - clips.samples_start, high - clips.samples_start), slice(low - begin, high - begin)
            real_SN[row, here] = clips.sample_valid_N[there]
            samples_SN[row, here] = np.where(real_SN[row, here], clips.samples_N[there], np.float32(0))
    return samples_SN, real_SN


def real_spans(clips: Clips, rows: NDArray[np.intp]) -> list[NDArray[np.float32]]:
    """The windows of segments `rows`, each from its first real sample to its last; what is missing in between is 0.

    Args:
        clips: with audio.
        rows: segments with at least one real sample.
    """
    samples_SN, real_SN = windows(clips)
    spans = [np.flatnonzero(real_N) for real_N in real_SN[rows]]
    return [samples_N[span[0] : span[-1] + 1] for samples_N, span in zip(samples_SN[rows], spans, strict=True)]


def coverage(clips: Clips, min_coverage: Fraction) -> NDArray[np.bool_]:
    """Which segments hold enough audio.

    Returns:
        bool (S,): the share of real samples in the segment's own window (context left out) is at least `min_coverage`.
    """
    enough_S = np.zeros(clips.count, np.bool_)
    for row in range(clips.count):
        window = clips.window_samples(clips.first + row)
        real = int(clips.sample_valid_N[max(window.start, 0) : max(window.stop, 0)].sum())
        # A window shorter than the step between samples may hold none at all: nothing to hear.
        enough_S[row] = real > 0 and real >= min_coverage * (window.stop - window.start)
    return enough_S


def power(samples_SN: NDArray[np.float32], rule: StftRule) -> NDArray[np.float32]:
    """|STFT|^2 of each window alone, scaled so that a full-scale sine has power 1 in its bin.

    Args:
        samples_SN: mono, about [-1, 1]; shorter windows than `fft_size` are padded with zeros.
        rule: sizes.

    Returns:
        float32 (S, B, T), B = fft_size / 2 + 1, T = 1 + N // hop_size.
    """
    missing = rule.fft_size - samples_SN.shape[1]
    if missing > 0:
        samples_SN = np.pad(samples_SN, ((0, 0), (0, missing)))
    spectrum_STB = _stft(samples_SN, rule)
    # A sine of amplitude 1 gives |X| = sum(Hann) / 2 = fft_size / 4.
    scale = np.float32((4.0 / rule.fft_size) ** 2)
    power_STB = (spectrum_STB.real**2 + spectrum_STB.imag**2) * scale
    return np.asarray(power_STB.transpose(0, 2, 1), np.float32)


def _stft(samples_SN: NDArray[np.float32], rule: StftRule) -> NDArray[np.complex64]:
    """`librosa.stft` of each window: Hann, centred, zeros beyond both ends; computed in double; complex64 (S, T, B)."""
    half = rule.fft_size // 2
    # Periodic: one sample longer, whose last is left out.
    hann_N = 0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, rule.fft_size + 1))[:-1]
    padded_SN = np.pad(samples_SN, ((0, 0), (half, half)))
    frames_STN = np.lib.stride_tricks.sliding_window_view(padded_SN, rule.fft_size, axis=1)[:, :: rule.hop_size]
    spectrum_STB = np.empty((*frames_STN.shape[:2], half + 1), np.complex64)
    for row, frames_TN in enumerate(frames_STN):
        spectrum_STB[row] = np.fft.rfft(hann_N * frames_TN)
    return spectrum_STB


def mel(power_SBT: NDArray[np.float32], rule: StftRule) -> NDArray[np.float32]:
    """Mel-band power, float32 (S, M, T): librosa's Slaney filter bank, applied to one window at a time."""
    bank_MB = filter_bank(rule)
    mel_SMT = np.empty((power_SBT.shape[0], bank_MB.shape[0], power_SBT.shape[2]), np.float32)
    for row in range(power_SBT.shape[0]):
        # The product's shape is the same in every call, so its rounding is too.
        np.matmul(bank_MB, np.ascontiguousarray(power_SBT[row]), out=mel_SMT[row])
    return mel_SMT


@functools.cache
def filter_bank(rule: StftRule) -> NDArray[np.float32]:
    """`librosa.filters.mel`: triangles on Slaney's mel scale, each of area 1; float32 (M, B)."""
    bin_hz_B = np.fft.rfftfreq(rule.fft_size, 1 / rule.rate_hz)
    # Each band rises from its left neighbour's centre and falls to its right one's.
    centre_hz = _hz(np.linspace(_slaney(rule.low_hz), _slaney(rule.high_hz), rule.num_bands + 2))
    width_hz = np.diff(centre_hz)
    from_centre_hz = np.subtract.outer(centre_hz, bin_hz_B)
    rising = -from_centre_hz[:-2] / width_hz[:-1, None]
    falling = from_centre_hz[2:] / width_hz[1:, None]
    bank_MB: NDArray[np.float32] = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    bank_MB *= (2.0 / (centre_hz[2:] - centre_hz[:-2]))[:, None]
    return bank_MB


# Slaney's scale: even steps below 1 kHz, a constant ratio above it (6.4 in 27 steps).
_STEP_HZ = 200.0 / 3
_KNEE_HZ = 1000.0
_KNEE = _KNEE_HZ / _STEP_HZ
_LOG_STEP = np.log(6.4) / 27.0


def _slaney(hz: float) -> float:
    """A frequency on Slaney's mel scale."""
    return float(_KNEE + np.log(hz / _KNEE_HZ) / _LOG_STEP) if hz >= _KNEE_HZ else hz / _STEP_HZ


def _hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The frequencies of places on the scale."""
    above = mels >= _KNEE
    return np.where(above, _KNEE_HZ * np.exp(_LOG_STEP * (np.where(above, mels, _KNEE) - _KNEE)), _STEP_HZ * mels)


def decibels(power_: NDArray[np.float32]) -> NDArray[np.float32]:
    """10 log10(max(power, POWER_FLOOR)), float32 of the same shape; never below -100 dB, never infinite."""
    return np.asarray(np.float32(10) * np.log10(np.maximum(power_, np.float32(POWER_FLOOR))), np.float32)
