"""Counts over the judged segments: confusion, per-class recall and precision, the most frequent confusions.

K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.report.evidence import Judged


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
    from heads.metrics import ave

    true, predicted = (
        np.concatenate([hot_TK.argmax(axis=1) for hot_TK in hots] or [np.zeros(0, dtype=np.int64)])
        for hots in ([item.true_TK for item in items], [item.predicted_TK for item in items])
    )
    if not len(true):
        return np.zeros((num_classes, num_classes), dtype=np.int64)
    return ave.confusion(predicted, true, num_classes)


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
