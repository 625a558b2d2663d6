"""Counts over a dense head's items: average precision of classes, and what became of each prediction and each event.

E true events and P predictions of an item, K classes of the run, T thresholds of overlap.

Average precision is the protocol's own (`heads.metrics.unav100`). Predictions are sorted by kind of error at an
overlap of 0.5, in the manner of error diagnosis for temporal detection: a class with G events is judged by its best G,
3 G and 10 G predictions, so that frequent classes do not drown rare ones.

Source: Alwassel et al., ECCV 2018 (diagnosing error in temporal action detectors): the kinds of error, their bounds 0.5
and 0.1, and the profile over multiples of G. A prediction that could be of two kinds is here of the earlier one in
`KINDS`; there, the event that it overlaps most decides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heads.metrics.unav100 import DetectionScore, EventTable, detection_score
from jobs.report.dense.evidence import DenseItem
from jobs.report.reported_run import ReportedRun

RIGHT, DUPLICATE, WRONG_CLASS, BADLY_PLACED, BOTH_WRONG, BACKGROUND = range(6)
# As people read them.
KINDS = ("right", "duplicate", "wrong class", "badly localised", "wrong class, badly localised", "background")
MULTIPLES = (1, 3, 10)  # of a class's number of events
# Seconds: bounds of the groups of events by length.
LENGTHS_S = (0.0, 2.0, 5.0, 10.0, 30.0, float("inf"))

_HALF = 0.5
_LEAST = 0.1
_STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of an item's predictions and events at an overlap of 0.5.

    Attributes:
        kind_P: int64, indexes into `KINDS`.
        score_E: float64, the score of the prediction that found the event; NaN where none did.
    """

    kind_P: NDArray[np.int64]
    score_E: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A least score, and what the predictions of at least that score come to (0 without any)."""

    score: float
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Their harmonic mean."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


@dataclass(frozen=True, kw_only=True)
class ErrorProfile:
    """Kinds of the best `multiple` x G predictions of each class: `counts` in the order of `KINDS`."""

    multiple: int
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """Predictions counted."""
        return sum(self.counts)


@dataclass(frozen=True, kw_only=True)
class LengthGroup:
    """True events of a length in [from_s, to_s): how many, and how many were found at all, and above the threshold."""

    from_s: float
    to_s: float
    total: int
    found: int
    found_above: int


@dataclass(frozen=True, kw_only=True)
class ClassPrecision:
    """One class's events, and its average precision at 0.5 and the mean over all thresholds; NaN without events."""

    label: str
    unseen: bool
    events: int
    half: float
    average: float


@dataclass(frozen=True, kw_only=True)
class DenseCounts:
    """What was counted over a split's items. `verdicts` are the items', in their order."""

    items: tuple[DenseItem, ...]
    verdicts: tuple[Verdict, ...]
    threshold: Threshold
    profiles: tuple[ErrorProfile, ...]
    lengths: tuple[LengthGroup, ...]
    classes: tuple[ClassPrecision, ...]
    average: float

    @property
    def num_events(self) -> int:
        """True events."""
        return sum(len(item.true_labels_E) for item in self.items)


def count(items: Sequence[DenseItem], run: ReportedRun) -> DenseCounts:
    """All counts of `items`."""
    verdicts = tuple(map(verdict, items))
    threshold = best_threshold(items, verdicts)
    found = score(items)
    return DenseCounts(
        items=tuple(items),
        verdicts=verdicts,
        threshold=threshold,
        profiles=error_profiles(items, verdicts, len(run.record.classes)),
        lengths=length_groups(items, verdicts, threshold),
        classes=() if found is None else tuple(class_precisions(items, found, run.record.classes, run.record.unseen)),
        average=math.nan if found is None else found.average,
    )


def score(items: Sequence[DenseItem]) -> DetectionScore | None:
    """By the protocol, from the items' own rows; None where there is no event to find."""
    if not any(len(item.true_labels_E) for item in items):
        return None
    return detection_score(
        EventTable.of_items([item.true_E2 for item in items], [item.true_labels_E for item in items]),
        EventTable.of_items(
            [item.predicted_P2 for item in items],
            [item.predicted_labels_P for item in items],
            [item.scores_P for item in items],
        ),
    )


def class_precisions(
    items: Sequence[DenseItem], found: DetectionScore, labels: Sequence[str], unseen: Sequence[str]
) -> list[ClassPrecision]:
    """One row a class, in the order of `labels`."""
    events_K = np.bincount(
        np.concatenate([np.zeros(0, dtype=np.int64), *(item.true_labels_E for item in items)]), minlength=len(labels)
    )
    half_K, average_K = np.full((2, len(labels)), np.nan)
    half_K[found.label_K] = found.ap_TK[int(np.argmin(np.abs(found.tious_T - _HALF)))]
    average_K[found.label_K] = found.ap_TK.mean(axis=0)
    return [
        ClassPrecision(
            label=label,
            unseen=label in unseen,
            events=int(events_K[k]),
            half=float(half_K[k]),
            average=float(average_K[k]),
        )
        for k, label in enumerate(labels)
    ]


def verdict(item: DenseItem) -> Verdict:
    """Each prediction, in descending score, takes the event of its class, not taken yet, that it overlaps most."""
    overlap_PE = _overlap(item.predicted_P2, item.true_E2)
    same_PE = item.predicted_labels_P[:, None] == item.true_labels_E
    score_E = np.full(len(item.true_labels_E), np.nan)
    own_P = _highest(overlap_PE, same_PE)
    other_P = _highest(overlap_PE, ~same_PE)
    # The first that holds, from the last: later ones are overwritten.
    kind_P = np.full(len(item.scores_P), BACKGROUND)
    kind_P[other_P >= _LEAST] = BOTH_WRONG
    kind_P[own_P >= _LEAST] = BADLY_PLACED
    kind_P[other_P >= _HALF] = WRONG_CLASS
    kind_P[own_P >= _HALF] = DUPLICATE
    # Of equal scores the later row first, of equal overlaps the later event, as the protocol has it.
    for p in np.argsort(item.scores_P, kind="stable")[::-1].tolist():
        if own_P[p] < _HALF:
            continue
        free_E = np.where(same_PE[p] & np.isnan(score_E), overlap_PE[p], -1.0)[::-1]
        best = len(free_E) - 1 - int(free_E.argmax())
        if free_E.max() >= _HALF:
            kind_P[p] = RIGHT
            score_E[best] = item.scores_P[p]
    return Verdict(kind_P=kind_P, score_E=score_E)


def best_threshold(items: Sequence[DenseItem], verdicts: Sequence[Verdict]) -> Threshold:
    """The least score, in thousandths, at which precision and recall have the highest harmonic mean; of equals the
    highest. 0, so all predictions, where none is right."""
    scores_P = np.concatenate([np.zeros(0), *(item.scores_P for item in items)])
    right_P = np.concatenate([np.zeros(0, dtype=bool), *(one.kind_P == RIGHT for one in verdicts)])
    events = sum(len(item.true_labels_E) for item in items)
    steps_S = np.arange(_STEPS + 1) / _STEPS
    kept_S, right_S = (
        len(scores) - np.searchsorted(np.sort(scores), steps_S) for scores in (scores_P, scores_P[right_P])
    )
    if not right_P.any():
        return Threshold(score=0.0, precision=0.0, recall=0.0)
    f1_S = 2 * right_S / (kept_S + events)
    best = len(f1_S) - 1 - int(f1_S[::-1].argmax())
    return Threshold(
        score=float(steps_S[best]),
        precision=float(right_S[best] / kept_S[best]),
        recall=float(right_S[best] / events),
    )


def error_profiles(
    items: Sequence[DenseItem], verdicts: Sequence[Verdict], num_classes: int
) -> tuple[ErrorProfile, ...]:
    """What the best predictions are, for each of `MULTIPLES`; classes without an event have none."""
    nothing = np.zeros(0, dtype=np.int64)
    events_K = np.bincount(np.concatenate([nothing, *(i.true_labels_E for i in items)]), minlength=num_classes)
    label_P = np.concatenate([nothing, *(item.predicted_labels_P for item in items)])
    score_P = np.concatenate([np.zeros(0), *(item.scores_P for item in items)])
    kind_P = np.concatenate([nothing, *(one.kind_P for one in verdicts)])
    # Class after class, in each in descending score: the rank of each prediction within its class.
    order_P = np.lexsort((-score_P, label_P))
    label_P, kind_P = label_P[order_P], kind_P[order_P]
    place_P = np.arange(len(label_P)) - np.searchsorted(label_P, label_P)
    return tuple(
        ErrorProfile(
            multiple=multiple,
            counts=tuple(np.bincount(kind_P[place_P < multiple * events_K[label_P]], minlength=len(KINDS)).tolist()),
        )
        for multiple in MULTIPLES
    )


def length_groups(
    items: Sequence[DenseItem], verdicts: Sequence[Verdict], threshold: Threshold
) -> tuple[LengthGroup, ...]:
    """Events by length, those groups that there are."""
    length_E = np.concatenate([np.zeros(0), *(item.true_E2[:, 1] - item.true_E2[:, 0] for item in items)])
    score_E = np.concatenate([np.zeros(0), *(one.score_E for one in verdicts)])
    groups = []
    for from_s, to_s in itertools.pairwise(LENGTHS_S):
        of_E = (length_E >= from_s) & (length_E < to_s)
        if of_E.any():
            groups.append(
                LengthGroup(
                    from_s=from_s,
                    to_s=to_s,
                    total=int(of_E.sum()),
                    found=int(np.isfinite(score_E[of_E]).sum()),
                    found_above=int((score_E[of_E] >= threshold.score).sum()),
                )
            )
    return tuple(groups)


def _overlap(predicted_P2: NDArray[np.float64], true_E2: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P, E) intersection / union; events have a length, so no union is 0."""
    start_P1, end_P1 = predicted_P2[:, :1], predicted_P2[:, 1:]
    shared_PE = (np.minimum(end_P1, true_E2[:, 1]) - np.maximum(start_P1, true_E2[:, 0])).clip(min=0)
    union_PE = (end_P1 - start_P1) + (true_E2[:, 1] - true_E2[:, 0]) - shared_PE
    return np.asarray(shared_PE / union_PE)


def _highest(overlap_PE: NDArray[np.float64], of_PE: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(P,) the highest overlap among `of_PE`; 0 where there is none."""
    return np.asarray(np.where(of_PE, overlap_PE, 0.0).max(axis=1, initial=0.0))
