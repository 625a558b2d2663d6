"""Segment-level average precision against a slow loop over thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from heads.metrics.segments import average_precision, mean_average_precision, micro_f1


def slow_average_precision(scores: list[float], true: list[bool]) -> float:
    """Sum over the distinct scores, highest first, of precision x gain in recall."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        kept = [t for s, t in zip(scores, true, strict=True) if s >= threshold]
        recall = sum(kept) / sum(true)
        total += sum(kept) / len(kept) * (recall - recall_before)
        recall_before = recall
    return total


def test_average_precision_scores_with_ties_equals_slow_loop() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 12, size=(60, 4)) / 12
    true = rng.random((60, 4)) < 0.3
    true[:, 2] = False
    got = average_precision(scores, true)
    assert np.isnan(got[2])
    wanted = [slow_average_precision(scores[:, k].tolist(), true[:, k].tolist()) for k in (0, 1, 3)]
    np.testing.assert_allclose(got[[0, 1, 3]], wanted, rtol=1e-12)
    assert mean_average_precision(scores, true) == pytest.approx(np.mean(wanted), rel=1e-12)


def test_mean_average_precision_no_label_anywhere_raises() -> None:
    with pytest.raises(ValueError, match="no segment has a class"):
        mean_average_precision(np.zeros((3, 2)), np.zeros((3, 2), dtype=bool))


def test_average_precision_nan_score_raises() -> None:
    with pytest.raises(ValueError, match="finite"):
        average_precision(np.array([[np.nan]]), np.array([[True]]))


def test_micro_f1_counts_over_all_classes() -> None:
    predicted = np.array([[1, 1, 0], [0, 0, 1]], dtype=bool)
    true = np.array([[1, 0, 0], [1, 0, 1]], dtype=bool)
    assert micro_f1(predicted, true) == 2 * 2 / (2 * 2 + 1 + 1)
    assert micro_f1(np.zeros((2, 2), dtype=bool), np.zeros((2, 2), dtype=bool)) == 1
