from __future__ import annotations

import itertools
from typing import Any

import pytest

from jobs.report.dense.evidence import read_dense_predictions
from jobs.report.dense.scores import DenseCounts, count
from jobs.report.dense.timeline import MOST_TRUE, DenseJudged, DenseTimeline, choose_extremes, dense_timeline
from jobs.report.reported_run import ReportedRun, read_run
from jobs.report.segments.timeline import MOST_SPANS, Media
from tests.jobs.report.made_dense import CLASSES, rows, run_fields


def _counts(make_run: Any, made: list[dict[str, Any]], **fields: Any) -> tuple[DenseCounts, ReportedRun]:
    run = read_run(make_run("run", CLASSES, made, **(run_fields(rows(2)) | fields)))
    return count(read_dense_predictions(run, "test") or (), run), run


def _one(make_run: Any, least: float = 0.5, **row: Any) -> DenseTimeline:
    whole = {"item": "i", "video": "v", "duration_s": 20.0, "events_true": [], "events_pred": []} | row
    counts, run = _counts(make_run, [whole], unseen=["rain"])
    judged = DenseJudged(item=counts.items[0], verdict=counts.verdicts[0], least=least)
    return dense_timeline(judged, run, Media())


def _f1(judged: DenseJudged) -> float:
    """By hand: pairs of an event and a prediction that is right and sure enough."""
    right: int = sum(
        kind == 0 and score >= judged.least
        for kind, score in zip(judged.verdict.kind_P.tolist(), judged.item.scores_P.tolist(), strict=True)
    )
    said: int = sum(score >= judged.least for score in judged.item.scores_P.tolist())
    return 2 * right / (said + len(judged.item.true_labels_E))


@pytest.mark.parametrize(("num", "expected"), [(0, (0, 0)), (1, (1, 0)), (5, (3, 2)), (12, (6, 6)), (99, (15, 15))])
def test_choose_extremes_takes_half_the_worst_and_half_the_best(
    make_run: Any, num: int, expected: tuple[int, int]
) -> None:
    counts, _ = _counts(make_run, rows(30))
    worst, best = choose_extremes(counts, num)
    assert (len(worst), len(best)) == expected
    everybody = sorted(
        _f1(DenseJudged(item=i, verdict=v, least=counts.threshold.score))
        for i, v in zip(counts.items, counts.verdicts, strict=True)
    )
    assert [j.f1 for j in worst] == pytest.approx(everybody[: len(worst)])
    assert [j.f1 for j in best] == pytest.approx(everybody[::-1][: len(best)])
    assert not {j.item.item_id for j in worst} & {j.item.item_id for j in best}


def test_choose_extremes_puts_what_was_said_before_silence_and_many_events_before_few(make_run: Any) -> None:
    wrong = [[18, 19, 2, 0.9]]
    made = [
        {"item": name, "video": name, "duration_s": 20.0, "events_true": true, "events_pred": said}
        for name, true, said in (
            ("silent", [[0, 1, 0], [2, 3, 0], [4, 5, 0]], []),
            ("one wrong", [[0, 1, 0]], wrong),
            ("two wrong", [[0, 1, 0], [2, 3, 0]], wrong),
            ("nothing", [], []),
            ("right", [[0, 5, 0]], [[0, 5, 0, 0.9]]),
            ("both right", [[0, 5, 0], [6, 9, 1]], [[0, 5, 0, 0.9], [6, 9, 1, 0.9]]),
        )
    ]
    counts, _ = _counts(make_run, made)
    worst, best = choose_extremes(counts, 6)
    assert [j.item.item_id for j in worst] == ["two wrong", "one wrong", "silent"]
    assert [j.item.item_id for j in best] == ["both right", "right"]


def test_dense_timeline_has_a_row_a_class_with_the_truth_over_what_was_predicted(make_run: Any) -> None:
    shown = _one(
        make_run,
        events_true=[[5, 10, 1], [0, 5, 0], [12, 14, 0]],
        events_pred=[[0, 5, 0, 0.9], [1, 5, 0, 0.8], [10, 20, 3, 0.5], [5, 10, 1, 0.4]],
    )
    assert [(row.label, row.unseen) for row in shown.rows] == [("bark", False), ("horn", False), ("rain", True)]
    bark, horn, rain = shown.rows
    assert [[(b.left, b.width) for b in lane] for lane in bark.true_lanes] == [[(0, 25), (60, 10)]]
    assert [[(b.left, b.width, b.score) for b in lane] for lane in bark.predicted_lanes] == [
        [(0, 25, 0.9)],
        [(5, 20, 0.8)],
    ]
    assert [b.title for lane in bark.predicted_lanes for b in lane] == [
        "bark, 0 to 5 s, score 0.90, right",
        "bark, 1 to 5 s, score 0.80, duplicate",
    ]
    assert [b.title for lane in bark.true_lanes for b in lane] == ["bark, 0 to 5 s, found", "bark, 12 to 14 s, missed"]
    # What found the horn is below the score: it is neither drawn nor counted.
    assert horn.predicted_lanes == ((),)
    assert horn.true_lanes[0][0].title == "horn, 5 to 10 s, missed"
    assert [b.wrong for lane in (*bark.predicted_lanes, *rain.predicted_lanes) for b in lane] == [False, True, True]
    assert (shown.num_true, shown.num_found, shown.num_false) == (3, 1, 2)
    assert shown.f1 == pytest.approx(2 / 6)


def test_dense_timeline_colours_differ_and_bars_of_a_lane_stay_apart(make_run: Any) -> None:
    counts, run = _counts(make_run, rows(10))
    for item, one in zip(counts.items, counts.verdicts, strict=True):
        shown = dense_timeline(DenseJudged(item=item, verdict=one, least=0.0), run, Media())
        assert len({row.colour for row in shown.rows}) == len(shown.rows)
        for row in shown.rows:
            for lane in (*row.true_lanes, *row.predicted_lanes):
                for before, after in itertools.pairwise(lane):
                    assert before.left + before.width <= after.left + 0.002


@pytest.mark.parametrize(("duration_s", "expected"), [(None, 12), (8.0, 12), (40.0, 40)])
def test_dense_timeline_axis_reaches_to_the_last_event(make_run: Any, duration_s: float | None, expected: int) -> None:
    shown = _one(make_run, duration_s=duration_s, events_true=[[1, 12, 0]], events_pred=[[50, 60, 0, 0.1]])
    assert shown.duration_s == expected
    assert shown.ticks[0].at == 0


def test_dense_timeline_draws_the_surest_and_says_how_many_more_there_are(make_run: Any) -> None:
    said = [[n * 0.5, n * 0.5 + 0.25, 0, round(1 - n / 100, 2)] for n in range(40)]
    true = [[n * 0.1, n * 0.1 + 0.05, 1] for n in range(MOST_TRUE + 5)]
    shown = _one(make_run, least=0.65, events_true=true, events_pred=said)
    drawn = [b.score or 0.0 for row in shown.rows for lane in row.predicted_lanes for b in lane]
    assert sorted(drawn, reverse=True) == [round(1 - n / 100, 2) for n in range(MOST_SPANS)]
    assert shown.hidden == 36 - MOST_SPANS
    assert shown.hidden_true == 5


@pytest.mark.parametrize("end_s", [5e-324, 1e9])
def test_dense_timeline_of_times_of_any_size_stays_finite(make_run: Any, end_s: float) -> None:
    shown = _one(make_run, duration_s=None, events_true=[[0, end_s, 0]], events_pred=[[0, end_s, 0, 0.9]])
    assert 0 < shown.duration_s <= 1e9
    assert all(0 <= bar.width <= 100 for row in shown.rows for lane in row.true_lanes for bar in lane)
