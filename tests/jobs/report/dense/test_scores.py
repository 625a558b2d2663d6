from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from heads.evaluation.evaluate_dense import evaluate_dense
from jobs.report.dense.evidence import DenseItem, read_dense_predictions
from jobs.report.dense.scores import KINDS, MULTIPLES, DenseCounts, count, verdict
from jobs.report.reported_run import read_run
from tests.heads import dense_planted
from tests.jobs.report.made_dense import CLASSES, metrics_of, rows, run_fields, score_of


def _counts(make_run: Any, made: list[dict[str, Any]], **fields: Any) -> DenseCounts:
    run = read_run(make_run("run", CLASSES, made, **(run_fields(made) | fields)))
    items = read_dense_predictions(run, "test")
    assert items is not None
    return count(items, run)


def _item(true: list[list[float]], predicted: list[list[float]]) -> DenseItem:
    true_E3 = np.array(true, dtype=np.float64).reshape(-1, 3)
    predicted_P4 = np.array(predicted, dtype=np.float64).reshape(-1, 4)
    return DenseItem(
        item_id="i",
        video_id="v",
        duration_s=None,
        true_E2=true_E3[:, :2],
        true_labels_E=true_E3[:, 2].astype(np.int64),
        predicted_P2=predicted_P4[:, :2],
        predicted_labels_P=predicted_P4[:, 2].astype(np.int64),
        scores_P=predicted_P4[:, 3],
    )


def _kinds(true: list[list[float]], predicted: list[list[float]]) -> list[str]:
    return [KINDS[k] for k in verdict(_item(true, predicted)).kind_P]


def _slow(row: dict[str, Any]) -> tuple[list[str], list[float | None]]:
    """Kinds and finders of an item, one prediction after the other."""

    def overlap(a: list[float], b: list[float]) -> float:
        shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
        return shared / ((a[1] - a[0]) + (b[1] - b[0]) - shared)

    true, predicted = row["events_true"], row["events_pred"]
    finders: list[float | None] = [None] * len(true)
    kinds = [""] * len(predicted)
    for p in sorted(range(len(predicted)), key=lambda p: (-predicted[p][3], -p)):
        own = [overlap(predicted[p], t) for t in true if t[2] == predicted[p][2]]
        other = [overlap(predicted[p], t) for t in true if t[2] != predicted[p][2]]
        free = [
            (overlap(predicted[p], t), e)
            for e, t in enumerate(true)
            if t[2] == predicted[p][2] and finders[e] is None and overlap(predicted[p], t) >= 0.5
        ]
        if free:
            finders[max(free)[1]] = predicted[p][3]
            kinds[p] = "right"
        elif max(own, default=0) >= 0.5:
            kinds[p] = "duplicate"
        elif max(other, default=0) >= 0.5:
            kinds[p] = "wrong class"
        elif max(own, default=0) >= 0.1:
            kinds[p] = "badly localised"
        elif max(other, default=0) >= 0.1:
            kinds[p] = "wrong class, badly localised"
        else:
            kinds[p] = "background"
    return kinds, finders


def test_verdict_tells_each_kind() -> None:
    true: list[list[float]] = [[0, 10, 0], [20, 30, 1]]
    predicted = [[0, 9, 0, 0.9], [1, 10, 0, 0.8], [0, 9, 1, 0.7], [8, 13, 0, 0.6], [8, 13, 1, 0.5], [14, 16, 0, 0.4]]
    assert _kinds(true, predicted) == list(KINDS)


def test_verdict_takes_the_surest_first_and_of_equals_the_later_row() -> None:
    assert _kinds([[0, 10, 0]], [[0, 9, 0, 0.3], [0, 8, 0, 0.6]]) == ["duplicate", "right"]
    assert _kinds([[0, 10, 0]], [[0, 9, 0, 0.5], [0, 8, 0, 0.5]]) == ["duplicate", "right"]


def test_verdict_takes_another_event_where_the_nearest_is_taken() -> None:
    found = verdict(_item([[0, 10, 0], [0, 8, 0]], [[0, 10, 0, 0.9], [0, 9.9, 0, 0.4]]))
    assert [KINDS[k] for k in found.kind_P] == ["right", "right"]
    assert found.score_E.tolist() == [0.9, 0.4]


def test_verdict_of_an_overlap_of_exactly_half_is_right_and_of_no_length_background() -> None:
    assert _kinds([[0, 10, 0]], [[0, 5, 0, 0.5], [3, 3, 0, 0.4]]) == ["right", "background"]


def test_verdict_of_a_second_overlap_of_exactly_half_is_a_duplicate() -> None:
    assert _kinds([[0, 10, 0]], [[0, 5, 0, 0.5], [5, 10, 0, 0.4]]) == ["right", "duplicate"]


def test_verdict_without_events_or_without_predictions() -> None:
    assert _kinds([], [[0, 1, 0, 0.5]]) == ["background"]
    assert np.isnan(verdict(_item([[0, 1, 0]], [])).score_E).all()


def test_verdicts_equal_a_slow_loop() -> None:
    for row in rows(80, num_classes=2, seed=3):
        kinds, finders = _slow(row)
        found = verdict(_item(row["events_true"], row["events_pred"]))
        assert [KINDS[k] for k in found.kind_P] == kinds
        assert [None if np.isnan(s) else s for s in found.score_E.tolist()] == finders


def test_count_average_precision_equals_the_record(make_run: Any) -> None:
    made = rows(60)
    counts = _counts(make_run, made)
    told = metrics_of(made)
    assert counts.average == pytest.approx(told["average_map"], abs=1e-12)
    assert np.mean([one.average for one in counts.classes]) == pytest.approx(told["average_map"], abs=1e-12)
    assert np.mean([one.half for one in counts.classes]) == pytest.approx(told["map_0.5"], abs=1e-12)
    events = [event for row in made for event in row["events_true"]]
    assert [one.events for one in counts.classes] == [sum(e[2] == k for e in events) for k in range(4)]
    assert counts.num_events == len(events)


def test_count_of_the_rows_that_evaluation_writes_equals_its_numbers(make_run: Any) -> None:
    data = dense_planted.dataset(videos=90, longest_s=12)
    split = dense_planted.split(data, "test")
    assert split.visual is not None
    split.visual.values[:] += np.random.default_rng(0).normal(0, 0.6, split.visual.values.shape)
    metrics, made = evaluate_dense(dense_planted.Told(sure=2.0), split, data)
    assert 0.05 < metrics["average_map"] < 0.95, "or the numbers would agree by themselves"
    run = read_run(make_run("run", list(data.classes), made, **run_fields(rows(2), num_classes=3)))
    counts = count(read_dense_predictions(run, "test") or (), run)
    # Written times have four digits, scores six.
    assert counts.average == pytest.approx(metrics["average_map"], abs=1e-3)
    assert np.mean([one.half for one in counts.classes]) == pytest.approx(metrics["map_0.5"], abs=1e-3)
    assert counts.num_events == metrics["events"]


def test_count_of_a_class_without_events_is_nan_and_the_others_keep_their_place(make_run: Any) -> None:
    made = rows(40)
    for row in made:
        row["events_true"] = [event for event in row["events_true"] if event[2] != 1]
    made = [row for row in made if row["events_true"]]
    counts = _counts(make_run, made, unseen=["drums"])
    score = score_of(made)
    assert score.label_K.tolist() == [0, 2, 3]
    assert np.isnan(counts.classes[1].average)
    assert [counts.classes[k].half for k in (0, 2, 3)] == pytest.approx(score.ap_TK[4].tolist())
    assert [one.unseen for one in counts.classes] == [False, False, True, False]


def test_verdicts_give_the_average_precision_at_half(make_run: Any) -> None:
    # Two ways to the same number: the right predictions in order of score, and the protocol.
    made = rows(60, seed=4)
    counts = _counts(make_run, made)
    for k, told in enumerate(counts.classes):
        said = [
            (score, kind == 0)
            for item, one in zip(counts.items, counts.verdicts, strict=True)
            for score, kind, label in zip(
                item.scores_P.tolist(), one.kind_P.tolist(), item.predicted_labels_P.tolist(), strict=True
            )
            if label == k
        ]
        right = [kind for _, kind in sorted(said, key=lambda pair: -pair[0])]
        precisions = [sum(right[: n + 1]) / (n + 1) for n in range(len(right))]
        area = sum(max(precisions[n:]) for n in range(len(right)) if right[n]) / told.events
        assert told.half == pytest.approx(area)


def test_threshold_has_the_highest_f1_of_all_thousandths(make_run: Any) -> None:
    made = rows(30, seed=5)
    counts = _counts(make_run, made)
    scored = [(event[3], kind) for row in made for event, kind in zip(row["events_pred"], _slow(row)[0], strict=True)]

    def slow(least: float) -> tuple[float, float, float]:
        kept = [kind for score, kind in scored if score >= least]
        right = kept.count("right")
        return 2 * right / (len(kept) + counts.num_events), right / max(1, len(kept)), right / counts.num_events

    best = max(range(1001), key=lambda n: (slow(n / 1000)[0], n))
    assert counts.threshold.score == best / 1000
    f1, precision, recall = slow(best / 1000)
    assert (counts.threshold.precision, counts.threshold.recall) == pytest.approx((precision, recall))
    assert counts.threshold.f1 == pytest.approx(f1)


def test_threshold_where_nothing_is_right_is_zero(make_run: Any) -> None:
    made = rows(3)
    for row in made:
        row["events_pred"] = [[29.5, 29.6, 0, 0.5]]
    assert _counts(make_run, made).threshold.score == 0


def test_profiles_equal_a_slow_count(make_run: Any) -> None:
    made = rows(40, seed=6)
    counts = _counts(make_run, made)
    for profile, multiple in zip(counts.profiles, MULTIPLES, strict=True):
        slow = dict.fromkeys(KINDS, 0)
        for k in range(4):
            said = [
                (event[3], kind)
                for row in made
                for event, kind in zip(row["events_pred"], _slow(row)[0], strict=True)
                if event[2] == k
            ]
            events = sum(event[2] == k for row in made for event in row["events_true"])
            for _, kind in sorted(said, key=lambda pair: -pair[0])[: multiple * events]:
                slow[kind] += 1
        assert dict(zip(KINDS, profile.counts, strict=True)) == slow
        assert profile.total == sum(slow.values())


def test_length_groups_equal_a_slow_count(make_run: Any) -> None:
    made = rows(40, seed=7)
    counts = _counts(make_run, made)
    assert sum(group.total for group in counts.lengths) == counts.num_events
    for group in counts.lengths:
        of = [
            finder
            for row in made
            for (start, end, _), finder in zip(row["events_true"], _slow(row)[1], strict=True)
            if group.from_s <= end - start < group.to_s
        ]
        assert group.total == len(of)
        assert group.found == sum(finder is not None for finder in of)
        assert group.found_above == sum(finder is not None and finder >= counts.threshold.score for finder in of)


def test_length_groups_count_a_score_at_the_threshold(make_run: Any) -> None:
    row = {"item": "i", "video": "v", "duration_s": 9.0, "events_true": [[0, 3, 0]], "events_pred": [[0, 3, 0, 0.6]]}
    counts = _counts(make_run, [row])
    assert counts.threshold.score == 0.6
    (group,) = counts.lengths
    assert (group.from_s, group.to_s, group.total, group.found, group.found_above) == (2, 5, 1, 1, 1)


def test_count_without_any_event_or_item(make_run: Any) -> None:
    made = rows(3)
    fields = run_fields(made)
    for row in made:
        row["events_true"] = []
    for name, empty in (("none", []), ("no events", made)):
        run = read_run(make_run(name, CLASSES, empty, **fields))
        counts = count(read_dense_predictions(run, "test") or (), run)
        assert counts.classes == ()
        assert np.isnan(counts.average)
        assert counts.threshold.f1 == 0
