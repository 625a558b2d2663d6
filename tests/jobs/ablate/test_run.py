"""`avel ablate` on small planted stores: rows, resume, what several tables share, refusals, a run that fails."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from catalog.datasets import ave, ovavebench, synthetic, unav100
from heads.ablation import table
from heads.runs.folder import read_record
from jobs.cli.main import main
from tests.heads import planted, planted_texts

HEADS = Path(__file__).parents[2] / "heads"
QUICK = ["--epochs", "1", "--batch", "8", "--set", "ave_clip.width=16"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AVE's files in `ave`, a store of one recipe in `store`."""
    folder = tmp_path_factory.mktemp("ablate")
    data = planted.dataset(items_a_class=8)
    ave.write(data, folder / "ave")
    planted.store(folder / "store", data)
    return folder


@pytest.fixture(scope="module")
def done(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables 6 and 7, two seeds."""
    out = tmp_path_factory.mktemp("done") / "tables"
    assert main([*words(place, out), "--table", "6", "--table", "7", "--seeds", "2", "--json"]) == 0
    return out


def words(place: Path, out: Path, paper: str = "ave-clip", jobs: tuple[str, ...] = ("--jobs", "1")) -> list[str]:
    places = ["--store", str(place / "store"), "--dataset", "ave", "--root", str(place / "ave")]
    return ["ablate", paper, *places, "--out", str(out), *QUICK, *jobs]


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_ablate_rows_are_means_over_seeds_of_what_the_runs_recorded(done: Path) -> None:
    tables = json.loads((done / "tables.json").read_text())["tables"]
    assert list(tables) == ["6", "7"]
    whole = table.plugin("ave-clip").TABLES["7"].rows[0].variant
    assert whole is not None
    values = [read_record(done / "runs" / whole.key() / f"seed-{s}").metrics["test"]["accuracy"] for s in (0, 1)]
    first = tables["7"]["rows"][0]
    assert first["labels"] == {"least run": "1 s"}
    assert first["metrics"]["accuracy"]["values"] == values
    assert first["metrics"]["accuracy"]["sd"] == pytest.approx(statistics.stdev(values))
    assert first["paper_percent"] == {"accuracy": 83.2}
    with (done / "table-7.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["mean"]) == pytest.approx(100 * statistics.fmean(values), abs=1e-4)
    assert [row["least run"] for row in rows] == [
        "1 s",
        "2 s",
        "3 s",
        "4 s",
        "5 s",
        *tables["7"]["baselines"]["accuracy"],
    ]
    assert (done / "table-6.png").read_bytes().startswith(b"\x89PNG")


def test_ablate_run_filter_is_that_of_evaluate(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = json.loads((done / "tables.json").read_text())["tables"]["7"]["rows"][4]
    variant = table.plugin("ave-clip").TABLES["7"].rows[4].variant
    assert variant is not None
    run = done / "runs" / variant.key() / "seed-0"
    shown = told(capsys, "evaluate", str(run), "--split", "test", "--smooth", "5")
    assert row["metrics"]["accuracy"]["values"][0] == pytest.approx(shown["smoothed"]["metrics"]["accuracy"], abs=1e-12)


def test_ablate_tables_share_their_runs_and_train_none_again(
    place: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Table 6 has four variants, table 7 one of them.
    runs = sorted((done / "runs").glob("*/seed-*/run.json"))
    assert len(runs) == 4 * 2
    before = {path: path.stat().st_mtime_ns for path in runs}
    kept = (done / "table-6.csv").read_bytes()
    assert told(capsys, *words(place, done), "--table", "7", "--seeds", "2", "--dry-run")["there"] == 2
    shown = told(capsys, *words(place, done), "--table", "7", "--seeds", "2")
    assert list(shown["tables"]) == ["7"]
    assert {path: path.stat().st_mtime_ns for path in runs} == before
    assert (done / "table-6.csv").read_bytes() == kept
    assert list(json.loads((done / "tables.json").read_text())["tables"]) == ["6", "7"]


@pytest.fixture(scope="module")
def partly(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables 3 and 4 under changes, one of which no head can be built with, and a run whose place is taken."""
    out = tmp_path_factory.mktemp("partly") / "tables"
    # In the way of a run that could be trained: its worker finds it.
    av_transformer = table.plugin("ave-clip").TABLES["3"].rows[1].variant
    assert av_transformer is not None
    place_of_run = out / "runs" / av_transformer.key()
    place_of_run.mkdir(parents=True)
    (place_of_run / "seed-0.partial").write_text("mine")
    changes = ["--set", "psp.hidden=-4", "--set", "ave_clip.windows=7"]
    tables = ["--table", "3", "--table", "4"]
    assert main([*words(place, out), *tables, "--seeds", "1", *changes, "--json"]) == 1
    return out


def test_ablate_changes_reach_the_head_and_what_a_row_is_about_wins(partly: Path) -> None:
    variants = [row.variant for row in table.plugin("ave-clip").TABLES["4"].rows]
    keys = {variant.key() for variant in variants if variant is not None}
    configs = [read_record(partly / "runs" / key / "seed-0").config for key in keys]
    assert sorted((c["attention"], c["windows"]) for c in configs) == sorted(
        (attention, windows) for attention in ("both", "feature", "temporal") for windows in ("2", "5", "10", "3*")
    )
    assert {(c["width"], c["egta"], c["refiner"], c["last"]) for c in configs} == {(16, "off", "", "linear")}


@pytest.mark.slow
def test_ablate_row_without_features_says_so(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A single run: as many processes as there are cores are one.
    arguments = [*words(place, tmp_path, jobs=()), "--table", "2", "--recipe", "vgg=descriptors-1s"]
    shown = told(capsys, *arguments, "--seeds", "1")
    remarks = [row["remark"] for row in shown["tables"]["2"]["rows"]]
    assert remarks == ["no features: --recipe frozen=NAME", "no features: --recipe finetuned=NAME", ""]


def test_ablate_run_that_fails_is_a_row_and_the_others_are_done(partly: Path) -> None:
    tables = json.loads((partly / "tables.json").read_text())["tables"]
    rows = tables["3"]["rows"]
    assert "failed: psp: " in rows[0]["remark"]
    assert "seed 0 failed: " in rows[1]["remark"]
    assert "seed-0.partial is not a folder" in rows[1]["remark"]
    assert [bool(row["metrics"]) for row in rows] == [False, False, True, True, True, True]
    assert all(row["metrics"] for row in tables["4"]["rows"])


def test_ablate_dry_run_tells_rows_that_cannot_be_trained(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*words(place, tmp_path / "out"), "--table", "3", "--dry-run", "--set", "psp.hidden=-4"]
    psp = table.plugin("ave-clip").TABLES["3"].rows[0].variant
    assert psp is not None
    shown = told(capsys, *arguments, status=2)
    assert list(shown["cannot_be"]) == [psp.key()]
    assert "-4" in shown["cannot_be"][psp.key()]
    assert told(capsys, *arguments[:-2])["cannot_be"] == {}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--table", "9"], "--table: there is no '9'; there are 1, 2"),
        (["--recipe", "frozen=descriptors-1s", "--table", "7"], "these tables take NAME alone"),
        (["--recipe", "nothing"], "the store has no 'nothing'"),
        (["--set", "width=3"], "--set needs HEAD.FIELD=VALUE"),
        (["--set", "ave_clip.wide=3"], "unknown field 'wide'"),
        (["--set", "ave_clip.width=wide"], "width must be a whole number, got 'wide'"),
        (["--seeds", "0"], "--seeds must be at least 1"),
    ],
)
def test_ablate_refuses(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main([*words(place, tmp_path / "out"), *more]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


def test_ablate_other_settings_are_refused_unless_overwritten(
    place: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words(place, done), "--table", "7", "--seeds", "2", "--lr", "0.5"]) == 2
    assert "holds a run of other settings (learning_rate: 0.001, now 0.5)" in capsys.readouterr().err


@pytest.mark.slow
def test_ablate_ov_avel_tables_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = planted_texts.dataset()
    ovavebench.write(data, tmp_path / "ov")
    planted_texts.store(tmp_path / "store", data)
    places = ["--store", str(tmp_path / "store"), "--dataset", "ovavebench", "--root", str(tmp_path / "ov")]
    # A reduced list that is missing: its row says so, the others are done.
    (tmp_path / "ov" / "ovave_trainratio0.5_meta.csv").unlink()
    shown = told(
        capsys,
        *["ablate", "ov-avel", *places, "--out", str(tmp_path / "out"), "--table", "methods", "--table", "data"],
        *["--epochs", "1", "--seeds", "1", "--jobs", "1"],
        status=1,
    )
    methods = shown["tables"]["methods"]["rows"]
    assert all(set(row["metrics"]) >= {"mean", "mean_seen", "mean_unseen"} for row in methods)
    assert methods[0]["paper_percent"]["mean_unseen"] == 47.0
    assert len(list((tmp_path / "out" / "runs").glob("ov_avel_free-*/seed-*"))) == 3
    rows = shown["tables"]["data"]["rows"]
    assert ["ovave_trainratio" in row["remark"] for row in rows] == [False, True, False, False]
    assert rows[3]["metrics"] == methods[3]["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_ablate_lead_of_the_reference_row_is_seed_by_seed(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], seeds: int
) -> None:
    shown = told(capsys, *words(place, tmp_path, "planted"), "--table", "ave", "--seeds", str(seeds))
    whole, *others = shown["tables"]["ave"]["rows"]
    assert whole["lead"] is None
    for row in others:
        pairs = zip(whole["metrics"]["accuracy"]["values"], row["metrics"]["accuracy"]["values"], strict=True)
        gaps = [a - b for a, b in pairs]
        assert row["lead"]["values"] == pytest.approx(gaps)
        needed = row["lead"]["needed_percent"]
        spread = statistics.stdev(gaps) if seeds > 1 else 0.0
        met = 100 * statistics.fmean(gaps) >= (needed or 0) and statistics.fmean(gaps) > 2 * spread
        assert row["lead"]["met"] == (None if needed is None else met)


def test_ablate_list_needs_no_store(capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, "ablate", "ave_clip", "--list")
    assert list(shown["tables"]) == ["1", "2", "3", "4", "5", "6", "7"]
    assert shown["tables"]["2"]["roles"] == ["frozen", "finetuned", "vgg"]
    built = {row["labels"][0]: row["built"] for row in shown["tables"]["1"]["rows"]}
    assert [name for name, is_built in built.items() if not is_built] == ["DAM", "AVIN", "RFJC"]


def test_ablate_dry_run_tells_heads_that_need_a_background_the_data_set_has_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = synthetic.plan(synthetic.Settings(layout="unav100", videos=15, seed=1), tmp_path)
    unav100.write(plan.dataset, tmp_path / "unav")
    data = ["--dataset", "unav100", "--root", str(tmp_path / "unav"), "--store", str(tmp_path / "store")]
    assert main(["synth-features", "unav100", *data[2:], "--points", "12"]) == 0
    tables = ["ablate", "ov-avel", *data, "--out", str(tmp_path / "out"), "--table", "methods"]
    shown = told(capsys, *tables, "--dry-run", status=2)
    assert len(shown["cannot_be"]) == 6
    for key, why in shown["cannot_be"].items():
        assert f"failed: {key.rsplit('-', 1)[0]}: " in why
        assert "needs the text of a background, and unav100 has none" in why
    # What it says is what happens.
    assert main(["train", *data, "--head", "ov_avel", "--epochs", "1", "--out", str(tmp_path / "run")]) != 0
    shown = told(capsys, *tables, "--epochs", "1", "--seeds", "1", status=1)
    assert all("has none" in row["remark"] for row in shown["tables"]["methods"]["rows"])
    # Heads without texts, and dense ones, need none.
    assert told(capsys, "ablate", "planted", *tables[2:-1], "unav100", "--dry-run")["cannot_be"] == {}
