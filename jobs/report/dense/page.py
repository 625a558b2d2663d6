"""The parts of the page that only a dense head's run has: mAP by overlap, errors, classes, timelines of extremes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.pages.charts import LineChart, line_chart, number
from jobs.report.dense.scores import KINDS, ClassPrecision, DenseCounts
from jobs.report.dense.timeline import DenseTimeline
from jobs.report.metric_table import system_name
from jobs.report.run import ReportedRun

# Of the best and of the worst classes; all are in the table.
NUM_EXTREMES = 8
# Of curves; the page has so many colours.
MOST_CURVES = 9
# Written times and scores are rounded; beyond this the predictions are another evaluation's.
SAME_MAP = 1e-3

_TIOUS = tuple(tenth / 10 for tenth in range(1, 10))


@dataclass(frozen=True, kw_only=True)
class DensePage:
    """What the template shows of a dense run; `counts` is None where there are no predictions of the split."""

    counts: DenseCounts | None
    kinds: tuple[str, ...]
    chart: LineChart | None
    best: tuple[ClassPrecision, ...]
    worst: tuple[ClassPrecision, ...]
    worst_timelines: tuple[DenseTimeline, ...]
    best_timelines: tuple[DenseTimeline, ...]
    remarks: tuple[str, ...]


def dense_page(
    run: ReportedRun,
    split: str,
    counts: DenseCounts | None,
    *,
    compared: Sequence[ReportedRun],
    worst: Sequence[DenseTimeline],
    best: Sequence[DenseTimeline],
) -> DensePage:
    """Arrange what was counted; the chart is of the records' numbers, and those of the runs compared with."""
    told = [one for one in (counts.classes if counts is not None else ()) if one.events]
    ordered = sorted(told, key=lambda one: -one.average)
    few = len(ordered) < 2 * NUM_EXTREMES
    return DensePage(
        counts=counts,
        kinds=KINDS,
        chart=_chart(run, split, compared),
        best=() if few else tuple(ordered[:NUM_EXTREMES]),
        worst=() if few else tuple(reversed(ordered[-NUM_EXTREMES:])),
        worst_timelines=tuple(worst),
        best_timelines=tuple(best),
        remarks=_remarks(run, split, counts),
    )


def _chart(run: ReportedRun, split: str, compared: Sequence[ReportedRun]) -> LineChart | None:
    numbers = run.record.metrics.get(split, {})
    curves = [(f"{system_name(run.record)}", "val", _maps(numbers, ""))]
    curves += [(f"{group} classes", "val", _maps(numbers, f"_{group}")) for group in ("seen", "unseen")]
    curves += [
        (f"{system_name(other.record)} ({other.folder.name})", "val", _maps(other.record.metrics.get(split, {}), ""))
        for other in compared
    ]
    shown = [curve for curve in curves if any(map(math.isfinite, curve[2]))][: MOST_CURVES + 1]
    coloured = [(name, "val" if i == 0 else f"c{i}", values) for i, (name, _, values) in enumerate(shown)]
    return line_chart(f"mAP on {split}", _TIOUS, coloured, x_name="overlap (tIoU)", percent=True, width=620)


def _maps(numbers: Mapping[str, float], suffix: str) -> list[float]:
    return [numbers.get(f"map_{tiou:.1f}{suffix}", math.nan) for tiou in _TIOUS]


def _remarks(run: ReportedRun, split: str, counts: DenseCounts | None) -> tuple[str, ...]:
    recorded = run.record.metrics.get(split, {}).get("average_map")
    if recorded is None or counts is None or abs(recorded - counts.average) <= SAME_MAP:
        return ()
    return (
        f"The predictions file gives a mean mAP of {number(counts.average, True)}, the record has "
        f"{number(recorded, True)}: they are of different evaluations. avel evaluate writes both anew.",
    )
