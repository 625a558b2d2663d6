"""Log-mel spectrograms against ImageBind's own, clip by clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.decode.resample import sinc_hann
from pipeline.encoders.imagebind.fbank import clip_mel, clip_mels
from tests.pipeline import parity


def _sound(shared: Path, source: str) -> np.ndarray:
    """The first channel at 16 kHz."""
    samples, rate_hz = soundfile.read(shared / "data" / source, dtype="float32", always_2d=True)
    return sinc_hann(np.ascontiguousarray(samples[:, 0]), rate_hz, 16000)


@pytest.mark.parametrize("name", ["dog_audio", "cat_3-95694-A-5"])
def test_clip_mels_equal_the_published(shared: Path, name: str) -> None:
    arrays, meta = parity.prepared(shared, "prep_imagebind_audio")
    samples = _sound(shared, meta["sources"][name])
    assert samples.size == meta["clips"][name]["samples_16k"]
    off = np.abs(clip_mels(samples) - arrays[f"mel_{name}"][:, 0])
    # Overlapped clips without the step that the earlier ones leave: 3e-3 to 1.7e-2.
    assert off[1:].max() <= 1e-3
    # Near silence (the dog's first half second) the filter banks' roundings differ by more.
    assert off.max() <= 1e-2
    assert off.mean() <= 1e-5


def test_clip_mels_leave_the_sound_as_it_is() -> None:
    samples = np.random.default_rng(0).standard_normal(48000).astype(np.float32) + np.float32(0.5)
    before = samples.copy()
    clip_mels(samples)
    np.testing.assert_array_equal(samples, before)


@pytest.mark.parametrize(("num_samples", "starts"), [(96000, (0, 32000, 64000)), (128001, (0, 48000, 96001))])
def test_clip_mels_of_a_sound_without_overlap_are_its_parts(num_samples: int, starts: tuple[int, ...]) -> None:
    samples = np.random.default_rng(1).standard_normal(num_samples).astype(np.float32)
    parts = np.stack([clip_mel(samples[start : start + 32000]) for start in starts])
    np.testing.assert_array_equal(clip_mels(samples), parts)


@pytest.mark.parametrize("num_samples", [32000, 16000, 100])
def test_clip_mels_of_two_seconds_or_less_are_one_clip_thrice(num_samples: int) -> None:
    samples = np.random.default_rng(2).standard_normal(num_samples).astype(np.float32)
    # A mean taken off twice is a rounding.
    np.testing.assert_allclose(clip_mels(samples), np.stack([clip_mel(samples)] * 3), atol=1e-4)


def test_clip_mel_padding_is_normalised_silence() -> None:
    made = clip_mel(np.random.default_rng(0).standard_normal(32000).astype(np.float32))
    assert made.shape == (128, 204)
    np.testing.assert_allclose(made[:, 198:], 4.268 / 9.138, rtol=1e-6)
