"""LoCo's tables on a small planted store: every row is trained and told, costs and similarities beside the metrics."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from catalog.dataset import load
from catalog.datasets import synthetic, unav100
from catalog.store.reader import open_store
from heads.ablation import table
from heads.ablation.cross_similarity import mean_of_std
from heads.data.split import read_split
from heads.runs.folder import read_record, read_run
from jobs.cli.main import main

SMALL = {
    "loco": ("width=16", "levels=3", "unimodal_layers=1", "num_heads=2"),
    "unav": ("width=16", "levels=3", "self_blocks=1", "hidden=16", "class_width=4", "num_heads=2"),
    "action_former": ("width=16", "levels=3", "blocks=1", "hidden=16", "num_heads=2"),
    "tri_det": ("width=16", "levels=3", "blocks=1", "hidden=16", "inner=16"),
}
QUICK = ["--epochs=1", "--batch=8", "--lr=2e-3", "--schedule=one-cycle", "--ema=none", "--crop-share=1", "--jobs=1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """UnAV-100's file in `short`, a store of planted features in `store`."""
    folder = tmp_path_factory.mktemp("loco")
    plan = synthetic.plan(synthetic.Settings(layout="unav100", videos=60, seed=1), folder / "long")
    unav100.write(plan.dataset, folder / "long")
    words = ["synth-features", "unav100", "--root", str(folder / "long"), "--store", str(folder / "store")]
    more = ["--reduced", str(folder / "short"), "--points", "48", "--videos", "train=16,val=4,test=6", "--width", "12"]
    assert main([*words, *more]) == 0
    return folder


def words(place: Path, out: Path, paper: str, *tables: str) -> list[str]:
    places = ["--store", str(place / "store"), "--dataset", "unav100", "--root", str(place / "short")]
    changes = [word for head, fields in SMALL.items() for field in fields for word in ("--set", f"{head}.{field}")]
    named = [word for name in tables for word in ("--table", name)]
    return ["ablate", paper, *places, "--out", str(out), *named, *changes, *QUICK, "--seeds=1", "--json"]


def told(capsys: pytest.CaptureFixture[str], arguments: list[str], status: int = 0) -> Any:
    capsys.readouterr()
    assert main(arguments) == status
    return json.loads(capsys.readouterr().out)


def check(shown: Any, out: Path, paper: str) -> None:
    for name, one in shown["tables"].items():
        wanted = table.plugin(paper).TABLES[name]
        assert set(one["baselines"]["average_map"]) == {"whole_video", "mean_length"}
        for row, told_row in zip(wanted.rows, one["rows"], strict=True):
            if row.variant is None or row.variant.role:
                assert not told_row["metrics"]
                assert "not built here" in told_row["remark"] or "--recipe i3d=NAME" in told_row["remark"]
                continue
            assert set(told_row["metrics"]) == set(wanted.metrics), (name, row.labels)
            assert (told_row["cost"] is not None) == (wanted.cost_segments is not None)
        with (out / f"table-{name}.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert {"whole_video", "mean_length"} <= {line[wanted.columns[0]] for line in lines}
        assert (out / f"table-{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_lcc_table_measures_and_draws_similarity_and_goes_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = told(capsys, words(place, tmp_path, "loco", "lcc"))
    check(shown, tmp_path, "loco")
    split = read_split(open_store(place / "store"), "planted-unav100", load("unav100", place / "short"), "test")
    runs = sorted((tmp_path / "runs").glob("*/seed-0"))
    found = {read_record(run).config["lcc"]: mean_of_std(read_run(run).head, split).mean for run in runs}
    by_label = {row["labels"]["encoders"]: row["metrics"] for row in shown["tables"]["lcc"]["rows"]}
    for label, lcc in (("without LCC", "off"), ("with LCC", "gaussian")):
        assert by_label[label]["mean_of_std"]["values"] == [pytest.approx(found[lcc], abs=1e-9)]
    assert (tmp_path / "table-lcc-planted-unav100.png").read_bytes().startswith(b"\x89PNG")
    # What is there is neither trained nor measured again.
    kept = {run: (run / "run.json").stat().st_mtime_ns for run in runs}
    (runs[0] / "similarity_test.json").write_text('{"mean_of_std": 0.5}')
    again = told(capsys, words(place, tmp_path, "loco", "lcc"))
    assert {run: (run / "run.json").stat().st_mtime_ns for run in runs} == kept
    assert 0.5 in [row["metrics"]["mean_of_std"]["mean"] for row in again["tables"]["lcc"]["rows"]]
    (runs[0] / "similarity_test.json").write_text("{}")
    assert main(words(place, tmp_path, "loco", "lcc")) == 1
    assert "remove it, the run is kept" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1", "2a", "2b", "2c", "2d", "3"])
def test_table_of_the_paper_is_told_whole(
    place: Path, tmp_path_factory: pytest.TempPathFactory, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # One folder: what several tables share is trained once.
    out = tmp_path_factory.getbasetemp() / "loco-tables"
    shown = told(capsys, words(place, out, "loco", name))
    check(shown, out, "loco")
    if name == "3":
        costs = {row["labels"]["method"]: row["cost"] for row in shown["tables"]["3"]["rows"] if row["cost"]}
        assert costs["base + CDP + LCC"]["parameters"] > costs["base + CDP"]["parameters"]
        assert costs["base + CDP"]["parameters"] > costs["base + GB"]["parameters"]
        # LCC is for training alone; sliding windows take less than attention to all.
        assert costs["base + CDP + LCC"]["flop"] == costs["base + CDP"]["flop"]
        assert costs["base + CDP"]["flop"] < costs["base + GB"]["flop"]
        assert all(cost["segments"] == 256 for cost in costs.values())


@pytest.mark.slow
def test_planted_table_is_told_whole(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, words(place, tmp_path, "planted", "unav100"))
    check(shown, tmp_path, "planted")
    rows = {row["labels"]["variant"]: row["lead"] for row in shown["tables"]["unav100"]["rows"]}
    assert {label for label, lead in rows.items() if lead is not None and lead["needed_percent"] is not None} == {
        "global attention",
        "global attention, without LCC",
        "audio alone",
        "video alone",
    }
