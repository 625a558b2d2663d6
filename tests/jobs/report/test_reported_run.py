from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.report.reported_run import chosen_epoch, read_extraction, read_predictions, read_run, validation_metric

ROW = {"item": "i", "video": "v", "labels_true": [0, 2], "labels_pred": [0, 1], "score": [0.5, 0.5], "mask": [True] * 2}


def test_read_run_of_a_folder_without_run_names_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a run"):
        read_run(tmp_path)


def test_read_run_labels_end_with_the_background(make_run: Any) -> None:
    run = read_run(make_run("run", ["a", "b"], []))
    assert run.labels == ("a", "b", "background")
    assert chosen_epoch(run.record) == 2
    assert validation_metric(run.record.history) == "val_accuracy"


def test_read_run_of_several_seeds_has_means_deviations_and_the_first_seed_s_predictions(
    make_run: Any, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    for seed, accuracy in ((10, 0.5), (9, 0.25), (11, 0.75)):
        metrics = {"test": {"accuracy": accuracy, "items": 1}}
        make_run(f"runs/seed-{seed}", ["a", "b"], [ROW | {"item": f"of seed {seed}"}], seed=seed, metrics=metrics)
    run = read_run(tmp_path / "runs")
    assert (run.folder, run.seeds, run.record.seed) == (tmp_path / "runs", ("seed-9", "seed-10", "seed-11"), 9)
    assert run.numbers("test") == {"accuracy": 0.5, "items": 1}
    assert run.sds("test") == {"accuracy": 0.25}
    assert run.numbers("val") == run.sds("val") == {}
    assert [item.item_id for item in read_predictions(run, "test") or ()] == ["of seed 9"]


def test_read_run_of_one_run_has_its_numbers_and_no_deviations(make_run: Any) -> None:
    run = read_run(make_run("run", ["a", "b"], None))
    assert run.numbers("test") == {"accuracy": 0.4375, "loss": 1.5}
    assert run.sds("test") == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ["a", "c"]}, "runs: classes of seed-1 is not that of seed-0; give one of these runs"),
        ({"metrics": {"test": {"loss": 1.0}}}, "runs: runs of several seeds must have the same splits and metrics"),
    ],
)
def test_read_run_of_several_that_differ_in_more_than_their_seeds_is_refused(
    make_run: Any, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    (tmp_path / "runs").mkdir()
    make_run("runs/seed-0", ["a", "b"], None, seed=0)
    make_run("runs/seed-1", fields.pop("classes", ["a", "b"]), None, seed=1, **fields)
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path / "runs")


def test_read_predictions_without_file_is_none_and_of_an_empty_list_is_empty(make_run: Any) -> None:
    assert read_predictions(read_run(make_run("without", ["a"], None)), "test") is None
    assert read_predictions(read_run(make_run("empty", ["a"], [])), "test") == ()


def test_read_predictions_counts_right_segments(make_run: Any) -> None:
    items = read_predictions(read_run(make_run("run", ["a", "b"], [ROW])), "test")
    assert items is not None
    assert (items[0].num_right, items[0].num_segments) == (1, 2)
    assert items[0].wrong_T.tolist() == [False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels_pred": [0, 3]}, r"\[1\].labels_pred: needs class numbers in 0 .. 2, got \[3\]"),
        ({"labels_pred": [0, -1]}, "class numbers in"),
        ({"labels_pred": [0]}, "labels_pred: needs a list of 2 entries"),
        ({"labels_pred": "ab"}, "labels_pred: needs a list of class numbers"),
        ({"labels_pred": [[0, 1], [1]]}, "one class a segment"),
        ({"labels_true": [0, True]}, "labels_true: needs class numbers"),
        ({"mask": [True]}, "mask: needs a list of 2 entries"),
        ({"score": [0.5, "x"]}, r"score\[1\]: needs a number for each class"),
        ({"score": [[0.5, 0.1], 0.5]}, r"score\[0\]: needs a number for each class"),
        ({"video": 7}, r"\[1\].video: needs a text, got 7"),
        ({"item": ""}, "item: needs a text"),
    ],
)
def test_read_predictions_of_a_damaged_item_names_item_and_field(
    make_run: Any, change: dict[str, Any], message: str
) -> None:
    run = read_run(make_run("run", ["a", "b"], [ROW, ROW | change]))
    with pytest.raises(ValueError, match=message):
        read_predictions(run, "test")


def test_read_predictions_that_are_no_json_names_the_file(make_run: Any) -> None:
    folder = make_run("run", ["a"], None)
    (folder / "predictions_test.json").write_bytes(b"[\xff]")
    with pytest.raises(ValueError, match=r"predictions_test.json: not JSON"):
        read_predictions(read_run(folder), "test")


def test_read_extraction_counts_what_the_store_holds(make_run: Any, make_store: Any) -> None:
    videos = {
        "good": ("/media/good.mp4", "extracted", ""),
        "mute": ("/media/mute.mp4", "partial", "no_audio"),
        "gone": ("/media/gone.mp4", "quarantined", "missing_file"),
        "away": ("/media/away.mp4", "quarantined", "missing_file"),
        "slow": ("/media/slow.mp4", "quarantined", "decoder_timeout"),
    }
    uri, snapshot = make_store(videos)
    found = read_extraction(read_run(make_run("run", ["a"], [], store={"uri": uri, "snapshot": snapshot})))
    assert found.problem == ""
    assert dict(found.statuses) == {"pending": 0, "extracted": 1, "partial": 1, "quarantined": 3}
    assert found.total == 5
    assert found.reasons[0] == ("quarantined", "missing_file", 2)
    assert set(found.reasons) == {
        ("quarantined", "missing_file", 2),
        ("partial", "no_audio", 1),
        ("quarantined", "decoder_timeout", 1),
    }
    assert found.duration_s == 10
    assert found.videos["mute"].uri == "/media/mute.mp4"


def test_read_extraction_is_of_the_snapshot_and_not_of_what_came_later(make_run: Any, make_store: Any) -> None:
    from catalog.store.reader import open_store
    from catalog.store.rows import VideoResult
    from catalog.store.writer import open_writer
    from catalog.video import Outcome, Video

    uri, snapshot = make_store({"good": ("/media/good.mp4", "extracted", "")})
    with open_writer(open_store(uri)) as writer:
        later = Video(id="later", uri="/media/later.mp4")
        writer.append(
            [VideoResult(video=later, unit=0, outcome=Outcome(status="quarantined", reason="missing_file"))],
            ["tiny-1s"],
        )
        writer.commit("later")
    found = read_extraction(read_run(make_run("run", ["a"], [], store={"uri": uri, "snapshot": snapshot})))
    assert found.total == 1


@pytest.mark.parametrize("store", [{"uri": "/nowhere/at/all", "snapshot": "X"}, {"uri": "", "snapshot": "NONESUCH"}])
def test_read_extraction_of_a_store_or_snapshot_that_is_gone_says_so(
    make_run: Any, make_store: Any, store: dict[str, str]
) -> None:
    uri, _ = make_store({"good": ("/media/good.mp4", "extracted", "")})
    found = read_extraction(read_run(make_run("run", ["a"], [], store=store | {"uri": store["uri"] or uri})))
    assert found.problem
    assert found.total == 0


def test_read_predictions_of_an_item_that_stands_twice_names_it(make_run: Any) -> None:
    rows = [ROW, ROW | {"item": "j"}, ROW | {"labels_pred": [0, 0]}]
    run = read_run(make_run("run", ["a", "b"], rows))
    with pytest.raises(ValueError, match=r"predictions_test.json\[2\].item: 'i' is at \[0\] already"):
        read_predictions(run, "test")
