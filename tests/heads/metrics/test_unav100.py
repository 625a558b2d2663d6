"""UnAV-100's metric against the goldens of the published code, a slow loop of its rule, and laws."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.datasets import unav100
from heads.metrics.unav100 import TIOUS, EventTable, Ties, detection_score

CASES = ("random", "ties", "duplicates", "missing", "overlap_exact", "zero_length", "real_subset")


def golden(shared: Path, case: str) -> tuple[EventTable, EventTable, dict[str, Any]]:
    told = json.loads((shared / "parity" / "heads" / "unav_map" / f"{case}.json").read_text())
    numbers: dict[str, int] = {}
    rows = [
        (numbers.setdefault(video, len(numbers)), *event["segment"], event["label_id"])
        for video, entry in told["database"].items()
        if entry["subset"].lower() == "test"
        for event in entry["annotations"]
    ]
    given = told["predictions"]
    items = [numbers.setdefault(video, len(numbers)) for video in given["video-id"]]
    found = table([*zip(items, given["t-start"], given["t-end"], given["label"], strict=True)], given["score"])
    return table(rows), found, told


def table(rows: list[Any], scores: list[float] | None = None) -> EventTable:
    """Of rows of item, start, end, label."""
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return EventTable(
        item_N=columns[0].astype(np.int64),
        start_N=columns[1],
        end_N=columns[2],
        label_N=columns[3].astype(np.int64),
        score_N=None if scores is None else np.array(scores, dtype=np.float64),
    )


@pytest.mark.parametrize("case", CASES)
def test_detection_score_equals_goldens(shared: Path, case: str) -> None:
    truth, found, told = golden(shared, case)
    score = detection_score(truth, found)
    wanted = told["expected"]
    assert {str(label): k for k, label in enumerate(score.label_K.tolist())} == wanted["label_index"]
    wanted = told["expected_stable_order"]
    np.testing.assert_allclose(score.map_T, wanted["mAP"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(score.ap_TK, wanted["ap"], rtol=0, atol=1e-9)
    assert score.average == pytest.approx(wanted["avg_0.1_0.9"], abs=1e-9)
    assert score.average_from_half == pytest.approx(wanted["avg_0.5_0.9"], abs=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_detection_score_in_numpys_order_equals_golden_or_slow_loop(shared: Path, case: str) -> None:
    truth, found, told = golden(shared, case)
    ap_TK = detection_score(truth, found, ties="numpy").ap_TK
    # The order of equal scores is the NumPy build's: the golden's may be another's, the slow loop's is not.
    if told["has_score_ties"]:
        np.testing.assert_allclose(ap_TK, slow(truth, found, "numpy"), rtol=0, atol=1e-12)
    else:
        np.testing.assert_allclose(ap_TK, told["expected"]["ap"], rtol=0, atol=1e-9)


def slow(truth: EventTable, found: EventTable, ties: Ties) -> np.ndarray:
    """The rule, one prediction after the other."""
    kept: list[tuple[int, float, float, int]] = []
    for one in zip(*(c.tolist() for c in (truth.item_N, truth.start_N, truth.end_N, truth.label_N)), strict=True):
        if not any(
            one[0] == o[0] and one[3] == o[3] and abs(one[1] - o[1]) <= 1e-3 and abs(one[2] - o[2]) <= 1e-3
            for o in kept
        ):
            kept.append(one)
    labels = sorted({one[3] for one in kept})
    rank = {label: k for k, label in enumerate(labels)}
    assert found.score_N is not None
    classes = np.array([rank.get(label, label) for label in found.label_N.tolist()])
    ap_TK = np.zeros((len(TIOUS), len(labels)))
    for k, label in enumerate(labels):
        rows = np.flatnonzero(classes == k)
        rows = rows[descending(found.score_N[rows], ties)]
        events = [one for one in kept if one[3] == label]
        for t, tiou in enumerate(TIOUS):
            taken: set[int] = set()
            right = []
            for row in rows:
                own = [n for n, one in enumerate(events) if one[0] == found.item_N[row]]
                overlaps = np.array([overlap(found.start_N[row], found.end_N[row], *events[n][1:3]) for n in own])
                hit = None
                for place in descending(overlaps, ties):
                    if overlaps[place] < tiou:
                        break
                    if own[place] not in taken:
                        hit = own[place]
                        taken.add(hit)
                        break
                right.append(hit is not None)
            ap_TK[t, k] = area(right, len(events))
    return ap_TK


def descending(values: np.ndarray, ties: Ties) -> np.ndarray:
    return np.argsort(values, kind="stable" if ties == "later" else None)[::-1]


def overlap(start: float, end: float, from_: float, to: float) -> float:
    shared = max(0.0, min(end, to) - max(start, from_))
    union = (to - from_) + (end - start) - shared
    return float(shared / union) if union else math.nan


def area(right: list[bool], num_events: int) -> float:
    precision, recall = [0.0], [0.0]
    for n in range(len(right)):
        precision.append(sum(right[: n + 1]) / (n + 1))
        recall.append(sum(right[: n + 1]) / num_events)
    steps = range(1, len(recall))
    return float(sum((recall[n] - recall[n - 1]) * max(precision[n:]) for n in steps))


def crowd(seed: int) -> tuple[EventTable, EventTable]:
    """Few videos, many overlapping events of few classes, ends on whole seconds, equal scores; 2 videos unknown."""
    rng = np.random.default_rng(seed)

    def rows(count: int, videos: int, labels: list[int]) -> np.ndarray:
        start = rng.integers(0, 20, count)
        return np.column_stack(
            [rng.integers(0, videos, count), start, start + rng.integers(0, 9, count), rng.choice(labels, count)]
        )

    truth = rows(40, 5, [1, 4, 6])
    found = rows(150, 7, [0, 1, 2, 4, 6])
    near = truth[rng.integers(0, 40, 60)] + np.column_stack(
        [np.zeros(60), rng.integers(0, 3, 60) / 4, rng.integers(0, 5, 60) / 2, np.zeros(60)]
    )
    return table([*truth]), table([*found, *near], [*(rng.integers(0, 8, 210) / 8)])


@pytest.mark.parametrize("ties", ["later", "numpy"])
def test_detection_score_equals_slow_loop(ties: Ties) -> None:
    for seed in range(8):
        truth, found = crowd(seed)
        ap_TK = detection_score(truth, found, ties=ties).ap_TK
        np.testing.assert_allclose(ap_TK, slow(truth, found, ties), rtol=0, atol=1e-12)
        assert ap_TK.min() > 0
        assert ap_TK.max() < 1


def test_detection_score_takes_later_rows_of_equal_scores_first() -> None:
    truth = table([(0, 0.0, 10.0, 5)])
    wrong_last = table([(0, 0.0, 10.0, 5), (0, 20.0, 30.0, 5)], [0.5, 0.5])
    right_last = table([(0, 20.0, 30.0, 5), (0, 0.0, 10.0, 5)], [0.5, 0.5])
    assert detection_score(truth, wrong_last).average == 0.5
    assert detection_score(truth, right_last).average == 1.0


@pytest.mark.parametrize(("starts_ms", "stay"), [((0.0, 0.8, 1.6), 2), ((0.8, 0.0, 1.6), 1), ((1.6, 0.8, 0.0), 2)])
def test_detection_score_drops_what_repeats_an_event_that_stayed(starts_ms: tuple[float, ...], stay: int) -> None:
    rows = [(0, 5 + start / 1000, 9.0, 2) for start in starts_ms]
    score = detection_score(table(rows), table([(0, 5.0, 9.0, 2)], [1.0]))
    assert score.map_T[0] == 1 / stay
    # Neither another class's, nor another video's, nor a later end.
    apart = [(0, 5.0, 9.0, 2), (0, 5.0, 9.0, 1), (1, 5.0, 9.0, 2), (0, 5.0, 9.0011, 2)]
    assert detection_score(table(apart), table([(0, 5.0, 9.0, 2)], [1.0])).ap_TK[0].tolist() == [0.0, 1 / 3]


def test_detection_score_of_an_overlap_of_three_tenths_misses_the_third_threshold() -> None:
    truth = table([(0, 0.0, 10.0, 0)])
    score = detection_score(truth, table([(0, 0.0, 3.0, 0)], [1.0]))
    assert score.map_T.tolist() == [1.0, 1.0] + [0.0] * 7
    assert score.average_from_half == 0.0


def test_detection_score_of_the_real_test_split_with_itself_is_one(shared: Path) -> None:
    dataset = unav100.load(shared / "data" / "annotations" / "unav100")
    rows = [
        (number, float(event.start_s), float(event.end_s), dataset.class_index(event.label))
        for number, item in enumerate(dataset.split("test"))
        for event in item.events
    ]
    assert len(rows) == 5900
    truth = table(rows)
    score = detection_score(truth, table(rows, [1.0] * len(rows)))
    np.testing.assert_array_equal(score.ap_TK, np.ones((9, 100)))
    # Half of the videos unseen: what was predicted stays right, in other rows' order too.
    half = np.random.default_rng(0).permutation(np.flatnonzero(truth.item_N % 2 == 0))
    some = detection_score(truth, table([rows[n] for n in half], [0.3] * len(half)))
    counts, found = (np.bincount(table(r).label_N, minlength=100) for r in (rows, [rows[n] for n in half]))
    np.testing.assert_allclose(some.ap_TK[0], found / counts, rtol=1e-12)


def test_detection_score_without_predictions_is_zero() -> None:
    score = detection_score(table([(0, 0.0, 1.0, 3), (0, 2.0, 4.0, 7)]), table([], []))
    assert score.map_T.tolist() == [0.0] * 9
    assert score.label_K.tolist() == [3, 7]


def test_detection_score_of_what_cannot_be_raises() -> None:
    one = table([(0, 0.0, 1.0, 3)], [0.5])
    with pytest.raises(ValueError, match="need scores"):
        detection_score(one, table([(0, 0.0, 1.0, 3)]))
    with pytest.raises(ValueError, match="no event to find"):
        detection_score(table([]), one)
    with pytest.raises(ValueError, match="ties 'later' or 'numpy'"):
        detection_score(one, one, ties="first")  # type: ignore[arg-type]  # a setting that cannot be
    with pytest.raises(ValueError, match="score_N must not be NaN; 1 events"):
        table([(0, 0.0, 1.0, 3)], [math.nan])
    with pytest.raises(ValueError, match="columns of one length"):
        EventTable(item_N=np.zeros(2, int), start_N=np.zeros(1), end_N=np.zeros(1), label_N=np.zeros(1, int))
