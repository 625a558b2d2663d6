"""Multi-label segments: average precision a class and its mean, for heads that score segments and not events.

This is not the official protocol of UnAV-100, which matches predicted intervals by tIoU (`heads/metrics/unav100.py`):
numbers of the two are not comparable.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def average_precision(scores_SK: NDArray[np.floating], true_SK: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(K,) float64 in [0, 1]: each class's average precision over S segments; NaN where it is never true.

    Average precision is the sum of precision x recall step, not interpolated; equal scores are one step
    (scikit-learn's definition), so a constant score has the class's share of segments.

    Raises:
        ValueError: shapes differ or a score is not finite.
    """
    if scores_SK.shape != true_SK.shape or scores_SK.ndim != 2:
        raise ValueError(f"scores and truth must both be (segments, classes), got {scores_SK.shape}, {true_SK.shape}")
    if not np.isfinite(scores_SK).all():
        raise ValueError("scores must be finite")
    present_K = true_SK.any(axis=0)
    precision_K = np.full(true_SK.shape[1], np.nan)
    for k in np.flatnonzero(present_K):
        # The mean over true segments of the precision at their score: two sorts, six times as fast as scikit-learn,
        # which lets training ask for it every epoch.
        all_S = np.sort(scores_SK[:, k])
        true_P = np.sort(scores_SK[true_SK[:, k], k])
        hits_P = len(true_P) - np.searchsorted(true_P, true_P, side="left")
        precision_K[k] = np.mean(hits_P / (len(all_S) - np.searchsorted(all_S, true_P, side="left")))
    return precision_K


def mean_average_precision(scores_SK: NDArray[np.floating], true_SK: NDArray[np.bool_]) -> float:
    """The mean of `average_precision` over the classes that occur.

    Raises:
        ValueError: as above, or no class occurs.
    """
    precision_K = average_precision(scores_SK, true_SK)
    if np.isnan(precision_K).all():
        raise ValueError("no segment has a class: there is no average precision")
    return float(np.nanmean(precision_K))


def micro_f1(predicted_SK: NDArray[np.bool_], true_SK: NDArray[np.bool_]) -> float:
    """2TP / (2TP + FP + FN) over all segments and classes; 1 where nothing is true and nothing is predicted."""
    hits = int((predicted_SK & true_SK).sum())
    total = int(predicted_SK.sum()) + int(true_SK.sum())
    return 2 * hits / total if total else 1.0
