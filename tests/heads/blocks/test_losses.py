"""Losses: slow loops over segments; what is masked weighs nothing, NaN there included."""

from __future__ import annotations

import math

import numpy as np
import torch

from heads.blocks.losses import binary_cross_entropy, cross_entropy


def test_cross_entropy_masked_batch_equals_slow_loop() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 5))
    classes = rng.integers(0, 5, size=(3, 4))
    mask = rng.random((3, 4)) < 0.6
    logits_with_nan = np.where(mask[..., None], logits, np.nan)
    sums, counts = cross_entropy(torch.tensor(logits_with_nan), torch.tensor(classes), torch.tensor(mask))
    for b in range(3):
        wanted = 0.0
        for t in range(4):
            if mask[b, t]:
                wanted += math.log(sum(math.exp(x) for x in logits[b, t])) - logits[b, t, classes[b, t]]
        assert math.isclose(sums[b].item(), wanted, rel_tol=1e-9)
        assert counts[b].item() == mask[b].sum()


def test_binary_cross_entropy_masked_batch_equals_slow_loop() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 3, 4))
    labels = rng.random((2, 3, 4)) < 0.3
    mask = np.array([[True, True, False], [True, False, False]])
    sums, counts = binary_cross_entropy(torch.tensor(logits), torch.tensor(labels), torch.tensor(mask))
    for b in range(2):
        wanted = 0.0
        for t in range(3):
            for k in range(4):
                p = 1 / (1 + math.exp(-logits[b, t, k]))
                wanted -= mask[b, t] * math.log(p if labels[b, t, k] else 1 - p)
        assert math.isclose(sums[b].item(), wanted, rel_tol=1e-9)
    assert counts.tolist() == [2, 1]
