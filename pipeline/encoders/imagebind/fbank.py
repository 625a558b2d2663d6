"""ImageBind's log-mel spectrograms: Kaldi's filter bank, by kaldi-native-fbank.

Shape suffixes: S windows, N samples, M bands, T frames.
"""

from __future__ import annotations

import kaldi_native_fbank as knf
import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16000
BANDS, FRAMES = 128, 204
# Of log-mel values in AudioSet, the published constants.
MEAN, DEVIATION = -4.268, 9.138
# Audio of any length is heard as three clips of 2 s.
CLIPS, CLIP_SAMPLES = 3, 2 * RATE_HZ


def mel_inputs(samples_SN: NDArray[np.float32], real_SN: NDArray[np.bool_], kind: str) -> NDArray[np.float32]:
    """The spectrograms of each window, (n, K, 1, 128, 204) float32: K = 3 with "three", else 1.

    Args:
        samples_SN, real_SN: as `spectrogram.windows` gives them.
        kind: the setting `audio_clip`.
    """
    made = []
    for samples_N, real_N in zip(samples_SN, real_SN, strict=True):
        if kind == "three":
            # To where the audio ends: a file shorter than the window is heard as a file of its length.
            made.append(clip_mels(samples_N[: np.flatnonzero(real_N)[-1] + 1]))
        else:
            made.append(clip_mel(np.tile(samples_N, 2) if kind == "repeat" else samples_N)[None])
    return np.stack(made)[:, :, None]


def clip_mel(samples_N: NDArray[np.float32]) -> NDArray[np.float32]:
    """The spectrogram of one clip, as ImageBind was trained on.

    The clip's mean is taken off; Kaldi's log-mel frames (25 ms Hann windows every 10 ms, 128 bands from 20 Hz to
    8 kHz, pre-emphasis 0.97, each frame's mean taken off, no dither) are cut or padded with zeros to 204, and
    normalised after that: the padding becomes 0.467.

    Args:
        samples_N: mono float32 in [-1, 1] at 16 kHz (not scaled to int16).

    Returns:
        (128, 204) float32. kaldi-native-fbank differs from torchaudio's by up to 2.4e-3 before normalising.

    Source: ImageBind data.py, waveform2melspec.
    """
    return _log_mel(samples_N - samples_N.mean(dtype=np.float32))


def clip_mels(samples_N: NDArray[np.float32]) -> NDArray[np.float32]:
    """The spectrograms of three clips of 2 s, spread evenly from the audio's beginning to its end.

    Clip k begins at sample k * max(N - 32000, 0) / 2, rounded down; audio under 2 s is three times the same clip.
    Each clip's mean is taken off in place, as published: where clips overlap (audio under 6 s), a later one hears what
    the earlier left, a small step where that one ended. This moves a few frames by up to 0.017 and is part of the
    published numbers.

    Args:
        samples_N: as `clip_mel` takes them, of any length; left as they are.

    Returns:
        (3, 128, 204) float32.

    Source: ImageBind data.py, load_and_transform_audio_data.
    """
    heard_N = samples_N.copy()
    starts = [k * max(len(heard_N) - CLIP_SAMPLES, 0) // (CLIPS - 1) for k in range(CLIPS)]
    mels = []
    for start in starts:
        clip_N = heard_N[start : start + CLIP_SAMPLES]
        clip_N -= clip_N.mean(dtype=np.float32)
        mels.append(_log_mel(clip_N))
    return np.stack(mels)


def _log_mel(samples_N: NDArray[np.float32]) -> NDArray[np.float32]:
    """(128, 204) of a clip without its mean."""
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = RATE_HZ
    options.frame_opts.frame_length_ms = 25
    options.frame_opts.frame_shift_ms = 10
    options.frame_opts.window_type = "hanning"
    options.frame_opts.dither = 0.0
    options.frame_opts.preemph_coeff = 0.97
    options.frame_opts.remove_dc_offset = True
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = BANDS
    options.mel_opts.low_freq = 20.0
    options.mel_opts.high_freq = 0.0
    options.use_energy = False
    options.use_power = True
    options.use_log_fbank = True
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(RATE_HZ, samples_N)
    bank.input_finished()
    mel_MT = np.zeros((BANDS, FRAMES), np.float32)
    for frame in range(min(bank.num_frames_ready, FRAMES)):
        mel_MT[:, frame] = bank.get_frame(frame)
    return (mel_MT - np.float32(MEAN)) / np.float32(DEVIATION)
