"""The resamplers that published features were made with. N samples."""

from __future__ import annotations

import functools
import math

import numpy as np
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.float32]

# torchaudio's `sinc_interp_hann` with its default settings.
SINC_WIDTH, SINC_ROLLOFF = 6, 0.99


def resample(samples_N: Samples, from_hz: int, to_hz: int, resampler: str) -> Samples:
    """The audio at another rate, its first sample in place.

    Args:
        resampler: "soxr_vhq", "soxr_hq", "soxr_mq" (librosa), "kaiser_best" (resampy, by librosa) or "sinc_hann"
            (torchaudio's default, which ImageBind's features were made with).
    """
    if resampler == "sinc_hann":
        return sinc_hann(samples_N, from_hz, to_hz)
    if resampler.startswith("soxr"):
        return _soxr(samples_N, from_hz, to_hz, resampler)
    import librosa  # here: its first resampling imports numba and scipy, 3 s of a CPU and 200 MB

    made: Samples = librosa.resample(samples_N, orig_sr=from_hz, target_sr=to_hz, res_type=resampler)
    return made


def _soxr(samples_N: Samples, from_hz: int, to_hz: int, quality: str) -> Samples:
    """What `librosa.resample` makes of the same, bit for bit, in a decoding child that need not import it."""
    if from_hz == to_hz:
        return samples_N
    made_N: Samples = soxr.resample(samples_N, from_hz, to_hz, quality=quality)
    count = math.ceil(len(samples_N) * (to_hz / from_hz))
    return np.pad(made_N[:count], (0, max(0, count - len(made_N))))


def sinc_hann(samples_N: Samples, from_hz: int, to_hz: int) -> Samples:
    """torchaudio's resampling: a sinc of 6 zero crossings under a squared cosine, zeros beyond both ends.

    Returns:
        float32, ceil(N to / from) samples. Each is a weighted sum of its neighbours alone, so pieces with enough
        context equal the whole.
    """
    divisor = math.gcd(from_hz, to_hz)
    step, phases = from_hz // divisor, to_hz // divisor
    if step == phases:
        return samples_N
    kernel_KP, width = _kernel(step, phases)
    count = -(-samples_N.size // step)
    padded_N = np.zeros(count * step + kernel_KP.shape[0], np.float32)
    padded_N[width : width + samples_N.size] = samples_N
    frames_FK = np.lib.stride_tricks.sliding_window_view(padded_N, kernel_KP.shape[0])[::step][:count]
    made_FP = np.ascontiguousarray(frames_FK) @ kernel_KP
    return np.asarray(made_FP.reshape(-1)[: -(-samples_N.size * phases // step)], np.float32)


@functools.lru_cache(maxsize=8)
def _kernel(step: int, phases: int) -> tuple[Samples, int]:
    """(K, phases) weights of the samples around each input step, and how many lie before it."""
    slower = min(step, phases) * SINC_ROLLOFF
    width = math.ceil(SINC_WIDTH * step / slower)
    at_K = np.arange(-width, width + step, dtype=np.float64) / step
    t_KP = (at_K[:, None] - np.arange(phases) / phases) * slower
    t_KP = np.clip(t_KP, -SINC_WIDTH, SINC_WIDTH)
    window_KP = np.cos(math.pi * t_KP / SINC_WIDTH / 2) ** 2
    return (np.sinc(t_KP) * window_KP * (slower / step)).astype(np.float32), width
