"""What runs of a table come to, by hand: spreads, the run filter, leads, and the forms they are told in."""

from __future__ import annotations

import csv
import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from heads.ablation.cost import Cost
from heads.ablation.table import Row, Table, Variant
from heads.runs.folder import write_run
from heads.runs.record import RunRecord
from heads.runs.seeds import Spread
from jobs.ablate.results import Result, as_csv, as_json, as_rows, compared, measured, spell

ROW = Row(labels=("whole",), variant=Variant(head="linear"), paper={"accuracy": 83.25})


def table(*rows: Row, reference: int | None = None) -> Table:
    return Table(title="t", columns=("which",), metrics=("accuracy",), rows=rows, reference=reference)


def result(*values: float, lead: float | None = None) -> Result:
    row = Row(labels=("part",), variant=Variant(head="linear"), lead=lead)
    return Result(row=row, found={"accuracy": Spread(values=values)} if values else {}, why="" if values else "gone")


def run(folder: Path, accuracy: float, predictions: list[dict[str, Any]]) -> Path:
    recipe = Recipe(
        name="made-up",
        encoder="descriptors",
        grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
        video=VideoSampling(frames_per_segment=1, height_px=16, width_px=16),
        audio=AudioSampling(rate_hz=16000),
    )
    record = RunRecord(
        head="linear",
        config={"visual_width": 2, "audio_width": 2, "num_classes": 3, "modality": "both"},
        classes=("a", "b"),
        background="none",
        num_segments=None,
        recipe=recipe,
        store={"uri": "store", "snapshot": "s"},
        dataset={"name": "ave", "root": "ave", "media": None},
        seed=0,
        training={},
        metrics={"val": {"accuracy": 0.0}, "test": {"accuracy": accuracy, "items": 2}},
        baselines={"majority": 0.25},
    )
    write_run(folder, record, {}, {"test": predictions})
    return folder


def test_measured_is_the_test_splits_numbers_a_seed(tmp_path: Path) -> None:
    folders = [run(tmp_path / str(seed), accuracy, []) for seed, accuracy in enumerate((0.5, 0.75))]
    assert measured(ROW, table(ROW), folders).found == {"accuracy": Spread(values=(0.5, 0.75))}
    lacking = Table(title="t", columns=("which",), metrics=("mean",), rows=())
    with pytest.raises(ValueError, match="needs mean of the test split, the run has accuracy, items"):
        measured(ROW, lacking, folders)


def test_measured_behind_the_run_filter_counts_every_segment_and_joins_real_ones_alone(tmp_path: Path) -> None:
    predictions = [
        # What is not real is left as it is; the run of two before it is a mistake of the run before that.
        {"labels_pred": [0, 0, 0, 1, 1, 2, 2], "labels_true": [0, 0, 0, 0, 0, 2, 2], "mask": [True] * 5 + [False] * 2},
        {"labels_pred": [1, 1, 1], "labels_true": [1, 1, 0], "mask": [True] * 3},
    ]
    folder = run(tmp_path / "run", 0.125, predictions)
    filtered = Row(labels=("3 s",), variant=Variant(head="linear"), smooth=3)
    found = measured(filtered, table(filtered), [folder]).found["accuracy"]
    assert found.values == ((7 + 2) / 10,)
    unfiltered = Row(labels=("1 s",), variant=Variant(head="linear"), smooth=1)
    assert measured(unfiltered, table(unfiltered), [folder]).found["accuracy"].values == (0.125,)


def test_compared_leads_are_seed_by_seed_and_one_run_stands_for_all() -> None:
    results = [result(0.5, 0.75), result(0.25, 0.125), result(0.25), result()]
    first, by_seed, by_one, none = compared(table(*(r.row for r in results), reference=0), results)
    assert first.lead is None
    assert by_seed.lead == Spread(values=(0.25, 0.625))
    assert by_one.lead == Spread(values=(0.25, 0.5))
    assert none.lead is None
    assert compared(table(*(r.row for r in results)), results) == results
    # A reference row that was not done leads nobody.
    assert compared(table(*(r.row for r in results), reference=3), results) == results


@pytest.mark.parametrize(
    ("needed", "gaps", "met"),
    [
        (None, (0.5, 0.5), None),
        (10.0, (0.125, 0.125), True),
        (13.0, (0.125, 0.125), False),
        (0.0, (0.0, 0.0), False),
        (1.0, (0.02, 0.30), False),  # 16 points, and a standard deviation of 20
        (1.0, (0.14, 0.18), True),  # 16 points, and one of 3
        (1.0, (0.08, 0.24), False),  # 16 points, and one of 11: more than 1 and less than 2 of them
        (1.0, (0.02,), True),
    ],
)
def test_lead_is_met_where_it_is_large_and_above_two_deviations(
    needed: float | None, gaps: tuple[float, ...], met: bool | None
) -> None:
    row = Row(labels=("part",), variant=Variant(head="linear"), lead=needed)
    assert Result(row=row, found={}, lead=Spread(values=gaps)).is_led is met
    assert Result(row=row, found={}).is_led is None


def test_forms_tell_the_same_numbers() -> None:
    whole = Result(row=ROW, found={"accuracy": Spread(values=(0.5, 0.75))})
    results = [whole, result(0.25, 0.25, lead=30.0), result(lead=5.0)]
    shown = table(*(r.row for r in results), reference=0)
    results = compared(shown, results)
    columns, body = as_rows(shown, results, {"majority": 0.125})
    assert columns == ["which", "accuracy %", "accuracy %, paper, other features", "led by", "needed", ""]
    assert body == [
        ["whole", "62.50 ± 17.68", "83.2", "-", "-", ""],
        ["part", "25.00 ± 0.00", "-", "37.50 ± 17.68", "30", "met"],
        ["part", "-", "-", "-", "5", "gone"],
        ["(majority)", "12.50", "-", "-", "-", "nothing learnt"],
    ]
    lines = list(csv.DictReader(io.StringIO(as_csv(shown, results, {"majority": 0.125}))))
    told = ("which", "metric", "mean", "sd", "seeds", "paper_other_features", "remark")
    assert [tuple(line[name] for name in told) for line in lines] == [
        ("whole", "accuracy", "62.5000", "17.6777", "2", "83.25", ""),
        ("part", "accuracy", "25.0000", "0.0000", "2", "", ""),
        ("part", "accuracy", "", "", "", "", "gone"),
        ("majority", "accuracy", "12.5000", "", "", "", "nothing learnt"),
    ]
    told_json = json.loads(json.dumps(as_json(shown, results, {"majority": 0.125})))
    assert [row["metrics"].get("accuracy", {}).get("mean") for row in told_json["rows"]] == [0.625, 0.25, None]
    assert told_json["rows"][0]["paper_percent"] == {"accuracy": 83.25}
    assert told_json["rows"][1]["lead"]["met"] is True
    assert told_json["baselines"] == {"accuracy": {"majority": 0.125}}


def test_forms_say_which_numbers_are_remembered_and_what_a_row_costs() -> None:
    known = Row(labels=("known",), variant=Variant(head="linear"), paper={"accuracy": 40.0})
    told = Row(labels=("told",), variant=Variant(head="linear"), paper={"accuracy": 50.0}, remembered=True)
    results = [
        Result(
            row=known,
            found={"accuracy": Spread(values=(0.5,))},
            cost=Cost(parameters=1_250_000, flop=3 * 10**9, segments=8),
        ),
        Result(row=told, found={}, why="not built here"),
    ]
    shown = Table(title="t", columns=("which",), metrics=("accuracy",), rows=(known, told), cost_segments=8)
    columns, body = as_rows(shown, results, {"majority": 0.25})
    told_columns = ["accuracy %", "parameters, M", "GFLOP, 8 segments", "accuracy %, paper, other features"]
    assert columns == ["which", *told_columns, ""]
    assert body == [
        ["known", "50.00", "1.25", "3.00", "40.0", ""],
        ["told", "-", "-", "-", "50.0 ?", "not built here; paper's numbers from memory"],
        ["(majority)", "25.00", "-", "-", "-", "nothing learnt"],
    ]
    lines = list(csv.DictReader(io.StringIO(as_csv(shown, results, {}))))
    assert [(line["which"], line["metric"], line["mean"], line["remark"]) for line in lines] == [
        ("known", "accuracy", "50.0000", ""),
        ("known", "parameters_m", "1.2500", ""),
        ("known", "gflop", "3.0000", ""),
        ("told", "accuracy", "", "not built here; paper's numbers from memory"),
    ]
    rows = json.loads(json.dumps(as_json(shown, results, {})))["rows"]
    assert [row["cost"] for row in rows] == [{"parameters": 1_250_000, "flop": 3 * 10**9, "segments": 8}, None]
    assert [row["paper_remembered"] for row in rows] == [False, True]


def test_measured_counts_what_the_runs_head_costs(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", 0.5, [])
    counted = Table(title="t", columns=("which",), metrics=("accuracy",), rows=(ROW,), cost_segments=5)
    # 5 segments of 4 numbers and 2 flags to 3 classes.
    assert measured(ROW, counted, [folder]).cost == Cost(parameters=3 * 6 + 3, flop=2 * 5 * 6 * 3, segments=5)
    assert measured(ROW, table(ROW), [folder]).cost is None


def test_spell_one_run_has_no_deviation() -> None:
    assert (spell(None), spell(Spread(values=(0.5,)))) == ("-", "50.00")
