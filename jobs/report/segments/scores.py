"""Counts over the judged segments: confusion, per-class recall and precision, the most frequent confusions.

K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from heads.evaluation.protocol import class_metrics
from heads.evaluation.run_filter import filter_runs
from heads.metrics import ave
from jobs.report.reported_run import Judged


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class: recall is NaN without true segments, precision NaN where it was never predicted."""

    label: str
    support: int
    predicted: int
    recall: float
    precision: float


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """`count` segments of `true` were called `predicted`: `share` of all segments of `true`."""

    true: str
    predicted: str
    count: int
    share: float


def confusion(items: Sequence[Judged], num_classes: int) -> NDArray[np.int64]:
    """(K, K) int64 segments, rows the truth, columns the prediction, of items with one class a segment."""

    true, predicted = (
        np.concatenate([hot_TK.argmax(axis=1) for hot_TK in hots] or [np.zeros(0, dtype=np.int64)])
        for hots in ([item.true_TK for item in items], [item.predicted_TK for item in items])
    )
    if not len(true):
        return np.zeros((num_classes, num_classes), dtype=np.int64)
    return ave.confusion(predicted, true, num_classes)


def measures(items: Sequence[Judged], num_classes: int) -> dict[str, float]:
    """The data set's measures of items with one class a segment, counted anew from their predictions; by metric.

    Args:
        num_classes: background included.
    """

    if not any(item.num_segments for item in items):
        return {}
    predicted_NT, true_NT, counted_NT = stacked(items)
    known = all(item.seen is not None for item in items)
    seen_N = np.array([item.seen is True for item in items]) if known else None
    return class_metrics(predicted_NT, true_NT, counted_NT, background=num_classes - 1, seen_N=seen_N)


def smoothed(items: Sequence[Judged], minimum: int) -> list[Judged]:
    """Items with one class a segment after the run filter, which leaves segments without features as they are.

    A segment whose class the filter changed has no score.
    """

    if not items:
        return []
    predicted_NT, _, counted_NT = stacked(items)
    features_NT = np.zeros(counted_NT.shape, dtype=np.bool_)
    for features_T, item in zip(features_NT, items, strict=True):
        features_T[: item.num_segments] = item.features_T
    filtered_NT = filter_runs(predicted_NT, minimum=minimum, mask_NT=features_NT)
    return [
        replace(
            item,
            predicted_TK=filtered_T[: item.num_segments, None] == np.arange(item.true_TK.shape[1]),
        )
        for item, filtered_T in zip(items, filtered_NT, strict=True)
    ]


def stacked(items: Sequence[Judged]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Predicted and true classes, int64 (N, T), and which segments there are, bool (N, T); of one class a segment."""
    longest = max((item.num_segments for item in items), default=0)
    predicted_NT, true_NT = np.zeros((2, len(items), longest), dtype=np.int64)
    counted_NT = np.zeros((len(items), longest), dtype=np.bool_)
    for n, item in enumerate(items):
        predicted_NT[n, : item.num_segments] = item.predicted_TK.argmax(axis=1)
        true_NT[n, : item.num_segments] = item.true_TK.argmax(axis=1)
        counted_NT[n, : item.num_segments] = True
    return predicted_NT, true_NT, counted_NT


def row_shares(counts_KK: NDArray[np.int64]) -> NDArray[np.float64]:
    """(K, K) float64, each row divided by its sum; NaN rows where a class has no true segment."""
    support_K1 = counts_KK.sum(axis=1, keepdims=True)
    shares_KK = np.full(counts_KK.shape, np.nan)
    np.divide(counts_KK, support_K1, out=shares_KK, where=support_K1 > 0)
    return shares_KK


def class_scores(items: Iterable[Judged], labels: Sequence[str]) -> list[ClassScore]:
    """One row a class, in the order of `labels`."""
    support_K, predicted_K, hits_K = np.zeros((3, len(labels)), dtype=np.int64)
    for item in items:
        support_K += item.true_TK.sum(axis=0)
        predicted_K += item.predicted_TK.sum(axis=0)
        hits_K += (item.true_TK & item.predicted_TK).sum(axis=0)
    return [
        ClassScore(
            label=label,
            support=int(support_K[k]),
            predicted=int(predicted_K[k]),
            recall=float(hits_K[k] / support_K[k]) if support_K[k] else math.nan,
            precision=float(hits_K[k] / predicted_K[k]) if predicted_K[k] else math.nan,
        )
        for k, label in enumerate(labels)
    ]


def top_mistakes(counts_KK: NDArray[np.int64], labels: Sequence[str], num: int) -> list[Mistake]:
    """The `num` most frequent confusions, ties in class order."""
    support_K = counts_KK.sum(axis=1)
    pairs = [
        (int(counts_KK[i, j]), i, j)
        for i in range(len(labels))
        for j in range(len(labels))
        if i != j and counts_KK[i, j] > 0
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    return [
        Mistake(true=labels[i], predicted=labels[j], count=count, share=count / int(support_K[i]))
        for count, i, j in pairs[:num]
    ]
