"""A table as a figure: one bar a row, its standard deviation over the seeds, and the paper's number as a mark."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from heads.ablation.table import Table
from heads.runs.record import Numbers
from jobs.ablate.results import PAPER, REMEMBERED, Result
from jobs.cli.console import visible

_LONGEST = 80


def draw(table: Table, results: Sequence[Result], baselines: Numbers, path: Path, *, title: str) -> None:
    """Draws the table's first metric; its format by the suffix of `path`."""
    # The object interface: pyplot would choose a backend by the screen and keep every figure alive.

    metric = table.metrics[0]
    names = [", ".join(result.row.labels) for result in results]
    figure = Figure(figsize=(9, 1.6 + 0.34 * (len(results) + len(baselines))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for position, result in enumerate(results):
        spread = result.found.get(metric)
        if spread is None:
            why = visible(result.why)
            short = why if len(why) <= _LONGEST else why[: _LONGEST - 1] + "…"
            axes.text(0, position, f" {short}", va="center", color="0.45", fontsize=8, parse_math=False)
        else:
            error = None if spread.sd is None else 100 * spread.sd
            axes.barh(position, 100 * spread.mean, height=0.62, color="#3b6fb6", xerr=error, ecolor="0.2", capsize=3)
        paper = result.row.paper.get(metric)
        if paper is not None:
            axes.plot([paper], [position], **_mark(result.row.remembered))
    for position, value in enumerate(baselines.values(), start=len(results)):
        axes.barh(position, 100 * value, height=0.62, color="0.75")
    printed = [result.row.remembered for result in results if metric in result.row.paper]
    if printed:
        for remembered, label in ((False, PAPER), (True, REMEMBERED)):
            if remembered in printed:
                axes.plot([], [], **_mark(remembered), label=label)
        figure.legend(loc="outside lower left", fontsize=8, frameon=False)
    axes.set_yticks(range(len(names) + len(baselines)), [visible(n) for n in names] + [f"({n})" for n in baselines])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"{metric}, % of the test split")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(visible(title), parse_math=False, loc="left", fontsize=10)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box is drawn, which will do
        figure.savefig(path, dpi=120)


def _mark(remembered: bool) -> dict[str, Any]:
    """How the paper's number is drawn: hollow where it is from memory."""
    fill = "none" if remembered else "#c2571a"
    return {"marker": "D", "linestyle": "", "color": "#c2571a", "markersize": 5, "markerfacecolor": fill}
