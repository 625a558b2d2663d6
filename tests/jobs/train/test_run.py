"""`avel train` from a real store and real annotation files to a run folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from catalog.datasets import ave
from heads.runs.folder import read_run
from jobs.cli.main import main
from tests.heads import planted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with AVE's files in `ave` and a store in `store`, one test video missing from it."""
    place = tmp_path_factory.mktemp("train")
    data = planted.dataset()
    ave.write(data, place / "ave")
    planted.store(place / "store", data, missing=["video-003"])
    return place


def words(folder: Path, out: Path, *more: str) -> list[str]:
    places = ["--store", str(folder / "store"), "--dataset", "ave", "--root", str(folder / "ave")]
    return ["train", *places, "--out", str(out), "--epochs", "25", "--lr", "1e-2", *more]


def test_train_prints_head_and_baselines_and_writes_the_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(folder, tmp_path / "run")) == 0
    out, err = capsys.readouterr()
    assert "linear (both)" in out
    assert "majority" in out
    assert "always_event" in out
    assert "test: 1 of 15 items without features, counted as background (not in the store 1)" in err
    run = read_run(tmp_path / "run")
    assert run.record.metrics["test"]["segments"] == 150
    assert run.record.store["uri"] == str(folder / "store")
    assert run.record.dataset == {"name": "ave", "root": str(folder / "ave"), "media": None}
    assert f"{100 * run.record.metrics['test']['accuracy']:.2f}" in out
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["model.safetensors", "predictions_test.json", "predictions_val.json", "run.json", "tensorboard"]
    assert not (tmp_path / "run.partial").exists()


def test_train_json_is_one_object_on_standard_output(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(folder, tmp_path / "run", "--json", "--modality", "audio")) == 0
    out, _ = capsys.readouterr()
    told = json.loads(out)
    assert told["modality"] == "audio"
    assert told["metrics"] == read_run(tmp_path / "run").record.metrics
    assert set(told["baselines"]) == {"val", "test"}


def test_train_same_seed_twice_writes_equal_checkpoints(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert main(words(folder, tmp_path / name, "--seed", "3", "--json")) == 0
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert one == two


def test_train_run_that_exists_is_refused_before_training(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(folder, tmp_path / "run", "--json")) == 0
    before = (tmp_path / "run" / "run.json").read_text()
    assert main(words(folder, tmp_path / "run")) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    assert (tmp_path / "run" / "run.json").read_text() == before
    assert main(words(folder, tmp_path / "run", "--seed", "1", "--overwrite", "--json")) == 0
    assert read_run(tmp_path / "run").record.seed == 1


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--recipe", "nosuch"], "--recipe: the store has no 'nosuch'; the store has descriptors-1s"),
        (["--dataset", "nosuch"], "--dataset: there is no 'nosuch'; there are "),
        (["--head", "nosuch"], "--head: there is no 'nosuch'; there are "),
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--lr", "nan"], "learning_rate must be at most 1000000, got nan"),
        (["--head", "psp", "--modality", "audio"], "--head psp: the head relates audio to frames and needs both"),
        (["--head", "ave_clip", "--set", "width=-4"], "--head ave_clip: "),
        (["--head", "psp", "--modality", "audio", "--seeds", "2"], "--head psp: the head relates audio to frames"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["--threads", "100000"], "--threads must be at most 256, got 100000"),
        (["--seed", str(2**63)], "seed must be at most 9223372036854775807"),
        (["--seeds", "99999999999"], "--seeds must be at most 1000"),
        (["--device", "nosuch"], "--device: torch cannot compute on 'nosuch' here"),
        (["--device", "meta"], "--device: torch cannot compute on 'meta' here"),
        (["--device", "cuda:77"], "--device: torch cannot compute on 'cuda:77' here"),
    ],
)
def test_train_bad_argument_exits_2_and_writes_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    assert main(words(folder, tmp_path / "run", *more)) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [[], ["--seeds", "2"], ["--overwrite"]])
def test_train_out_below_a_file_is_a_bad_argument_that_names_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(words(folder, tmp_path / "file" / "sub", *more)) == 2
    assert f"{tmp_path / 'file'} is not a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_train_missing_store_exits_1(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(folder, tmp_path / "run", "--store", str(tmp_path / "nowhere"))) == 1
    assert "no store there" in capsys.readouterr().err


def test_train_folder_of_another_at_the_place_of_the_unfinished_run_is_kept(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "run.partial" / "thesis.txt"
    theirs.parent.mkdir()
    theirs.write_text("years of work")
    assert main(words(folder, tmp_path / "run")) == 2
    assert "run.partial holds thesis.txt" in capsys.readouterr().err
    assert theirs.read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["run.partial"]


def test_train_file_at_the_place_of_the_unfinished_run_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.partial").write_text("mine")
    assert main(words(folder, tmp_path / "run")) == 2
    assert "run.partial is not a folder" in capsys.readouterr().err
