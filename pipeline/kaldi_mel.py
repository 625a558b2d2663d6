"""ImageBind's mel pictures of sound: Kaldi's filter bank, by kaldi-native-fbank. N samples, M bands, T frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16000
BANDS, FRAMES = 128, 204
# Of log-mel values in AudioSet, the published constants.
MEAN, DEVIATION = -4.268, 9.138


def mel_picture(samples_N: NDArray[np.float32]) -> NDArray[np.float32]:
    """The picture of one clip, as ImageBind was trained on.

    The clip's mean is taken off; Kaldi's log-mel frames (25 ms Hann windows every 10 ms, 128 bands from 20 Hz to
    8 kHz, pre-emphasis 0.97, each frame's mean taken off, no dither) are cut or padded with zeros to 204, and
    normalised after that: the padding becomes 0.467.

    Args:
        samples_N: mono float32 in [-1, 1] at 16 kHz (not scaled to int16).

    Returns:
        (128, 204) float32. kaldi-native-fbank differs from torchaudio's by up to 2.4e-3 before normalising.

    Source: ImageBind data.py, waveform2melspec.
    """
    import kaldi_native_fbank as knf

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
    bank.accept_waveform(RATE_HZ, samples_N - samples_N.mean(dtype=np.float32))
    bank.input_finished()
    mel_MT = np.zeros((BANDS, FRAMES), np.float32)
    for frame in range(min(bank.num_frames_ready, FRAMES)):
        mel_MT[:, frame] = bank.get_frame(frame)
    return (mel_MT - np.float32(MEAN)) / np.float32(DEVIATION)
