"""Results of a table's runs, row by row, and their file formats."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from heads.ablation.cost import Cost, cost
from heads.ablation.table import MEAN_OF_STD, Row, Table
from heads.evaluation.run_filter import filter_runs
from heads.metrics import ave
from heads.runs.folder import read_record
from heads.runs.record import Numbers
from heads.runs.seeds import Spread
from jobs.ablate.similarity import read_similarity

# A run's numbers are of this split.
SPLIT = "test"
PAPER = "paper, other features"
REMEMBERED = "paper's numbers from memory"


@dataclass(frozen=True, kw_only=True)
class Result:
    """A row with what was measured for it.

    Attributes:
        found: metric to its spread over the seeds; empty where there is none.
        why: why there is none; "" where there is.
        lead: of the reference row over this one in the first metric, seed by seed; None where there is none.
        cost: of a forward pass, where the table states it.
    """

    row: Row
    found: Mapping[str, Spread]
    why: str = ""
    lead: Spread | None = None
    cost: Cost | None = None

    @property
    def remark(self) -> str:
        """Why there are no numbers, and that the paper's are from memory."""
        return "; ".join(filter(None, (self.why, REMEMBERED if self.row.remembered else "")))

    @property
    def is_led(self) -> bool | None:
        """Is the lead what the row asks for, and above 2 standard deviations? None where nothing is asked for."""
        if self.lead is None or self.row.lead is None:
            return None
        return 100 * self.lead.mean >= self.row.lead and self.lead.mean > 2 * (self.lead.sd or 0.0)


def measured(row: Row, table: Table, folders: Sequence[Path]) -> Result:
    """The row's numbers from its runs, one a seed.

    Raises:
        ValueError: a folder holds no run, or one without the test split or one of the metrics.
    """
    runs = [_numbers(folder, row, table.metrics) for folder in folders]
    found = {name: Spread(values=tuple(float(run[name]) for run in runs)) for name in table.metrics}
    measured_cost = None
    if table.cost_segments is not None:
        record = read_record(folders[0])
        measured_cost = cost(record.head, record.config, segments=table.cost_segments)
    return Result(row=row, found=found, cost=measured_cost)


def compared(table: Table, results: Sequence[Result]) -> list[Result]:
    """The results with the lead of the table's reference row over each other row."""
    if table.reference is None or (first := results[table.reference].found.get(table.metrics[0])) is None:
        return list(results)
    found = []
    for position, result in enumerate(results):
        own = result.found.get(table.metrics[0])
        if position == table.reference or own is None:
            found.append(result)
            continue
        # A head without parameters has one run: it stands for all seeds.
        values = own.values * len(first.values) if len(own.values) == 1 else own.values
        ahead = tuple(a - b for a, b in zip(first.values, values, strict=True))
        found.append(replace(result, lead=Spread(values=ahead)))
    return found


def trivial(folder: Path) -> Numbers:
    """The trivial baselines of a run's test split, by the metric that counts."""
    return read_record(folder).baselines


def spell(spread: Spread | None) -> str:
    """A spread in per cent; "-" for none."""
    if spread is None:
        return "-"
    return f"{100 * spread.mean:.2f}" + ("" if spread.sd is None else f" ± {100 * spread.sd:.2f}")


def as_rows(table: Table, results: Sequence[Result], baselines: Numbers) -> tuple[list[str], list[list[str]]]:
    """Head and body for a person: labels, a column a metric, the paper's first metric, the lead, a remark."""
    first = table.metrics[0]
    has_paper = any(row.paper for row in table.rows)
    costs = [] if table.cost_segments is None else ["parameters, M", f"GFLOP, {table.cost_segments} segments"]
    extra = (
        costs
        + ([f"{first} %, {PAPER}"] if has_paper else [])
        + ([] if table.reference is None else ["led by", "needed"])
    )
    shown = [*table.columns, *(f"{name} %" for name in table.metrics), *extra, ""]
    body = []
    for result in results:
        cells = [*result.row.labels, *(spell(result.found.get(name)) for name in table.metrics)]
        if costs:
            costs_of_row = result.cost
            cells += (
                ["-", "-"]
                if costs_of_row is None
                else [f"{costs_of_row.parameters / 1e6:.2f}", f"{costs_of_row.flop / 1e9:.2f}"]
            )
        if has_paper:
            paper = result.row.paper.get(first)
            cells.append("-" if paper is None else f"{paper:.1f}" + (" ?" if result.row.remembered else ""))
        if table.reference is not None:
            cells += [spell(result.lead), "-" if result.row.lead is None else f"{result.row.lead:g}"]
        body.append([*cells, "; ".join(filter(None, (result.remark, _judged(result))))])
    for name, value in baselines.items():
        blank = [""] * (len(table.columns) - 1)
        rest = ["-"] * (len(shown) - len(table.columns) - 2)
        body.append([f"({name})", *blank, f"{100 * value:.2f}", *rest, "nothing learnt"])
    return shown, body


def _judged(result: Result) -> str:
    if result.is_led is None or result.lead is None or result.row.lead is None:
        return ""
    if result.is_led:
        return "met"
    return "within 2 sd" if 100 * result.lead.mean >= result.row.lead else "NOT met"


def as_csv(table: Table, results: Sequence[Result], baselines: Numbers) -> str:
    """One line a row and metric: labels, mean, sd, seeds, paper, remark; in per cent, costs in 10^6 and 10^9."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*table.columns, "metric", "mean", "sd", "seeds", "paper_other_features", "remark"])
    for result in results:
        for name in table.metrics:
            spread, paper = result.found.get(name), result.row.paper.get(name)
            numbers = ["", "", ""]
            if spread is not None:
                sd = "" if spread.sd is None else f"{100 * spread.sd:.4f}"
                numbers = [f"{100 * spread.mean:.4f}", sd, str(len(spread.values))]
            writer.writerow([*result.row.labels, name, *numbers, "" if paper is None else f"{paper:g}", result.remark])
        if result.cost is not None:
            for name, value in (("parameters_m", result.cost.parameters / 1e6), ("gflop", result.cost.flop / 1e9)):
                writer.writerow([*result.row.labels, name, f"{value:.4f}", "", "", "", result.remark])
    blank = [""] * (len(table.columns) - 1)
    for name, value in baselines.items():
        writer.writerow([name, *blank, table.metrics[0], f"{100 * value:.4f}", "", "", "", "nothing learnt"])
    return out.getvalue()


def as_json(table: Table, results: Sequence[Result], baselines: Numbers) -> dict[str, Any]:
    """The same for a program; shares, not per cent, but for the paper's numbers."""
    return {
        "title": table.title,
        "reading": table.reading,
        "rows": [
            {
                "labels": dict(zip(table.columns, result.row.labels, strict=True)),
                "smooth": result.row.smooth,
                "metrics": {
                    name: {"values": list(spread.values), "mean": spread.mean, "sd": spread.sd}
                    for name, spread in result.found.items()
                },
                "paper_percent": dict(result.row.paper),
                "paper_remembered": result.row.remembered,
                "cost": None if result.cost is None else asdict(result.cost),
                "lead": None
                if result.lead is None
                else {
                    "values": list(result.lead.values),
                    "mean": result.lead.mean,
                    "sd": result.lead.sd,
                    "needed_percent": result.row.lead,
                    "met": result.is_led,
                },
                "remark": result.remark,
            }
            for result in results
        ],
        "baselines": {table.metrics[0]: dict(baselines)},
    }


def _numbers(folder: Path, row: Row, metrics: Sequence[str]) -> Numbers:
    numbers = read_record(folder).metrics.get(SPLIT, {})
    if row.smooth > 1:
        numbers = {"accuracy": _filtered_accuracy(folder, row.smooth)}
    if MEAN_OF_STD in metrics:
        numbers = numbers | read_similarity(folder)
    missing = [name for name in metrics if name not in numbers]
    if missing:
        raise ValueError(
            f"{folder}: the table needs {', '.join(metrics)} of the {SPLIT} split, the run has "
            f"{', '.join(numbers) or 'none'}; is this the data set that the paper used?"
        )
    return {name: numbers[name] for name in metrics}


def _filtered_accuracy(folder: Path, smooth: int) -> float:
    """AVE's accuracy of the predictions that the run left, after the run filter."""
    rows = json.loads((folder / f"predictions_{SPLIT}.json").read_text(encoding="utf-8"))
    longest = max(len(row["labels_true"]) for row in rows)
    predicted_NT, true_NT = np.zeros((2, len(rows), longest), np.int64)
    mask_NT, counted_NT = np.zeros((2, len(rows), longest), bool)
    for n, row in enumerate(rows):
        count = len(row["labels_true"])
        predicted_NT[n, :count], true_NT[n, :count] = row["labels_pred"], row["labels_true"]
        mask_NT[n, :count], counted_NT[n, :count] = row["mask"], True
    return ave.accuracy(filter_runs(predicted_NT, minimum=smooth, mask_NT=mask_NT), true_NT, counted_NT)
