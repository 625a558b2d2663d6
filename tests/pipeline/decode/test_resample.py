"""The resamplers of published features: against their own outputs, and against an obvious loop."""

from __future__ import annotations

import math
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decode.audio import Resampler
from pipeline.decode.resample import resample, sinc_hann
from tests.pipeline import parity


def sound(shared: Path, source: str) -> tuple[np.ndarray, int]:
    samples, rate_hz = soundfile.read(shared / "data" / source, dtype="float32", always_2d=True)
    return samples.T, rate_hz


def in_blocks(samples: np.ndarray, from_hz: int, to_hz: int, resampler: str, chunk: int) -> np.ndarray:
    made = Resampler(from_hz=from_hz, to_hz=to_hz, res_type=resampler)
    out = []
    for low in range(0, samples.size, chunk):
        part = samples[low : low + chunk]
        out += [piece for piece, _ in made.push(part, np.ones(part.size, bool))]
    return np.concatenate([*out, *(piece for piece, _ in made.finish())])


def test_sinc_hann_equals_the_published(shared: Path) -> None:
    arrays, meta = parity.prepared(shared, "prep_imagebind_audio")
    for name, source in meta["sources"].items():
        samples, rate_hz = sound(shared, source)
        made = np.stack([sinc_hann(channel, rate_hz, 16000) for channel in samples])
        assert made.shape[1] == meta["clips"][name]["samples_16k"]
        np.testing.assert_allclose(made[:, :4000], arrays[f"resampled16k_head_{name}"], atol=1e-5)


def test_kaiser_best_equals_the_published(shared: Path) -> None:
    arrays, meta = parity.prepared(shared, "prep_vggish")
    source = meta["sources"]["dog_audio"]
    samples, rate_hz = sound(shared, source["source"])
    made = resample(samples.mean(axis=0), rate_hz, 16000, "kaiser_best")
    np.testing.assert_allclose(made[:4000], arrays["resampled16k_head_dog_audio"], atol=1e-4)


def slow_sinc_hann(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Sample by sample, from the definition."""
    count = -(-samples.size * to_hz // from_hz)
    slower_hz = 0.99 * min(from_hz, to_hz)
    made = np.zeros(count)
    for n in range(count):
        for k, value in enumerate(samples):
            t = slower_hz * (k / from_hz - n / to_hz)
            if abs(t) < 6:
                made[n] += value * np.sinc(t) * math.cos(math.pi * t / 12) ** 2
    return made * slower_hz / from_hz


@pytest.mark.parametrize(("from_hz", "to_hz"), [(44100, 16000), (8000, 16000), (16000, 44100), (48000, 16000)])
@pytest.mark.parametrize("size", [1, 37, 300])
def test_sinc_hann_equals_the_definition(from_hz: int, to_hz: int, size: int) -> None:
    noise = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    np.testing.assert_allclose(sinc_hann(noise, from_hz, to_hz), slow_sinc_hann(noise, from_hz, to_hz), atol=2e-6)


@pytest.mark.parametrize("resampler", ["sinc_hann", "kaiser_best"])
@pytest.mark.parametrize("from_hz", [44100, 48000, 22050])
def test_resampled_in_blocks_equals_the_whole(resampler: str, from_hz: int) -> None:
    noise = np.random.default_rng(0).standard_normal(from_hz * 9 + 17).astype(np.float32) * 0.3
    whole = resample(noise, from_hz, 16000, resampler)
    made = in_blocks(noise, from_hz, 16000, resampler, 4321)
    size = min(whole.size, made.size)
    assert abs(whole.size - made.size) <= 1
    np.testing.assert_allclose(made[:size], whole[:size], atol=2e-5)
    np.testing.assert_array_equal(in_blocks(noise, from_hz, 16000, resampler, 777), made)


@settings(max_examples=60)
@given(
    length=st.one_of(st.integers(1, 2000), st.integers(1, 60_000)),
    rates=st.tuples(*[st.sampled_from([8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000])] * 2),
    quality=st.sampled_from(["soxr_vhq", "soxr_hq", "soxr_mq"]),
)
def test_soxr_is_librosas_bit_for_bit(length: int, rates: tuple[int, int], quality: str) -> None:
    from_hz, to_hz = rates
    noise = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    want = librosa.resample(noise, orig_sr=from_hz, target_sr=to_hz, res_type=quality)
    made = resample(noise, from_hz, to_hz, quality)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, want)
