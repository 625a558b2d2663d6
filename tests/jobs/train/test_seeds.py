"""`avel train --seeds`: processes side by side, each seed's run what it is alone, the whole resumable."""

from __future__ import annotations

import json
import signal
import statistics
from pathlib import Path

import psutil
import pytest

from catalog.datasets import ave
from heads.runs.folder import read_record
from jobs.cli.main import main
from tests.heads import planted
from tests.jobs.train.held import HANG_S, Held


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with AVE's files in `ave`, a store in `store` and the runs of seeds 3 and 4 in `seeds`."""
    place = tmp_path_factory.mktemp("seeds")
    data = planted.dataset()
    ave.write(data, place / "ave")
    planted.store(place / "store", data, missing=["video-003"])
    assert main(words(place, place / "seeds", "--seed", "3", "--seeds", "2", "--jobs", "2")) == 0
    return place


def words(folder: Path, out: Path, *more: str) -> list[str]:
    places = ["--store", str(folder / "store"), "--dataset", "ave", "--root", str(folder / "ave")]
    return ["train", *places, "--out", str(out), "--epochs", "6", "--lr", "1e-2", *more]


def test_seeds_are_the_runs_that_each_is_alone(folder: Path, tmp_path: Path) -> None:
    for seed in (3, 4):
        assert main(words(folder, tmp_path / f"{seed}", "--seed", f"{seed}", "--json")) == 0
        one, two = folder / "seeds" / f"seed-{seed}", tmp_path / f"{seed}"
        assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
        assert read_record(one).metrics == read_record(two).metrics
    assert sorted(path.name for path in (folder / "seeds").iterdir()) == ["seed-3", "seed-4", "seeds.json"]


def test_seeds_file_holds_values_mean_and_deviation(folder: Path) -> None:
    told = json.loads((folder / "seeds" / "seeds.json").read_text())
    values = [read_record(folder / "seeds" / f"seed-{seed}").metrics["test"]["accuracy"] for seed in (3, 4)]
    assert told["seeds"] == [3, 4]
    assert told["metrics"]["test"]["accuracy"] == {
        "values": values,
        "mean": pytest.approx(statistics.mean(values)),
        "sd": pytest.approx(statistics.stdev(values)),
    }
    assert set(told["baselines"]["test"]) == {"majority", "always_event", "class_known"}


def test_seeds_that_are_there_are_not_trained_again_and_the_table_tells_the_spread(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_ino for path in (folder / "seeds").glob("seed-*/*")}
    assert main(words(folder, folder / "seeds", "--seed", "3", "--seeds", "2")) == 0
    out, _ = capsys.readouterr()
    assert {path: path.stat().st_ino for path in (folder / "seeds").glob("seed-*/*")} == before
    numbers = json.loads((folder / "seeds" / "seeds.json").read_text())["metrics"]["test"]["accuracy"]
    assert f"{100 * numbers['mean']:.2f} ± {100 * numbers['sd']:.2f}" in out
    assert "mean ± sd of 2 seeds" in out
    assert "(2 of them trained before)" in out
    assert "majority" in out


def test_seeds_of_other_settings_are_refused_before_any_is_trained(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(folder, folder / "seeds", "--seed", "2", "--seeds", "3", "--batch", "7")) == 2
    assert "seed-3 holds a run of other settings (batch_size: 16, now 7)" in capsys.readouterr().err
    assert not (folder / "seeds" / "seed-2").exists()
    assert main(words(folder, folder / "seeds" / "seed-3", "--seeds", "2")) == 2
    assert "holds a run of one seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--seeds", "2", "--jobs", "0"], "--jobs must be at least 1"),
        (["--jobs", "2"], "--jobs is for --seeds"),
        (["--seeds", "2", "--head", "ov_avel_free"], "nothing to train"),
    ],
)
def test_seeds_bad_arguments_exit_2(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    assert main(words(folder, tmp_path / "runs", *more)) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_seeds_that_diverge_are_named_and_exit_1(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grow = ["--lr", "1e4", "--weight-decay", "1e4", "--batch", "1", "--epochs", "2"]
    assert main(words(folder, tmp_path / "runs", "--seeds", "1", *grow)) == 1
    assert "1 of 1 seeds could not be trained: seed 0: epoch" in capsys.readouterr().err
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("seeds", "ends"),
    [
        pytest.param(1, [(3, signal.SIGKILL)], id="killed", marks=pytest.mark.slow),
        pytest.param(2, [(3, signal.SIGKILL), (6, signal.SIGTERM)], id="killed and stopped", marks=pytest.mark.slow),
    ],
)
def test_seeds_killed_and_stopped_go_on_and_leave_no_process(
    folder: Path, tmp_path: Path, seeds: int, ends: list[tuple[int, signal.Signals]]
) -> None:
    more = ["--seeds", f"{seeds}", "--jobs", f"{seeds}", "--epochs", "9", "--patience", "0", "--batch", "5", "--json"]
    last, names = f"seed-{seeds - 1}", [f"seed-{seed}" for seed in range(seeds)]
    for epoch, number in ends:
        held = Held(epoch, tmp_path / f"at-{epoch}", words(folder, tmp_path / "runs", *more))
        held.wait_for(*names)
        family = psutil.Process(held.process.pid).children(recursive=True)
        assert len(family) >= seeds
        status, said = held.end(number)
        assert status == (-number if number == signal.SIGKILL else 128 + number), said
        assert psutil.wait_procs(family, timeout=HANG_S)[1] == [], "a worker outlives its parent"
    assert main(words(folder, tmp_path / "runs", *more, "--jobs", "1")) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [*names, "seeds.json"]
    alone = more[4:]
    assert main(words(folder, tmp_path / "one", "--seed", last[-1], *alone)) == 0
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", f"runs/{last}"))
    assert one == two
