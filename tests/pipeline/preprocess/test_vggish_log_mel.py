"""VGGish's examples at a hop of their own, against each by itself; the front end itself is tested with the network."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.preprocess.vggish_log_mel import EXAMPLE_SAMPLES, examples, examples_at


@pytest.mark.parametrize(
    "begins",
    [[0], [0, 5120, 10240], [7, 5127, 5447], [100, 250, 16000], [160 * k for k in range(20)]],
    ids=["one", "a third", "not from 0", "between mel frames", "every frame"],
)
def test_examples_at_equal_each_by_itself(begins: list[int]) -> None:
    samples = np.random.default_rng(0).standard_normal(32000).astype(np.float32) * 0.1
    made = examples_at(samples, begins)
    assert made.shape == (len(begins), 1, 96, 64)
    assert made.dtype == np.float32
    want = np.concatenate([examples(samples[begin : begin + EXAMPLE_SAMPLES]) for begin in begins])
    # Rows of a matrix product may be rounded otherwise in a larger one, at the 16th digit: seldom the 7th too.
    np.testing.assert_allclose(made, want, rtol=3e-7, atol=3e-7)
    assert (made == want).mean() > 0.999


def test_an_example_needs_15600_samples() -> None:
    assert len(examples(np.zeros(EXAMPLE_SAMPLES))) == 1
    assert len(examples(np.zeros(EXAMPLE_SAMPLES - 1))) == 0
