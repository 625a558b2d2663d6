"""Run folders: round trips, whole or not at all, and what a stranger's files may not do."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import safetensors.torch
import torch

from heads.registry import build, read_config
from heads.runs import folder as run_folder
from heads.runs.folder import check_free, read_record, read_run, update_run, write_run
from heads.runs.record import RunRecord

CONFIG = {"visual_width": 3, "audio_width": 2, "num_classes": 3, "modality": "both"}
ROWS = {"test": [{"item": "0", "video": "v", "labels_pred": [1], "labels_true": [2], "score": [0.5], "mask": [True]}]}


@pytest.fixture
def record(planted: ModuleType) -> RunRecord:
    return RunRecord(
        head="linear",
        config=dict(CONFIG),
        classes=("a", "b, c"),
        background="background",
        num_segments=10,
        recipe=planted.recipe(),
        store={"uri": "/s", "snapshot": "X"},
        dataset={"name": "ave", "root": "/r", "media": None},
        seed=3,
        training={"epochs": 2},
        metrics={"test": {"accuracy": 0.5, "items": 4}},
        baselines={"majority": 0.25},
        history=({"epoch": 1, "train_loss": 1.5},),
        versions={"torch": "2"},
        created="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture
def run(tmp_path: Path, record: RunRecord) -> Path:
    folder = tmp_path / "runs" / "one"
    write_run(folder, record, build("linear", read_config("linear", CONFIG), seed=4).state_dict(), ROWS)
    return folder


def change(folder: Path, **changes: Any) -> None:
    value = json.loads((folder / "run.json").read_text()) | changes
    (folder / "run.json").write_text(json.dumps(value))


def test_run_written_and_read_is_equal(run: Path, record: RunRecord) -> None:
    found = read_run(run)
    assert found.record == record
    wanted = build("linear", read_config("linear", CONFIG), seed=4).state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.head.state_dict().items())
    assert json.loads((run / "predictions_test.json").read_text()) == ROWS["test"]
    assert sorted(path.name for path in run.parent.iterdir()) == ["one"]
    assert (run.stat().st_mode | (run / "run.json").stat().st_mode) & 0o444 == 0o444 & ~run_folder._umask()


TEXTS = {"vocabulary": "mine", "prompt": "a {}", "background": "other"}


@pytest.fixture
def texts_run(tmp_path: Path, record: RunRecord) -> Path:
    """A run of a head of class texts: classes a (seen) and "b, c" (unseen), and the background."""
    config = {"width": 4, "num_classes": 3, "modality": "both"}
    head = build("ov_avel_free", read_config("ov_avel_free", config))
    head.set_texts(torch.eye(4)[:3], torch.tensor([True, False, True]))
    dataset = record.dataset | {"train_list": "0.25"}
    record = replace(record, head="ov_avel_free", config=config, unseen=("b, c",), texts=dict(TEXTS), dataset=dataset)
    folder = tmp_path / "runs" / "texts"
    write_run(folder, record, head.state_dict(), {})
    return folder


def test_run_of_class_texts_written_and_read_is_equal(texts_run: Path) -> None:
    found = read_run(texts_run)
    assert (found.record.unseen, found.record.texts) == (("b, c",), TEXTS)
    assert found.record.dataset_options == {"train_list": "0.25"}
    assert found.head.get_buffer("texts.trained_K").tolist() == [True, False, True]
    torch.testing.assert_close(found.head.get_buffer("texts.texts_KD"), torch.eye(4)[:3])


def test_run_whose_checkpoint_holds_other_texts_than_its_classes_is_refused(texts_run: Path) -> None:
    head = build("ov_avel_free", read_config("ov_avel_free", {"width": 4, "num_classes": 4, "modality": "both"}))
    head.set_texts(torch.eye(4))
    safetensors.torch.save_file(head.state_dict(), texts_run / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors: holds 4 class texts, run\.json has 3 classes"):
        read_run(texts_run)


def test_run_without_class_texts_says_nothing_of_them(run: Path) -> None:
    # Records of earlier versions have no such fields, and earlier versions refuse fields that they do not know.
    assert not {"unseen", "texts"} & set(json.loads((run / "run.json").read_text()))
    assert (read_record(run).unseen, read_record(run).texts, read_record(run).dataset_options) == ((), None, {})


def test_run_json_holds_the_contracts_fields(run: Path) -> None:
    value = json.loads((run / "run.json").read_text())
    assert list(value) == [
        *("format", "head", "config", "classes", "background", "num_segments", "recipe", "store", "dataset", "seed"),
        *("training", "metrics", "baselines", "history", "versions", "created"),
    ]
    assert sorted(value["recipe"]) == ["fingerprint", "json", "name"]


def test_write_run_existing_run_is_refused_unless_overwrite(run: Path, record: RunRecord) -> None:
    state = build("linear", read_config("linear", CONFIG), seed=5).state_dict()
    with pytest.raises(ValueError, match="exists; choose another folder or pass --overwrite"):
        write_run(run, record, state, {})
    (run / "report.html").write_text("old")
    write_run(run, replace(record, seed=9), state, {}, overwrite=True)
    assert read_record(run).seed == 9
    assert sorted(path.name for path in run.iterdir()) == ["model.safetensors", "run.json"]
    assert sorted(path.name for path in run.parent.iterdir()) == ["one"]


# Replaces the run argv[1] by itself with seed 9; before the argv[2]th renaming it dies, or reads what is there.
REPLACE = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from heads.runs.folder import read_record, read_run, write_run

folder, left = Path(sys.argv[1]), int(sys.argv[2])
run = read_run(folder)

def before(event, arguments):
    global left
    if event == "os.rename":
        left -= 1
        if left == 0 and sys.argv[3] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif left == 0:
            assert not folder.exists()
            print(read_record(folder).seed)

sys.addaudithook(before)
write_run(folder, replace(run.record, seed=9), run.head.state_dict(), {}, overwrite=True)
"""


def replaced(run: Path, renaming: int, then: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", REPLACE, str(run), str(renaming), then]
    return subprocess.run(words, check=False, timeout=900, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("renaming", "seed"),
    [pytest.param(1, 3, marks=pytest.mark.slow), (2, 3), pytest.param(3, 9, marks=pytest.mark.slow)],
)
def test_write_run_killed_while_it_replaces_a_run_leaves_a_whole_one(run: Path, renaming: int, seed: int) -> None:
    assert replaced(run, renaming, "die").returncode == -signal.SIGKILL
    # In between there is nothing at its place, which is not free all the same.
    assert run.exists() == (renaming != 2)
    with pytest.raises(ValueError, match="exists; choose another folder or pass --overwrite"):
        check_free(run, overwrite=False)
    assert read_run(run).record.seed == seed


@pytest.mark.slow
def test_read_run_killed_while_it_was_replaced_puts_the_old_one_back(run: Path) -> None:
    replaced(run, 2, "die")
    assert not run.exists()
    # What a run of a similar name left is not this one's, whatever comes after it.
    other = run.with_name("one.old")
    shutil.copytree(next(run.parent.glob(".one.old.*")), other)
    replaced(other, 2, "die")
    (next(run.parent.glob(".one.old.old.*")) / "run.json").touch()
    assert read_run(run).record.seed == 3
    assert not other.exists()
    assert read_run(other).record.seed == 3


@pytest.mark.slow
def test_write_run_whose_place_a_reader_gave_back_to_the_old_run_replaces_it(run: Path) -> None:
    done = replaced(run, 2, "read")
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
    assert read_run(run).record.seed == 9
    assert [path.name for path in run.parent.iterdir()] == ["one"]


def test_check_free_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"file/sub/run cannot be made: .*/file is not a folder; choose another place"):
        check_free(tmp_path / "file" / "sub" / "run", overwrite=False)


def test_check_free_overwrite_keeps_folders_that_are_not_runs(tmp_path: Path, run: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("x")
    with pytest.raises(ValueError, match=r"not overwritten: it holds no run\.json"):
        check_free(tmp_path / "photos", overwrite=True)
    (run / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"not overwritten: it holds thesis.tex"):
        check_free(run, overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="not a folder"):
        check_free(tmp_path / "file", overwrite=True)
    (tmp_path / "empty").mkdir()
    check_free(tmp_path / "empty", overwrite=False)
    check_free(tmp_path / "new" / "deep", overwrite=False)


def test_write_run_number_that_is_not_finite_leaves_nothing(tmp_path: Path, record: RunRecord) -> None:
    with pytest.raises(ValueError, match=r"metrics\.test\.accuracy must be a finite number"):
        replace(record, metrics={"test": {"accuracy": float("nan")}})
    bad = replace(record, training={"rate": float("nan")})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_run(tmp_path / "run", bad, build("linear", read_config("linear", CONFIG)).state_dict(), {})
    assert list(tmp_path.iterdir()) == []


def test_update_run_replaces_record_and_predictions_only(run: Path, record: RunRecord) -> None:
    before = (run / "model.safetensors").read_bytes()
    update_run(run, replace(record, metrics={"val": {"accuracy": 1.0}}), {"val": []})
    assert read_record(run).metrics == {"val": {"accuracy": 1.0}}
    assert (run / "model.safetensors").read_bytes() == before
    names = sorted(path.name for path in run.iterdir())
    assert names == ["model.safetensors", "predictions_test.json", "predictions_val.json", "run.json"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": 2}, "format must be 1, got 2"),
        ({"head": "../../evil"}, "head must be a head of this version"),
        ({"extra": 1}, "fields missing or unknown: extra"),
        ({"classes": ["a", "a"]}, "classes must be different texts"),
        ({"classes": ["a"]}, "needs 2 outputs, its config says 3"),
        ({"num_segments": True}, "num_segments must be a whole number"),
        ({"num_segments": 0}, "num_segments must be more than 0"),
        ({"seed": "1"}, "seed must be a whole number"),
        ({"metrics": {"test": {"accuracy": "high"}}}, r"metrics\.test\.accuracy must be a number"),
        ({"metrics": {"test": {"accuracy": True}}}, r"metrics\.test\.accuracy must be a number"),
        ({"baselines": [1]}, "baselines must be an object"),
        ({"history": [{"epoch": None}]}, r"history\.0\.epoch must be a number"),
        ({"dataset": {"name": None, "root": "", "media": ""}}, "dataset must be an object of name, root, media"),
        ({"dataset": {"name": "a", "root": "", "media": None, "train_list": 1}}, r"dataset\.train_list must be text"),
        ({"dataset": {"name": "a", "root": "", "media": None, "train_list": None}}, "dataset must be an object of"),
        ({"store": {"uri": "x"}}, "store must be an object of uri, snapshot"),
        ({"unseen": "a"}, "unseen must be a list"),
        ({"unseen": ["zebra"]}, "unseen classes are among the classes, got 'zebra'"),
        ({"texts": {"vocabulary": "mine"}}, "texts must be an object of vocabulary, prompt, background"),
        ({"texts": TEXTS}, "texts must be null for head linear"),
        ({"config": CONFIG | {"visual_width": 1.5}}, r"visual_width must be a whole number, got 1\.5"),
        ({"recipe": {"name": "x", "json": "{}", "fingerprint": ""}}, "recipe: field 'name' is missing"),
    ],
)
def test_read_run_wrong_record_names_file_and_field(run: Path, changes: dict[str, Any], told: str) -> None:
    change(run, **changes)
    with pytest.raises(ValueError, match=told) as caught:
        read_run(run)
    assert str(run / "run.json") in str(caught.value)


def test_read_run_recipe_changed_behind_its_fingerprint_raises(run: Path) -> None:
    recipe = json.loads((run / "run.json").read_text())["recipe"]
    recipe["json"] = recipe["json"].replace('"rate_hz":16000', '"rate_hz":44100')
    change(run, recipe=recipe)
    with pytest.raises(ValueError, match=r"recipe.fingerprint is .*, and its settings give"):
        read_run(run)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1, "seed": NaN}', "[" * 100_000])
def test_read_record_text_that_is_no_record_raises(run: Path, text: str) -> None:
    (run / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json: "):
        read_record(run)


def test_read_run_missing_parts_say_which(tmp_path: Path, run: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a run: it has no run\.json"):
        read_run(tmp_path / "nowhere")
    (run / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        read_run(run)


def test_read_run_checkpoint_that_is_a_folder_is_named(run: Path) -> None:
    (run / "model.safetensors").unlink()
    (run / "model.safetensors").mkdir()
    with pytest.raises(ValueError, match=r"one/model\.safetensors is a folder"):
        read_run(run)


def test_read_run_pickle_as_checkpoint_is_refused_and_not_run(run: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "pwned"),))

    (run / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match=r"model\.safetensors: "):
        read_run(run)
    assert not (tmp_path / "pwned").exists()


def test_read_run_truncated_checkpoint_raises(run: Path) -> None:
    whole = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=r"model\.safetensors: "):
        read_run(run)


def test_write_run_all_files_are_readable_by_whom_the_umask_lets(run: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in run.iterdir() if path.is_file()}
    assert set(modes.values()) == {modes["run.json"]}


@pytest.mark.parametrize("name", ["tensorboard/notes.txt", "drawings.png/mine.txt"])
def test_check_free_overwrite_keeps_files_that_users_put_into_a_runs_folders(run: Path, name: str) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text("mine")
    with pytest.raises(ValueError, match=f"is not overwritten: it holds {name.partition('/')[0]}"):
        check_free(run, overwrite=True)


def test_check_free_overwrite_takes_tensorboards_own_files_and_pages(run: Path) -> None:
    (run / "tensorboard").mkdir(exist_ok=True)
    (run / "tensorboard" / "events.out.tfevents.1.host.2.0").write_bytes(b"")
    (run / "report.html").write_text("page")
    check_free(run, overwrite=True)


def test_run_whose_parameters_cannot_be_opened_says_why(run: Path) -> None:
    path = run / "model.safetensors"
    path.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        read_run(run)
    path.symlink_to(path)
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read: Too many levels of symbolic links"):
        read_run(run)


def test_folder_of_several_seeds_names_them(run: Path, tmp_path: Path) -> None:
    for seed in (10, 9):
        shutil.copytree(run, tmp_path / "seeds" / f"seed-{seed}")
    (tmp_path / "seeds" / "seed-11.partial").mkdir()
    (tmp_path / "seeds" / "seeds.json").write_text("{}")
    with pytest.raises(ValueError, match=r"seeds is not a run but holds several: seed-9, seed-10; .*/seeds/seed-9"):
        read_record(tmp_path / "seeds")
    with pytest.raises(ValueError, match=r"it has no run\.json; `avel train --out"):
        read_record(tmp_path)
