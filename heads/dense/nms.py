"""Non-maximum suppression for temporal events: hard, linear, Gaussian; voting. N candidates of one item.

The overlap of two is intersection / (the sum of both lengths, each 1e-6 longer, - intersection), in float32.

**Equal to the published order of work, in a fraction of it.** Published code suppresses every class by itself (each up
to its cap), joins the classes and keeps the best of all. Within a class, picks come in descending score: scores only
fall. So the best of all classes are a merge of descending lists, and a class's next pick is needed only once the merge
has taken its last: 100 events kept of 100 classes need 100 picks instead of up to 10,000, and the result is the same
number for number. Equal scores: within a class the one that published code finds first, between classes the lower.

Source: Bodla et al., ICCV 2017 (Soft-NMS); ActionFormer's and UnAV's published code, whose defaults stand in
`Suppression`.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from catalog.fields import check_fields
from heads.dense.candidates import Candidates

Method = Literal["gaussian", "linear", "hard", "none"]

_LONGER = np.float32(1e-6)


Overlap = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class Suppression:
    """Which events are kept, and their scores.

    Attributes:
        method: "hard" drops what overlaps a better one by `iou`; "linear" multiplies its score by 1 - overlap;
            "gaussian" multiplies every score by exp(-overlap^2 / sigma), whatever `iou`; "none" drops by score only.
        min_score: what falls below is dropped ("hard": what is not above, from the start, if `min_score` is above 0).
            Soft methods never test the best: it is kept whatever its score, as published.
        most_a_class, most: events kept of a class, and of the item. Where the classes are not apart, both hold for all.
        voting: an event's ends become the mean of those of all candidates of any class that overlap it by so much,
            weighted by their scores; None leaves them. Only where the classes are not apart.
        class_aware: events suppress only those of their class.
    """

    method: Method = "gaussian"
    sigma: Annotated[float, Field(gt=0)] = 0.4
    iou: Overlap = 0.7
    min_score: float = 0.001
    most_a_class: Annotated[int, Field(ge=1)] = 100
    most: Annotated[int, Field(ge=1)] = 100
    voting: Overlap | None = None
    class_aware: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if self.voting is not None and self.class_aware:
            raise ValueError(f"voting takes the candidates of all classes: it needs class_aware=False, got {self}")


def suppress(candidates: Candidates, suppression: Suppression) -> Candidates:
    """The events kept, in descending score.

    Raises:
        ValueError: a score is NaN.
    """
    if np.isnan(candidates.scores_N).any():
        raise ValueError(f"scores must not be NaN; {int(np.isnan(candidates.scores_N).sum())} candidates have one")
    if len(candidates) == 0:
        return candidates
    picks = _picks(candidates, suppression)
    row_M = np.array([row for row, _ in picks], dtype=np.intp)
    segments_M2 = candidates.segments_N2[row_M]
    if suppression.voting is not None:
        segments_M2 = vote(segments_M2, candidates.segments_N2, candidates.scores_N, iou=suppression.voting)
    return Candidates(
        segments_N2=segments_M2,
        scores_N=np.array([score for _, score in picks], dtype=np.float32),
        labels_N=candidates.labels_N[row_M],
    )


def vote(
    segments_M2: NDArray[np.float64],
    segments_N2: NDArray[np.float64],
    scores_N: NDArray[np.float32],
    *,
    iou: float,
) -> NDArray[np.float64]:
    """(M, 2): the mean, weighted by score, of those of the N segments that overlap each of the M by `iou` or more.

    A segment without length overlaps nothing, itself included, and stays (published code gives NaN).
    """
    start_M1, end_M1 = segments_M2[:, :1], segments_M2[:, 1:]
    shared_MN = np.minimum(end_M1, segments_N2[:, 1]) - np.maximum(start_M1, segments_N2[:, 0])
    np.maximum(shared_MN, 0, out=shared_MN)
    union_MN = (end_M1 - start_M1) + (segments_N2[:, 1] - segments_N2[:, 0]) - shared_MN
    weight_MN = np.where((shared_MN >= iou * union_MN) & (union_MN > 0), scores_N, 0.0)
    sum_M1 = weight_MN.sum(axis=1, keepdims=True)
    return np.where(sum_M1 > 0, weight_MN @ segments_N2 / np.where(sum_M1 > 0, sum_M1, 1), segments_M2)


def _picks(candidates: Candidates, suppression: Suppression) -> list[tuple[int, float]]:
    """Rows and scores of what is kept, in descending score."""
    queues = _queues(candidates, suppression)
    heap = [(-queue.best, place) for place, queue in enumerate(queues) if queue.left]
    heapq.heapify(heap)
    picks: list[tuple[int, float]] = []
    while heap and len(picks) < suppression.most:
        place = heap[0][1]
        queue = queues[place]
        picks.append(queue.pick())
        if queue.left and queue.picked < suppression.most_a_class:
            heapq.heapreplace(heap, (-queue.best, place))
        else:
            heapq.heappop(heap)
    return picks


def _queues(candidates: Candidates, suppression: Suppression) -> list[_Queue]:
    """One a class, in the order of labels; or one for all."""
    scores_N, min_score = candidates.scores_N, suppression.min_score
    rows = np.arange(len(candidates))
    if suppression.method == "hard" and min_score > 0:
        rows = np.flatnonzero(scores_N > min_score)
    elif suppression.method == "none":
        rows = np.flatnonzero(scores_N >= min_score)
    if suppression.method in ("hard", "none"):
        rows = rows[np.argsort(-scores_N[rows], kind="stable")]
    cuts = np.zeros(0, dtype=np.intp)
    if suppression.class_aware:
        rows = rows[np.argsort(candidates.labels_N[rows], kind="stable")]
        cuts = np.flatnonzero(np.diff(candidates.labels_N[rows])) + 1
    columns_4N = np.empty((4, len(rows)), dtype=np.float32)
    columns_4N[:2] = candidates.segments_N2[rows].T
    columns_4N[2] = columns_4N[1] - columns_4N[0] + _LONGER
    columns_4N[3] = scores_N[rows]
    return [
        _Queue(columns, group, suppression)
        for columns, group in zip(np.split(columns_4N, cuts, axis=1), np.split(rows, cuts), strict=True)
    ]


class _Queue:
    """What is left of the candidates that suppress each other, and the best of them.

    Soft methods keep published code's order, which decides between equal scores: the first left takes the place of the
    one picked, and the last left that of one dropped.
    """

    def __init__(self, columns_4N: NDArray[np.float32], rows_N: NDArray[np.intp], suppression: Suppression) -> None:
        """Of start, end, length, score; both are written to. "hard" and "none" need descending scores."""
        self._columns, self._rows, self._how = columns_4N, rows_N, suppression
        self.picked = 0
        self._find_best()

    @property
    def left(self) -> int:
        return len(self._rows)

    def pick(self) -> tuple[int, float]:
        """Takes the best out and suppresses the others by it."""
        row, score = int(self._rows[self._best]), self.best
        start, end, length, _ = self._columns[:, self._best]
        self._columns[:, self._best], self._rows[self._best] = self._columns[:, 0], self._rows[0]
        self._columns, self._rows = self._columns[:, 1:], self._rows[1:]
        self.picked += 1
        if self.left and self._how.method != "none":
            self._suppress(start, end, length)
        self._find_best()
        return row, score

    def _find_best(self) -> None:
        if self.left:
            self._best = int(self._columns[3].argmax())  # the first of equals
            self.best = float(self._columns[3, self._best])

    def _suppress(self, start: np.float32, end: np.float32, length: np.float32) -> None:
        start_N, end_N, length_N, score_N = self._columns
        overlap_N = np.minimum(end_N, end)
        overlap_N -= np.maximum(start_N, start)
        np.maximum(overlap_N, 0, out=overlap_N)
        overlap_N /= length_N + length - overlap_N
        if self._how.method == "hard":
            kept_N = overlap_N < self._how.iou
            self._columns, self._rows = self._columns[:, kept_N], self._rows[kept_N]
            return
        if self._how.method == "gaussian":
            overlap_N *= overlap_N
            overlap_N /= -self._how.sigma
            score_N *= np.exp(overlap_N, out=overlap_N)
        else:
            score_N *= np.where(overlap_N >= self._how.iou, 1 - overlap_N, 1)
        dropped = np.flatnonzero(score_N < self._how.min_score)
        if len(dropped):
            self._drop(dropped)

    def _drop(self, dropped: NDArray[np.intp]) -> None:
        """The last of those that stay fill the holes, from the first hole on."""
        count = self.left - len(dropped)
        holes = dropped[: np.searchsorted(dropped, count)]
        tail = np.setdiff1d(np.arange(count, self.left), dropped, assume_unique=True)[::-1]
        self._columns[:, holes], self._rows[holes] = self._columns[:, tail], self._rows[tail]
        self._columns, self._rows = self._columns[:, :count], self._rows[:count]
