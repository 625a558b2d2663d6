"""`avel train` killed or stopped at any moment and run again: the same run as an undisturbed one."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from catalog.datasets import ave
from heads.runs.folder import read_record
from heads.training.checkpoint import FILE
from jobs.cli.main import main
from tests.heads import planted
from tests.jobs.train.held import Held

EPOCHS = 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with AVE's files in `ave` and a store in `store`."""
    place = tmp_path_factory.mktemp("resume")
    data = planted.dataset()
    ave.write(data, place / "ave")
    planted.store(place / "store", data)
    return place


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Path:
    assert main(steady(folder, folder / "undisturbed")) == 0
    return folder / "undisturbed"


def words(folder: Path, out: Path, *more: str) -> list[str]:
    places = ["--store", str(folder / "store"), "--dataset", "ave", "--root", str(folder / "ave")]
    return ["train", *places, "--out", str(out), "--json", *more]


def steady(folder: Path, out: Path) -> list[str]:
    """Epochs enough to be killed in several; what heads of all kinds keep is tested in tests/heads."""
    return words(
        folder, out, "--epochs", str(EPOCHS), "--patience", "0", "--batch", "5", "--lr", "3e-3", "--ema", "0.9"
    )


def ended_at(epoch: int, number: signal.Signals, folder: Path, out: Path) -> tuple[int, str]:
    """Runs the verb in a process of its own, holds it at `epoch` and sends it a signal there."""
    held = Held(epoch, out.parent.with_name(f"{out.parent.name}-at-{epoch}"), steady(folder, out))
    held.wait_for(out.name)
    return held.end(number)


def epochs_kept(out: Path) -> int:
    path = out.with_name(f"{out.name}.partial") / FILE
    if not path.exists():
        return 0
    with safetensors.safe_open(path, framework="pt") as file:
        return len(json.loads(file.metadata()["told"])["history"])


def assert_equal_runs(one: Path, two: Path) -> None:
    for name in ("model.safetensors", "predictions_val.json", "predictions_test.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    records = [read_record(place) for place in (one, two)]
    histories: list[Any] = [[{k: v for k, v in row.items() if k != "seconds"} for row in r.history] for r in records]
    assert histories[0] == histories[1]
    assert records[0].metrics == records[1].metrics


@pytest.fixture(scope="module")
def interrupted(folder: Path) -> Path:
    """A folder whose training of `run` was killed: it holds `run.partial`, which tests copy."""
    status, said = ended_at(3, signal.SIGKILL, folder, folder / "interrupted" / "run")
    assert status == -signal.SIGKILL, said
    assert [path.name for path in (folder / "interrupted").iterdir()] == ["run.partial"]
    assert 1 <= epochs_kept(folder / "interrupted" / "run") <= 3
    return folder / "interrupted"


@pytest.mark.parametrize(
    "ends",
    [
        pytest.param([(5, signal.SIGTERM)], id="killed and stopped"),
        pytest.param(
            [(5, signal.SIGTERM), (8, signal.SIGKILL), (11, signal.SIGINT)], id="often", marks=pytest.mark.slow
        ),
    ],
)
def test_train_killed_and_stopped_at_several_epochs_equals_undisturbed_bit_for_bit(
    folder: Path, undisturbed: Path, interrupted: Path, tmp_path: Path, ends: list[tuple[int, signal.Signals]]
) -> None:
    shutil.copytree(interrupted / "run.partial", tmp_path / "run.partial")
    out = tmp_path / "run"
    kept = epochs_kept(out)
    for epoch, number in ends:
        status, said = ended_at(epoch, number, folder, out)
        # What is kept after each epoch hangs on the time that keeping takes; a training that is stopped keeps its last.
        assert kept <= epochs_kept(out) <= epoch
        assert number == signal.SIGKILL or epochs_kept(out) == epoch
        kept = epochs_kept(out)
        assert not out.exists(), "a run appears whole or not at all"
        if number == signal.SIGKILL:
            assert status == -signal.SIGKILL
        else:
            assert status == 128 + number, said
            assert "the same command goes on" in said
    assert main(steady(folder, out)) == 0
    assert_equal_runs(out, undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    # The scalars of all processes: each epoch once.
    scalars = EventAccumulator(str(out / "tensorboard")).Reload()
    history = read_record(out).history
    assert sorted(scalars.Tags()["scalars"]) == sorted(history[0].keys() - {"epoch"})
    events = scalars.Scalars("val_accuracy")
    assert [event.step for event in events] == list(range(1, EPOCHS + 1))
    assert [event.value for event in events] == pytest.approx([row["val_accuracy"] for row in history])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--lr", "2e-3"], "learning_rate: 0.003, now 0.002"),
        (["--seed", "1", "--ema", "0.8"], "seed: 0, now 1; ema: 0.9, now 0.8"),
        (["--modality", "audio"], "modality: both, now audio"),
        (["--threads", "2"], "threads: 1, now 2"),
    ],
)
def test_train_goes_on_with_the_same_settings_only(
    interrupted: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    shutil.copytree(interrupted / "run.partial", tmp_path / "run.partial")
    assert main([*steady(folder, tmp_path / "run"), *more]) == 2
    assert f"of other settings ({told})" in capsys.readouterr().err
    assert (tmp_path / "run.partial" / FILE).exists()
    assert not (tmp_path / "run").exists()


def test_train_store_or_annotations_that_changed_are_named_and_restart_begins_anew(
    interrupted: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(interrupted / "run.partial", tmp_path / "run.partial")
    for name in ("ave", "store"):
        shutil.copytree(folder / name, tmp_path / name)
    data = planted.dataset(seed=1)
    shutil.rmtree(tmp_path / "ave")
    ave.write(data, tmp_path / "ave")
    assert main(steady(tmp_path, tmp_path / "run")) == 2
    assert "(annotations: " in capsys.readouterr().err
    shutil.rmtree(tmp_path / "store")
    planted.store(tmp_path / "store", data)
    assert main(steady(tmp_path, tmp_path / "run")) == 2
    assert "store's snapshot: " in capsys.readouterr().err
    assert main([*steady(folder, tmp_path / "run"), "--epochs", "2", "--restart"]) == 0
    assert len(read_record(tmp_path / "run").history) == 2
    assert not (tmp_path / "run.partial").exists()


def test_train_damaged_checkpoint_is_told_and_kept(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.partial").mkdir()
    (tmp_path / "run.partial" / FILE).write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    assert main(steady(folder, tmp_path / "run")) == 1
    assert "begin anew: --restart, or remove" in capsys.readouterr().err
    assert (tmp_path / "run.partial" / FILE).exists()


def test_train_two_at_once_on_one_folder_second_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.partial").mkdir()
    lock = str(tmp_path / "run.partial" / ".lock")
    held = "from pathlib import Path; from catalog.lock import hold_lock; import sys\n"
    held += f"with hold_lock(Path({lock!r}), remove=True): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert main(words(folder, tmp_path / "run", "--epochs", "2")) == 2
        assert "another `avel train` is at work there" in capsys.readouterr().err
        process.communicate()
    assert main(words(folder, tmp_path / "run", "--epochs", "2")) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_train_that_diverges_leaves_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grow = ["--lr", "1e4", "--weight-decay", "1e4", "--batch", "1", "--epochs", "20"]
    assert main(words(folder, tmp_path / "run", *grow)) == 1
    assert "the loss is NaN or infinite for 1 of 1 items" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_train_overwrite_replaces_a_run_with_its_scalars(folder: Path, tmp_path: Path) -> None:
    assert main(words(folder, tmp_path / "run", "--epochs", "2")) == 0
    assert main(words(folder, tmp_path / "run", "--epochs", "3", "--overwrite")) == 0
    scalars = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in scalars.Scalars("train_loss")] == [1, 2, 3]
