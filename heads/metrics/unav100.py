"""UnAV-100's protocol: mean average precision of detected events at nine temporal overlaps. Times in seconds.

N events of all videos together, M predictions, T thresholds, K classes of the ground truth.

The rule, a class: predictions of all videos in descending score; each takes the event of its video, not taken yet, that
it overlaps most, and is right if the overlap reaches the threshold. Average precision is the area under the precision's
envelope (VOC 2011), 0 without predictions; the mean is over classes. As published, and kept here:

* thresholds are `numpy.linspace(0.1, 0.9, 9)`: the third is 0.30000000000000004, so an overlap of exactly 0.3 misses;
* an event of the same class whose ends both lie within 1 ms of an earlier one's is dropped;
* classes are renumbered by rank among those of the ground truth, and a predicted label that the ground truth does not
  have keeps its number: it counts against the class renumbered to it (no such label on the whole test split);
* an event and a prediction without length have an overlap of 0 / 0, which is not below any threshold: such a prediction
  is right anywhere in the video. Never predict an event without length.

Matches in different (video, class) pairs do not touch each other, so the n-th predictions of all pairs are matched at
once, at all thresholds; predictions that reach no event's lowest threshold are never looked at.

Source: UnAV's and ActionFormer's metrics.py (ANETdetection), after ActivityNet's eval_detection.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

TIOUS: NDArray[np.float64] = np.linspace(0.1, 0.9, 9)

# Both ends of a duplicate lie so close, in seconds.
_SAME_S = 1e-3

# Which of equal scores (or equal overlaps) comes first: the later row, or whichever NumPy's unstable sort puts there.
Ties = Literal["later", "numpy"]


@dataclass(frozen=True, kw_only=True)
class EventTable:
    """Events of many videos as columns.

    Attributes:
        item_N: int64, whose events they are: any number a video.
        start_N, end_N: float64 seconds.
        label_N: int64 classes.
        score_N: float64, of predictions; None for the ground truth.
    """

    item_N: NDArray[np.int64]
    start_N: NDArray[np.float64]
    end_N: NDArray[np.float64]
    label_N: NDArray[np.int64]
    score_N: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        columns = {name: column for name, column in vars(self).items() if column is not None}
        shapes = {name: column.shape for name, column in columns.items()}
        if set(shapes.values()) != {(len(self.item_N),)}:
            raise ValueError(f"an event table needs columns of one length, got {shapes}")
        for name in ("start_N", "end_N", "score_N"):
            if name in columns and np.isnan(columns[name]).any():
                raise ValueError(f"{name} must not be NaN; {int(np.isnan(columns[name]).sum())} events have one")

    def __len__(self) -> int:
        return len(self.item_N)

    @classmethod
    def of_items(
        cls,
        times: Sequence[NDArray[np.floating]],
        labels: Sequence[NDArray[np.int64]],
        scores: Sequence[NDArray[np.floating]] | None = None,
    ) -> EventTable:
        """Of V videos, numbered in the order given: each one's (E, 2) seconds, (E,) classes and, if any, scores."""
        times_N2 = np.concatenate([np.zeros((0, 2)), *times])
        return cls(
            item_N=np.repeat(np.arange(len(labels)), [len(one) for one in labels]),
            start_N=times_N2[:, 0],
            end_N=times_N2[:, 1],
            label_N=np.concatenate([np.zeros(0, dtype=np.int64), *labels]),
            score_N=None if scores is None else np.concatenate([np.zeros(0), *scores]).astype(np.float64),
        )


@dataclass(frozen=True, kw_only=True)
class DetectionScore:
    """What the protocol prints, as shares of 1.

    Attributes:
        tious_T: the thresholds.
        ap_TK: average precision of each class.
        label_K: the classes of the ground truth, ascending.
    """

    tious_T: NDArray[np.float64]
    ap_TK: NDArray[np.float64]
    label_K: NDArray[np.int64]

    def of_classes(self, chosen_K: NDArray[np.bool_]) -> DetectionScore:
        """The score of some of the classes."""
        return replace(self, ap_TK=self.ap_TK[:, chosen_K], label_K=self.label_K[chosen_K])

    @property
    def map_T(self) -> NDArray[np.float64]:
        """The mean over classes at each threshold."""
        return np.asarray(self.ap_TK.mean(axis=1))

    @property
    def average(self) -> float:
        """The mean over all thresholds: what is called average mAP (0.1 to 0.9)."""
        return float(self.map_T.mean())

    @property
    def average_from_half(self) -> float:
        """The mean over the thresholds from 0.5 on; NaN where there are none."""
        high = self.map_T[self.tious_T >= 0.5 - 1e-9]
        return float(high.mean()) if len(high) else float("nan")


def detection_score(
    truth: EventTable,
    predictions: EventTable,
    *,
    tious: NDArray[np.float64] = TIOUS,
    ties: Ties = "later",
) -> DetectionScore:
    """Scores predictions on a split.

    Args:
        truth: all events of the split, in the order of the annotation (it decides what is a duplicate).
        predictions: with scores; those of videos without events count against their class.
        ties: "numpy" sorts as published code does, by NumPy's default sort, whose order of equals is that of the
            build; it is slower.

    Raises:
        ValueError: there is no event, predictions have no scores, or a setting that cannot be.
    """
    if predictions.score_N is None:
        raise ValueError("predictions need scores")
    if not len(truth):
        raise ValueError("there is no event to find")
    if ties not in ("later", "numpy") or tious.ndim != 1 or not len(tious):
        raise ValueError(f"needs ties 'later' or 'numpy' and a row of thresholds, got {ties!r} and {tious}")
    truth = _without_duplicates(truth)
    label_K, class_N = np.unique(truth.label_N, return_inverse=True)
    class_M = _renumbered(predictions.label_N, label_K)
    order_M = _ranking(class_M, predictions.score_N, len(label_K), ties)
    class_M = class_M[order_M]
    right_MT = _matches(truth, class_N, predictions, class_M, order_M, tious, ties)
    count_K = np.bincount(class_N, minlength=len(label_K))
    bounds = np.searchsorted(class_M, np.arange(len(label_K) + 1))
    ap_TK = np.stack(
        [_average_precision(right_MT[bounds[k] : bounds[k + 1]], count_K[k]) for k in range(len(label_K))], axis=1
    )
    return DetectionScore(tious_T=tious, ap_TK=ap_TK, label_K=label_K)


def _without_duplicates(truth: EventTable) -> EventTable:
    """Without the events that repeat an earlier one that stayed."""
    order = np.lexsort((truth.start_N, truth.label_N, truth.item_N))
    item, label, start = truth.item_N[order], truth.label_N[order], truth.start_N[order]
    close = (np.diff(item) == 0) & (np.diff(label) == 0) & (np.diff(start) <= _SAME_S)
    if not close.any():
        return truth
    kept_N = np.ones(len(truth), dtype=bool)
    # Neighbours in time: only these are compared one by one.
    for run in np.split(order, np.flatnonzero(~close) + 1):
        stayed: list[int] = []
        for row in np.sort(run):
            near_start = np.abs(truth.start_N[row] - truth.start_N[stayed]) <= _SAME_S
            near_end = np.abs(truth.end_N[row] - truth.end_N[stayed]) <= _SAME_S
            if (near_start & near_end).any():
                kept_N[row] = False
            else:
                stayed.append(int(row))
    return EventTable(
        item_N=truth.item_N[kept_N],
        start_N=truth.start_N[kept_N],
        end_N=truth.end_N[kept_N],
        label_N=truth.label_N[kept_N],
    )


def _renumbered(label_M: NDArray[np.int64], label_K: NDArray[np.int64]) -> NDArray[np.int64]:
    """(M,) the rank of each label among the ground truth's, or the label itself where it is not among them."""
    place_M = np.searchsorted(label_K, label_M).clip(max=len(label_K) - 1)
    return np.where(label_K[place_M] == label_M, place_M, label_M)


def _ranking(
    class_M: NDArray[np.int64], score_M: NDArray[np.float64], num_classes: int, ties: Ties
) -> NDArray[np.intp]:
    """Rows of the predictions of known classes, class after class, in descending score."""
    known = np.flatnonzero((class_M >= 0) & (class_M < num_classes))
    if ties == "numpy":
        rows_of = [known[class_M[known] == k] for k in range(num_classes)]
        return np.concatenate([rows[np.argsort(score_M[rows])[::-1]] for rows in rows_of])
    # Descending, later rows first; then stably by class.
    known = known[np.argsort(score_M[known], kind="stable")[::-1]]
    return known[np.argsort(class_M[known], kind="stable")]


def _matches(
    truth: EventTable,
    class_N: NDArray[np.intp],
    predictions: EventTable,
    class_M: NDArray[np.int64],
    order_M: NDArray[np.intp],
    tious: NDArray[np.float64],
    ties: Ties,
) -> NDArray[np.bool_]:
    """(M, T): is the prediction, of those ranked, right?"""
    right_MT = np.zeros((len(order_M), len(tious)), dtype=bool)
    pairs = _pairs(truth, class_N, predictions, class_M, order_M, float(tious.min()), ties)
    if not len(pairs.overlap_P):
        return right_MT
    taken_NT = np.zeros((len(truth), len(tious)), dtype=bool)
    # The n-th prediction of each (video, class) at once; of each, the event it overlaps most first, then the next.
    for first in _rounds(pairs):
        pair, end = first, pairs.stop_P[first]
        while len(pair):
            event, prediction = pairs.event_P[pair], pairs.prediction_P[pair]
            takes_QT = ~(pairs.overlap_P[pair, None] < tious) & ~taken_NT[event] & ~right_MT[prediction]
            taken_NT[event] |= takes_QT
            right_MT[prediction] |= takes_QT
            more = pair + 1 < end
            pair, end = pair[more] + 1, end[more]
    return right_MT


@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """Predictions and events of one video and class that may match: P pairs, those of a prediction together.

    Predictions are numbered by rank and ascend within a group; a prediction's events come in descending overlap.
    """

    group_P: NDArray[np.intp]
    prediction_P: NDArray[np.intp]
    event_P: NDArray[np.intp]
    overlap_P: NDArray[np.float64]
    stop_P: NDArray[np.intp]  # where the pairs of the pair's prediction end


def _pairs(
    truth: EventTable,
    class_N: NDArray[np.intp],
    predictions: EventTable,
    class_M: NDArray[np.int64],
    order_M: NDArray[np.intp],
    lowest: float,
    ties: Ties,
) -> _Pairs:
    num_classes = int(class_N.max()) + 1
    items, item_N = np.unique(truth.item_N, return_inverse=True)
    key_N = item_N * num_classes + class_N
    by_key = np.argsort(key_N, kind="stable")
    keys, start_G, count_G = np.unique(key_N[by_key], return_index=True, return_counts=True)

    item_M = predictions.item_N[order_M]
    place_M = np.searchsorted(items, item_M).clip(max=len(items) - 1)
    key_M = place_M * num_classes + class_M
    group_M = np.searchsorted(keys, key_M).clip(max=len(keys) - 1)
    prediction_Q = np.flatnonzero((items[place_M] == item_M) & (keys[group_M] == key_M))
    prediction_Q = prediction_Q[np.argsort(group_M[prediction_Q], kind="stable")]

    count_Q = count_G[group_M[prediction_Q]]
    prediction_P = np.repeat(prediction_Q, count_Q)
    group_P = group_M[prediction_P]
    offset_P = np.arange(len(prediction_P)) - np.repeat(np.cumsum(count_Q) - count_Q, count_Q)
    event_P = by_key[start_G[group_P] + offset_P]
    row_P = order_M[prediction_P]
    overlap_P = _overlap(truth.start_N[event_P], truth.end_N[event_P], predictions, row_P)

    if ties == "numpy":
        ends = np.cumsum(count_Q)
        order = [a + np.argsort(overlap_P[a:b])[::-1] for a, b in zip(ends - count_Q, ends, strict=True)]
        sort_P = np.concatenate([np.zeros(0, dtype=np.intp), *order])
        kept_P = sort_P[~(overlap_P[sort_P] < lowest)]
    else:
        kept_P = np.flatnonzero(~(overlap_P < lowest))
        # Descending (0 / 0 first, as in a reversed ascending sort), of equals the later event first.
        down_P = -np.nan_to_num(overlap_P[kept_P], nan=np.inf)
        turn_P = np.repeat(np.arange(len(count_Q)), count_Q)[kept_P]
        kept_P = kept_P[np.lexsort((-event_P[kept_P], down_P, turn_P))]
    prediction_P = prediction_P[kept_P]
    changes = np.flatnonzero(np.diff(prediction_P)) + 1
    lengths = np.diff(np.concatenate([[0], changes, [len(prediction_P)]]))
    return _Pairs(
        group_P=group_P[kept_P],
        prediction_P=prediction_P,
        event_P=event_P[kept_P],
        overlap_P=overlap_P[kept_P],
        stop_P=np.repeat(np.cumsum(lengths), lengths),
    )


def _overlap(
    start_P: NDArray[np.float64], end_P: NDArray[np.float64], predictions: EventTable, row_P: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(P,) intersection / union; NaN where both have no length, below 0 where the union is (a reversed prediction)."""
    from_P, to_P = predictions.start_N[row_P], predictions.end_N[row_P]
    shared_P = (np.minimum(to_P, end_P) - np.maximum(from_P, start_P)).clip(min=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(shared_P / ((end_P - start_P) + (to_P - from_P) - shared_P))


def _rounds(pairs: _Pairs) -> list[NDArray[np.intp]]:
    """The first pairs of the first prediction of each group, then of the second, and so on."""
    first = np.concatenate([[0], np.flatnonzero(np.diff(pairs.prediction_P)) + 1])
    group = pairs.group_P[first]
    begins = np.concatenate([[0], np.flatnonzero(np.diff(group)) + 1])
    turn = np.arange(len(first)) - np.repeat(begins, np.diff(np.append(begins, len(first))))
    order = np.argsort(turn, kind="stable")
    return np.split(first[order], np.flatnonzero(np.diff(turn[order])) + 1)


def _average_precision(right_MT: NDArray[np.bool_], num_events: int) -> NDArray[np.float64]:
    """(T,) of one class, its predictions in descending score."""
    precision_MT = np.cumsum(right_MT, axis=0) / np.arange(1, len(right_MT) + 1)[:, None]
    envelope_MT = np.maximum.accumulate(precision_MT[::-1], axis=0)[::-1]
    # The recall rises at right predictions only, by one event each.
    return np.asarray(np.where(right_MT, envelope_MT, 0.0).sum(axis=0) / num_events)
