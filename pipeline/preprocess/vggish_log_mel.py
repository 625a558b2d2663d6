"""VGGish's log-mel examples. N samples, T mel frames, M mel bands."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16000
EXAMPLE_FRAMES, MEL_BANDS = 96, 64
EXAMPLE_SAMPLES = 15600  # that 96 frames see: 0.975 s
_WINDOW, _HOP, _FFT = 400, 160, 512  # 25 ms, 10 ms
_LOW_HZ, _HIGH_HZ = 125.0, 7500.0
_OFFSET = 0.01  # in the logarithm


def examples(samples_N: NDArray[np.floating]) -> NDArray[np.float32]:
    """(n, 1, 96, 64) float32: the whole examples of 0.96 s, one after the other; the rest is dropped.

    Args:
        samples_N: mono in [-1, 1] at 16 kHz; 15,600 samples give the first example.

    Magnitudes (not powers) of 25 ms frames under a periodic Hann window every 10 ms, 64 triangles on HTK's mel scale
    from 125 to 7500 Hz, log(mel + 0.01). Computed in float64, as published.

    Source: AudioSet mel_features.py and vggish_params.py.
    """
    logmel_TM = log_mel(samples_N)
    count = len(logmel_TM) // EXAMPLE_FRAMES
    whole = logmel_TM[: count * EXAMPLE_FRAMES].reshape(count, 1, EXAMPLE_FRAMES, MEL_BANDS)
    return whole.astype(np.float32)


def examples_at(samples_N: NDArray[np.floating], begins: Sequence[int]) -> NDArray[np.float32]:
    """(n, 1, 96, 64) float32: the examples that begin at given samples.

    Those that begin whole mel frames apart are cut from one log-mel, which examples with a hop of their own (UnAV-100's
    0.32 s) share: a mel frame depends on its 25 ms alone, so it is the same in each.

    Args:
        samples_N: as `examples` takes them.
        begins: ascending, at least one; each leaves 15,600 samples.
    """
    first = begins[0]
    if any((begin - first) % _HOP for begin in begins):
        return np.concatenate([examples_at(samples_N, [begin]) for begin in begins])
    logmel_TM = log_mel(samples_N[first : begins[-1] + EXAMPLE_SAMPLES]).astype(np.float32)
    frames = [(begin - first) // _HOP for begin in begins]
    return np.stack([logmel_TM[frame : frame + EXAMPLE_FRAMES] for frame in frames])[:, None]


def log_mel(samples_N: NDArray[np.floating]) -> NDArray[np.float64]:
    """(T, 64) float64, one row every 10 ms."""
    if samples_N.size < _WINDOW:
        return np.zeros((0, MEL_BANDS))
    frames_TN = np.lib.stride_tricks.sliding_window_view(samples_N.astype(np.float64), _WINDOW)[::_HOP]
    hann_N = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)
    magnitude = np.abs(np.fft.rfft(frames_TN * hann_N, _FFT))
    return np.asarray(np.log(magnitude @ _bank() + _OFFSET))


@functools.cache
def _bank() -> NDArray[np.float64]:
    """(257, 64): triangles that are straight on the mel scale; nothing of 0 Hz."""

    def mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(1127.0 * np.log(1.0 + hz / 700.0))

    bins = mel(np.linspace(0.0, RATE_HZ / 2, _FFT // 2 + 1))[:, None]
    edges = np.linspace(mel(np.array(_LOW_HZ)), mel(np.array(_HIGH_HZ)), MEL_BANDS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bank = np.maximum(0.0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    bank[0] = 0.0
    return bank
