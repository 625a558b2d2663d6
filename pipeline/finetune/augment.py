"""Small random changes of frames and audio, so that towers learn from few videos which belong together, not which video
it was.

What frames and audio of one event have in common stays: no change of colour, size, loudness or pitch. Frames are
moved and grained; audio is moved and gets a noise floor of another level and colour (a video's own floor names the
video). Noise as in AudioCLIP's training (Guzhov et al. 2022, section 4.2: SNR 10 dB and more).

Shape suffixes: B rows, H W pixels, C colours, N samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Frames move by up to this share of their sides; what comes in is mirrored.
SHIFT = 1 / 8
# Deviation of the grain, in 8-bit steps.
GRAIN = 8.0
SNR_DB = (10.0, 50.0)
# The fall of the noise, in dB an octave; below the corner, a share of the rate (86 Hz at 44.1 kHz), it is flat.
SLOPE_DB = (0.0, 6.0)
CORNER = 1 / 512


def shift_frames(frames_BHWC: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Each frame moved and grained by chance; a new uint8 array of the same shape."""
    height, width = frames_BHWC.shape[1:3]
    rows, columns = int(height * SHIFT), int(width * SHIFT)
    # numpy cannot mirror more than a side has.
    padded = np.pad(frames_BHWC, ((0, 0), (rows, rows), (columns, columns), (0, 0)), mode="reflect")
    made = np.empty_like(frames_BHWC)
    for row, frame_HWC in enumerate(padded):
        top, left = rng.integers(2 * rows + 1), rng.integers(2 * columns + 1)
        grain = rng.standard_normal((height, width, 1), np.float32) * np.float32(rng.uniform(0, GRAIN))
        moved = frame_HWC[top : top + height, left : left + width] + grain
        made[row] = np.clip(np.rint(moved), 0, 255)
    return made


def noisy_audio(audio_BN: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.int16]:
    """Each waveform begun elsewhere (its end comes before its beginning) and under noise; a new int16 array.

    The noise lies `SNR_DB` below the audio's own RMS; silence stays silence.
    """
    size = audio_BN.shape[1]
    made = np.empty_like(audio_BN)
    octave = np.log2(np.maximum(np.fft.rfftfreq(size), CORNER) / CORNER)
    for row, audio_N in enumerate(audio_BN):
        moved_N = np.roll(audio_N, int(rng.integers(size))).astype(np.float32)
        fall_db, snr_db = rng.uniform(*SLOPE_DB), rng.uniform(*SNR_DB)
        spectrum = np.fft.rfft(rng.standard_normal(size, np.float32)) * 10 ** (-fall_db * octave / 20)
        noise_N = np.fft.irfft(spectrum, size)
        level = np.sqrt(np.mean(moved_N**2)) / max(float(np.sqrt(np.mean(noise_N**2))), 1e-12)
        made[row] = np.clip(np.rint(moved_N + noise_N * level * 10 ** (-snr_db / 20)), -32768, 32767)
    return made
