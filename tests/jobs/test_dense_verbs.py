"""Dense heads by the verbs: planted features under annotations in UnAV-100's layout, trained, judged, run on media."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from catalog.datasets import unav100
from jobs.cli import main as cli
from tests.heads import dense_planted as told

# Small enough for seconds, wide enough to learn something.
SMALL = [f"--set={one}" for one in ("width=24", "levels=4", "attention_window=16", "window=4", "drop_path=0")]
QUICK = ["--epochs=2", "--batch=4", "--lr=2e-3", "--ema=0.5", "--warmup-epochs=1"]


def main(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli.main([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("dense")
    root, store = folder / "annotations", folder / "store"
    root.mkdir()
    unav100.write(told.dataset(videos=30), root)
    words = ["synth-features", "unav100", "--root", str(root), "--store", str(store), "--width", "12"]
    assert cli.main([*words, "--set", "decoys=0.5"]) == 0
    data = ["--dataset", "unav100", "--root", str(root), "--store", str(store)]
    return SimpleNamespace(folder=folder, root=root, store=store, data=data)


def test_a_dense_head_is_trained_evaluated_and_stands_beside_the_baselines(
    planted: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    trained = main(capsys, "train", *planted.data, "--head", "loco", *SMALL, *QUICK, "--out", str(run))
    assert set(trained["baselines"]["test"]) == {"whole_video", "mean_length"}
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert {"val_loss", "val_average_map"} <= set(record["history"][0])
    sigmas = [row["lcc_sigma"] for row in record["history"]]
    assert sigmas[0] != sigmas[1]  # it learns
    assert record["baselines"]["whole_video"] == trained["baselines"]["test"]["whole_video"]["average_map"]
    judged = main(capsys, "evaluate", str(run), "--split", "test")
    assert judged["metrics"] == trained["metrics"]["test"]
    assert judged["confusion"] is None
    rows = json.loads((run / "predictions_test.json").read_text(encoding="utf-8"))
    assert [row["item"] for row in rows] == [item.id for item in told.dataset(videos=30).split("test")]
    assert all(0 <= start < end <= row["duration_s"] for row in rows for start, end, *_ in row["events_pred"])


@pytest.mark.slow
def test_events_that_are_kept_back_leave_a_run_without_their_number(
    planted: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = planted.root.glob("*.json")
    whole = json.loads(source.read_text(encoding="utf-8"))
    for video in whole["database"].values():
        if video["subset"] != "train":
            video["annotations"] = []
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / source.name).write_text(json.dumps(whole), encoding="utf-8")
    data = ["--dataset", "unav100", "--root", str(tmp_path / "root"), "--store", str(planted.store)]
    for head, more in (("loco", SMALL), ("linear", [])):
        run = tmp_path / head
        words = ["train", *data, "--head", head, *more, "--epochs=1", "--batch=4", "--out", str(run)]
        trained = main(capsys, *words)
        assert not {"average_map", "segment_map"} & set(trained["metrics"]["test"])
        assert trained["metrics"]["test"]["items"] > 0
        assert cli.main(["evaluate", str(run)]) == 0
        assert cli.main(["report", str(run), "--out", str(tmp_path / f"{head}.html")]) == 0
        capsys.readouterr()
    seeds = [*words[:-1], str(tmp_path / "seeds"), "--seeds", "1", "--jobs", "1"]
    assert cli.main(seeds) == 0


def test_what_a_dense_head_cannot_is_refused(
    planted: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    main(capsys, "train", *planted.data, "--head", "loco", *SMALL, *QUICK, "--out", str(run))
    assert cli.main(["evaluate", str(run), "--smooth", "3"]) == 2
    assert "--smooth" in capsys.readouterr().err
    assert cli.main(["predict", str(run), "clip.mp4"]) != 0
    assert "planted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--head", "linear", "--unseen", "1.5"], 2, "lies above 0 and below 1, got 1.5"),
        (["--head", "cmbs"], 2, "names one class a segment, and the segments of unav100 may have several"),
        (
            ["--head", "loco", "--set", "num_classes=50"],
            2,
            "num_classes is 3, fixed by the data set, and cannot be overridden; got 50",
        ),
        (["--head", "loco", "--set", "visual_width=7"], 2, "visual_width is 12, fixed by the features,"),
        (["--head", "loco", "--set", "modality=audio"], 2, "modality is both, fixed by --modality,"),
        (["--head", "loco", "--set", "width=1048576"], 1, "not enough memory"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(
    planted: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, told: str
) -> None:
    assert cli.main(["train", *planted.data, *words, "--out", str(tmp_path / "run")]) == code
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_held_out_classes_are_those_of_the_run_whatever_the_file_says_later(
    planted: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed, run = tmp_path / "unseen.txt", tmp_path / "run"
    listed.write_text(told.CLASSES[0])
    words = ["train", *planted.data, "--head", "linear", "--epochs=2", "--unseen", str(listed), "--out", str(run)]
    trained = main(capsys, *words)
    listed.write_text(told.CLASSES[1])
    judged = main(capsys, "evaluate", str(run))
    assert judged["metrics"] == trained["metrics"]["test"]
    assert judged["baselines"] == trained["baselines"]["test"]
    listed.unlink()
    assert main(capsys, "evaluate", str(run))["metrics"] == trained["metrics"]["test"]


def test_events_after_the_features_end_are_told(
    planted: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = planted.root.glob("*.json")
    whole = json.loads(source.read_text(encoding="utf-8"))
    for video in whole["database"].values():
        video["duration"] = 600
        for event in video["annotations"]:
            event["segment"] = [500 + seconds for seconds in event["segment"]]
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / source.name).write_text(json.dumps(whole), encoding="utf-8")
    data = ["--dataset", "unav100", "--root", str(tmp_path / "root"), "--store", str(planted.store)]
    trained = main(capsys, "train", *data, "--head", "linear", "--epochs=1", "--out", str(tmp_path / "run"))
    assert len(trained["warnings"]) == 3
    assert all("begin after the features of their videos end" in warning for warning in trained["warnings"])


@pytest.mark.slow
def test_two_seeds_of_a_dense_head_have_a_mean_of_the_number_that_counts(
    planted: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*planted.data, "--head", "loco", *SMALL, *QUICK, "--seeds", "2", "--jobs", "1"]
    found = main(capsys, "train", *words, "--out", str(tmp_path / "seeds"))
    values = found["metrics"]["test"]["average_map"]["values"]
    assert found["metrics"]["test"]["average_map"]["mean"] == pytest.approx(sum(values) / 2)
    assert set(found["baselines"]["test"]["mean_length"]) == {"average_map"}


@pytest.mark.slow
def test_dense_demo_shows_that_both_modalities_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = main(capsys, "demo", "--dense", "--out", str(tmp_path / "demo"), "--executor", "local")
    assert found["lead"] >= 5
    assert Path(found["report"]).stat().st_size > 10_000
