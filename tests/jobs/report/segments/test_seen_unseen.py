"""Seen and unseen classes of a confusion, and the run filter over judged items, against slow counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heads.evaluation.run_filter import filter_runs
from jobs.report.reported_run import Judged, ReportedRun, read_predictions, read_run
from jobs.report.segments.scores import measures, smoothed
from jobs.report.segments.seen_unseen import seen_unseen
from jobs.report.segments.timeline import Media, timeline

CLASSES = ["a", "b", "c", "d"]  # b and d unseen
BACKGROUND = 4


def rows(num: int, *, seen: bool = True) -> list[dict[str, Any]]:
    """Items of one class each, some of them cut short; every third has a segment without features."""
    rng = np.random.default_rng(1)
    made = []
    for n in range(num):
        k = n % 4
        length = 10 if n % 2 else 7
        true_T = np.where(rng.random(length) < 0.6, k, BACKGROUND)
        predicted_T = np.where(rng.random(length) < 0.5, true_T, rng.integers(0, 5, length))
        mask = [True] * length
        if n % 3 == 0:
            mask[3], predicted_T[3] = False, BACKGROUND
        row = {"item": f"i{n}", "video": f"v{n}", "labels_true": true_T.tolist(), "labels_pred": predicted_T.tolist()}
        row |= {"score": [0.5] * length, "mask": mask} | ({"seen": k in (0, 2)} if seen else {})
        made.append(row)
    return made


def judged(make_run: Any, made: list[dict[str, Any]]) -> tuple[ReportedRun, list[Judged]]:
    run = read_run(make_run("run", CLASSES, made, unseen=["b", "d"]))
    items = read_predictions(run, "test")
    assert items is not None
    return run, list(items)


def test_halves_groups_and_cells_equal_slow_counts(make_run: Any) -> None:
    made = rows(20)
    run, items = judged(make_run, made)
    found = seen_unseen(items, run)
    assert found is not None
    group = {0: "seen", 2: "seen", 1: "unseen", 3: "unseen", 4: "background"}
    counts: dict[tuple[str, str], int] = {}
    cells: dict[bool, dict[tuple[int, int], int]] = {True: {}, False: {}}
    for row in made:
        for t, p in zip(row["labels_true"], row["labels_pred"], strict=True):
            said = "right" if t == p else {"background": "background"}.get(group[p], f"another {group[p]} class")
            counts[group[t], said] = counts.get((group[t], said), 0) + 1
            cells[row["seen"]][t, p] = cells[row["seen"]].get((t, p), 0) + 1
    for line in found.groups:
        for said, cell in zip(found.said, line.cells, strict=True):
            if (line.name, said) == ("background", "background"):
                assert cell is None
            else:
                assert cell is not None
                assert cell[0] == counts.get((line.name, said), 0)
                assert cell[1] == cell[0] / line.total
    assert [half.num_items for half in found.class_groups] == [10, 10]
    for half, seen, classes in ((found.class_groups[0], True, "ac"), (found.class_groups[1], False, "bd")):
        assert half.heat is not None
        # Seen classes stand before unseen ones; rows are those that the half's videos have.
        assert half.heat.names == ("a", "c", "b", "d", "background")
        assert half.heat.row_names == (*classes, "background")
        shown = {cell.title for cell in half.heat.cells}
        labels = [*CLASSES, "background"]
        for (t, p), count in cells[seen].items():
            total = sum(n for (true, _), n in cells[seen].items() if true == t)
            assert f"{labels[t]} called {labels[p]}: {count} segments, {100 * count / total:.1f} %" in shown
        assert len(shown) == len(cells[seen])
        assert max(cell.y for cell in half.heat.cells) < half.heat.height - half.heat.cell / 2


def test_halves_of_items_that_do_not_say_are_none(make_run: Any) -> None:
    run, items = judged(make_run, rows(4, seen=False))
    assert seen_unseen(items, run) is None
    assert seen_unseen([], run) is None
    assert list(measures(items, 5)) == ["accuracy"]


def test_smoothed_items_equal_the_filter_item_by_item(make_run: Any) -> None:
    made = rows(20)
    run, items = judged(make_run, made)
    for before, row, after in zip(items, made, smoothed(items, 3), strict=True):
        wanted = filter_runs(np.array([row["labels_pred"]]), minimum=3, mask_NT=np.array([row["mask"]]))[0]
        assert after.predicted_TK.argmax(axis=1).tolist() == wanted.tolist()
        assert after.predicted_TK.sum(axis=1).tolist() == [1] * len(wanted)
        assert after.num_right == int((wanted == np.array(row["labels_true"])).sum())
        shown = timeline(before, run, Media(), after)
        bars = [bar for lane in shown.smoothed_lanes or () for bar in lane]
        width = sum(bar.width for bar in bars)
        # Bars are in per cent of the axis, rounded to thousandths.
        assert width == pytest.approx(100 * np.mean(wanted != BACKGROUND), abs=0.01)
    assert timeline(items[0], run, Media()).smoothed_lanes is None
    assert smoothed([], 3) == []


def test_measures_of_predictions_are_those_of_evaluation(make_run: Any) -> None:
    _, items = judged(make_run, rows(20))
    found = measures(items, 5)
    shares = [item.num_right / item.num_segments for item in items]
    assert found["accuracy"] == pytest.approx(np.mean(shares))
    unseen = [share for share, item in zip(shares, items, strict=True) if not item.seen]
    assert found["accuracy_unseen"] == pytest.approx(np.mean(unseen))
    assert measures([], 5) == {}


def test_predictions_with_seen_that_is_no_truth_value_raise(make_run: Any) -> None:
    made = rows(2)
    made[1]["seen"] = "yes"
    run = read_run(make_run("run", CLASSES, made))
    with pytest.raises(ValueError, match=r"\[1\]\.seen: needs true, false or nothing, got yes"):
        read_predictions(run, "test")


def test_report_of_a_wrong_filter_ends_with_2(
    make_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs.cli.main import main

    folder = make_run("run", CLASSES, [], background=None)
    assert main(["report", str(folder), "--smooth", "3", "--out", str(tmp_path / "x.html")]) == 2
    assert main(["report", str(folder), "--smooth", "0", "--out", str(tmp_path / "x.html")]) == 2
    assert "--smooth is for data sets with one class a segment" in capsys.readouterr().err
