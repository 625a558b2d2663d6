"""`avel evaluate`: the trained run's numbers again, on other splits and stores, and refusal of other features."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from catalog.datasets import ave
from catalog.event import Event
from catalog.store.reader import open_store
from catalog.store.rows import VideoResult
from catalog.store.writer import open_writer
from catalog.video import EXTRACTED
from heads.runs.folder import read_record
from jobs.cli.main import main
from tests.heads import planted


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """AVE's files in `ave`, a store (one test video quarantined) in `store`, a run of it in `run`."""
    data = planted.dataset()
    ave.write(data, tmp_path / "ave")
    planted.store(tmp_path / "store", data, quarantined=["video-003"])
    places = ["--store", str(tmp_path / "store"), "--dataset", "ave", "--root", str(tmp_path / "ave")]
    assert main(["train", *places, "--out", str(tmp_path / "run"), "--epochs", "25", "--lr", "1e-2", "--json"]) == 0
    return tmp_path


def evaluated(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    capsys.readouterr()
    assert main(["evaluate", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert isinstance(told, dict)
    return told


def test_evaluate_test_split_gives_the_numbers_of_training_again(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, rows = read_record(place / "run"), (place / "run" / "predictions_test.json").read_text()
    (place / "run" / "predictions_test.json").unlink()
    told = evaluated(capsys, str(place / "run"))
    assert told["metrics"] == before.metrics["test"]
    assert told["written"]
    assert read_record(place / "run") == before
    assert (place / "run" / "predictions_test.json").read_text() == rows
    confusion = told["confusion"]
    assert isinstance(confusion, list)
    assert sum(map(sum, confusion)) == 150
    assert told["classes"] == [*planted.CLASSES, "background"]


def test_evaluate_train_split_adds_its_numbers_and_predictions(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(place / "run"), "--split", "train"]) == 0
    assert "majority" in capsys.readouterr().out
    record = read_record(place / "run")
    assert set(record.metrics) == {"val", "test", "train"}
    assert record.metrics["train"]["items"] == 30
    assert len(json.loads((place / "run" / "predictions_train.json").read_text())) == 30


def test_evaluate_store_that_grew_is_read_as_trained_on_unless_newest(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, made_with = planted.dataset(), planted.recipe()
    (item,) = (item for item in data.items if item.video_id == "video-003")
    (video,) = (video for video in data.videos if video.id == "video-003")
    with open_writer(open_store(place / "store")) as writer:
        rows = {made_with.name: planted.rows_of(item, made_with)}
        result = VideoResult(video=video, unit=0, outcome=EXTRACTED, duration_s=10.0, features=rows)
        writer.append([result], [made_with.name], replace=True)
        writer.commit("retried")
    before = read_record(place / "run")
    assert evaluated(capsys, str(place / "run"))["metrics"] == before.metrics["test"]
    newest = evaluated(capsys, str(place / "run"), "--newest")
    metrics = newest["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["items_without_features"] == 0
    assert not newest["written"]
    assert read_record(place / "run") == before


def test_evaluate_moved_store_is_found_by_its_new_place(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.move(place / "store", place / "moved")
    assert main(["evaluate", str(place / "run")]) == 1
    assert "no store there" in capsys.readouterr().err
    assert evaluated(capsys, str(place / "run"), "--store", str(place / "moved"))["written"]


def test_evaluate_features_of_another_recipe_are_refused_naming_both(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = planted.recipe(window_s="2")
    planted.store(place / "other", planted.dataset(), other)
    assert main(["evaluate", str(place / "run"), "--store", str(place / "other")]) == 2
    told = capsys.readouterr().err
    assert "grid.window_s: needs 1, store has 2" in told
    assert other.fingerprint()[:12] in told
    assert planted.recipe().fingerprint()[:12] in told


def test_evaluate_by_other_annotations_leaves_the_runs_own_numbers(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [place / "run" / name for name in ("run.json", "predictions_test.json")]
    before = [path.read_bytes() for path in files]
    data = planted.dataset()
    late = Event(start_s=Fraction(9), end_s=Fraction(10), label=data.split("test")[0].events[0].label)
    first = data.split("test")[0].id
    items = tuple(replace(item, events=(late,)) if item.id == first else item for item in data.items)
    ave.write(replace(data, items=items), place / "other")
    told = evaluated(capsys, str(place / "run"), "--root", str(place / "other"))
    assert not told["written"]
    assert "annotations at" in str(told["warnings"])
    assert [path.read_bytes() for path in files] == before
    shutil.rmtree(place / "other")
    shutil.copytree(place / "ave", place / "moved")
    assert evaluated(capsys, str(place / "run"), "--root", str(place / "moved"))["written"]


def test_evaluate_tells_the_numbers_where_they_cannot_be_written(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = place / "run" / "predictions_test.json"
    own.unlink()
    own.mkdir()
    (own / "in the way").touch()
    told = evaluated(capsys, str(place / "run"))
    assert not told["written"]
    assert "left as they are" in str(told["warnings"])
    assert told["metrics"] == read_record(place / "run").metrics["test"]


def test_evaluate_annotations_with_other_classes_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (place / "ave").glob("*.txt"):
        path.write_text(path.read_text().replace("Bark", "Miaow"))
    assert main(["evaluate", str(place / "run")]) == 1
    assert "have others" in capsys.readouterr().err


def test_evaluate_folder_that_is_no_run_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path)]) == 1
    assert "is not a run" in capsys.readouterr().err


def test_evaluate_device_that_is_not_here_is_a_bad_argument(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(place / "run"), "--device", "nosuch"]) == 2
    assert "--device: torch cannot compute on 'nosuch' here" in capsys.readouterr().err
