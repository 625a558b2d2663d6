from __future__ import annotations

from typing import Any

import pytest

from jobs.report.dense.evidence import MOST_EVENTS, read_dense_predictions
from jobs.report.reported_run import read_run
from tests.jobs.report.made_dense import CLASSES, rows, run_fields

MADE = rows(2)
ROW: dict[str, Any] = {
    "item": "i",
    "video": "v",
    "duration_s": 10.0,
    "events_true": [[0, 4.5, 0], [2.0, 3.0, 3]],
    "events_pred": [[0.5, 4.0, 0, 0.75], [9.0, 10, 1, 0]],
}


def test_read_dense_predictions_takes_rows_as_they_are(make_run: Any) -> None:
    items = read_dense_predictions(read_run(make_run("run", CLASSES, [ROW], **run_fields(MADE))), "test")
    assert items is not None
    (item,) = items
    assert (item.item_id, item.video_id, item.duration_s) == ("i", "v", 10.0)
    assert item.true_E2.tolist() == [[0, 4.5], [2, 3]]
    assert item.true_labels_E.tolist() == [0, 3]
    assert item.predicted_P2.tolist() == [[0.5, 4], [9, 10]]
    assert item.predicted_labels_P.tolist() == [0, 1]
    assert item.scores_P.tolist() == [0.75, 0]


@pytest.mark.parametrize("change", [{"duration_s": None}, {"events_true": []}, {"events_pred": [[3, 3, 0, 0.5]]}])
def test_read_dense_predictions_of_what_may_be_missing_succeeds(make_run: Any, change: dict[str, Any]) -> None:
    # A prediction shorter than the digits written has lost its length.
    run = read_run(make_run("run", CLASSES, [ROW | change], **run_fields(MADE)))
    assert read_dense_predictions(run, "test") is not None


def test_read_dense_predictions_without_file_is_none(make_run: Any) -> None:
    assert read_dense_predictions(read_run(make_run("run", CLASSES, None, **run_fields(MADE))), "test") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item": ""}, r"\[1\].item: needs a text, got ''"),
        ({"video": 7}, r"\[1\].video: needs a text, got 7"),
        ({"duration_s": 0}, r"\[1\].duration_s: needs seconds above 0 .*, or null, got 0"),
        ({"duration_s": float("nan")}, r"\[1\].duration_s: needs seconds .* got nan"),
        ({"duration_s": True}, r"\[1\].duration_s: needs seconds"),
        ({"events_true": None}, r"\[1\].events_true: needs a list of \[start_s, end_s, class\], got None"),
        ({"events_true": [[0, 1]]}, r"\[1\].events_true\[0\]: needs \[start_s, end_s, class\], got \[0, 1\]"),
        ({"events_true": [[0, 1, 0, 0.5]]}, r"\[1\].events_true\[0\]: needs"),
        (
            {"events_true": [[0, 1, 0], [1, 1, 0]]},
            r"\[1\].events_true\[1\]: needs a start before its end, got \[1, 1\]",
        ),
        ({"events_true": [[2, 1, 0]]}, "needs a start before its end"),
        ({"events_true": [[-1, 1, 0]]}, r"events_true\[0\]: needs seconds in 0 .. 1e\+09, got \[-1, 1\]"),
        ({"events_true": [[0, 10**400, 0]]}, r"events_true\[0\]: needs seconds"),
        ({"events_true": [[0, float("inf"), 0]]}, r"events_true\[0\]: needs seconds"),
        ({"events_true": [[0, 1, 4]]}, r"events_true\[0\]: needs a class in 0 .. 3, got 4"),
        ({"events_true": [[0, 1, -1]]}, "needs a class in 0 .. 3, got -1"),
        ({"events_true": [[0, 1, 1.0]]}, "needs a class in 0 .. 3, got 1.0"),
        ({"events_true": [[0, 1, True]]}, "needs a class in 0 .. 3, got True"),
        ({"events_pred": {}}, r"events_pred: needs a list of \[start_s, end_s, class, score\]"),
        ({"events_pred": [[0, 1, 0]]}, r"events_pred\[0\]: needs \[start_s, end_s, class, score\]"),
        ({"events_pred": [[float("nan"), 1, 0, 0.5]]}, r"events_pred\[0\]: needs seconds in"),
        ({"events_pred": [[0, 1, 0, float("nan")]]}, r"events_pred\[0\]: needs a score in 0 .. 1, got nan"),
        ({"events_pred": [[0, 1, 0, 1.5]]}, "needs a score in 0 .. 1, got 1.5"),
        ({"events_pred": [[0, 1, 0, "0.5"]]}, "needs a score in 0 .. 1, got '0.5'"),
        ({"events_pred": [[1, 0.5, 0, 0.5]]}, "needs a start before its end"),
        ({"events_pred": [[0, 1, 0, 0.5]] * (MOST_EVENTS + 1)}, f"needs at most {MOST_EVENTS} events"),
    ],
)
def test_read_dense_predictions_of_a_damaged_item_names_item_and_field(
    make_run: Any, change: dict[str, Any], message: str
) -> None:
    run = read_run(make_run("run", CLASSES, [ROW, ROW | change], **run_fields(MADE)))
    with pytest.raises(ValueError, match=message):
        read_dense_predictions(run, "test")


@pytest.mark.parametrize("text", ["[" * 100_000, "[" + "9" * 5000 + "]", '{"a": 1', "[7]", "{}"])
def test_read_dense_predictions_that_are_no_list_of_items_name_the_file(make_run: Any, text: str) -> None:
    folder = make_run("run", CLASSES, None, **run_fields(MADE))
    (folder / "predictions_test.json").write_text(text)
    with pytest.raises(ValueError, match=r"predictions_test.json"):
        read_dense_predictions(read_run(folder), "test")


def test_read_dense_predictions_of_an_item_that_stands_twice_names_it(make_run: Any) -> None:
    rows = [ROW | {"item": "j"}, ROW, ROW | {"events_pred": []}]
    run = read_run(make_run("run", CLASSES, rows, **run_fields(MADE)))
    with pytest.raises(ValueError, match=r"predictions_test.json\[2\].item: 'i' is at \[1\] already"):
        read_dense_predictions(run, "test")
