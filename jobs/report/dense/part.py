"""The part of a page that only runs of heads that find events have: mAP by overlap, errors, classes, extremes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from catalog.errors import BadArguments
from jobs.pages.charts import LineChart, line_chart, number
from jobs.pages.numbers import grouped
from jobs.report.dense.evidence import read_dense_predictions
from jobs.report.dense.scores import KINDS, ClassPrecision, DenseCounts, count
from jobs.report.dense.timeline import DenseTimeline, choose_extremes, dense_timeline
from jobs.report.metric_table import system_name
from jobs.report.part import ReportRequest
from jobs.report.reported_run import ReportedRun

# Of the best and of the worst classes; all are in the table.
NUM_EXTREMES = 8
# Of curves; the page has so many colours.
MOST_CURVES = 9
# Written times and scores are rounded; beyond this the predictions are another evaluation's.
SAME_MAP = 1e-3

_TIOUS = tuple(tenth / 10 for tenth in range(1, 10))


@dataclass(frozen=True, kw_only=True)
class EventsPart:
    """See `jobs.report.part`; `counts` is None where there are no predictions of the split."""

    counts: DenseCounts | None
    chart: LineChart | None
    best: tuple[ClassPrecision, ...]
    worst: tuple[ClassPrecision, ...]
    worst_timelines: tuple[DenseTimeline, ...]
    best_timelines: tuple[DenseTimeline, ...]
    remarks: tuple[str, ...]
    kinds: tuple[str, ...] = KINDS
    template: str = "dense.html"
    nav: tuple[str, str] = ("errors", "Errors")
    intro: str = (
        "Average precision of events, its mean over classes, at each overlap in time (tIoU) "
        "that a prediction must reach."
    )
    filtered: Mapping[str, float] = field(default_factory=dict)

    @property
    def num_items(self) -> int | None:
        """Judged items of the split; None without predictions."""
        return None if self.counts is None else len(self.counts.items)

    @property
    def num_videos(self) -> int:
        """That the judged items show."""
        return 0 if self.counts is None else len({item.video_id for item in self.counts.items})

    @property
    def shown(self) -> Sequence[DenseTimeline]:
        """All timelines, in the order of the page."""
        return (*self.worst_timelines, *self.best_timelines)

    @property
    def counted(self) -> str:
        """How many items and events; empty without predictions."""
        if self.counts is None:
            return ""
        return f"{grouped(len(self.counts.items))} items, {grouped(self.counts.num_events)} events"

    def featureless(self, numbers: Mapping[str, float]) -> str:
        """A sentence on what had no features; empty where all had some or it is not known."""
        items, segments = (int(numbers.get(f"{name}_without_features", 0)) for name in ("items", "segments"))
        if not items and not segments:
            return ""
        return f"{grouped(items)} items have no features: all their events count as missed."


def make(request: ReportRequest) -> EventsPart:
    """Count the split's predictions by class and kind of error, and draw its worst and best videos.

    Raises:
        BadArguments: the run filter, which is for segments.
        ValueError: the predictions are damaged; the message names the item and the field.
    """
    if request.smooth is not None:
        raise BadArguments("--smooth is for data sets with one class a segment")
    run, split = request.run, request.split
    items = read_dense_predictions(run, split)
    counts = None if items is None else count(items, run)
    worst, best = ([], []) if counts is None else choose_extremes(counts, request.num_videos)
    media = request.media([(judged.item.video_id, judged.duration_s) for judged in (*worst, *best)])
    timelines = tuple(dense_timeline(judged, run, found) for judged, found in zip((*worst, *best), media, strict=True))
    ordered = sorted((one for one in (counts.classes if counts else ()) if one.events), key=lambda one: -one.average)
    few = len(ordered) < 2 * NUM_EXTREMES
    return EventsPart(
        counts=counts,
        chart=_chart(run, split, request.compared),
        best=() if few else tuple(ordered[:NUM_EXTREMES]),
        worst=() if few else tuple(reversed(ordered[-NUM_EXTREMES:])),
        worst_timelines=timelines[: len(worst)],
        best_timelines=timelines[len(worst) :],
        remarks=_remarks(run, split, counts),
    )


def _chart(run: ReportedRun, split: str, compared: Sequence[ReportedRun]) -> LineChart | None:
    numbers = run.numbers(split)
    curves = [(f"{system_name(run.record)}", "val", _maps(numbers, ""))]
    curves += [(f"{group} classes", "val", _maps(numbers, f"_{group}")) for group in ("seen", "unseen")]
    curves += [
        (f"{system_name(other.record)} ({other.folder.name})", "val", _maps(other.numbers(split), ""))
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
