"""The page: what was read and counted, arranged for the template and rendered to one HTML text.

Ids, labels, paths and messages come from annotations, media and stores of strangers. The template escapes every value
(autoescape is on and nothing is marked safe but our own style sheet), control characters are made visible first, and
the page's own policy forbids scripts and anything from outside.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.video import REASONS
from jobs.cli.console import visible
from jobs.pages.charts import LEVELS, NUM_BINS, HeatMap, LineChart, heat_map, line_chart, number
from jobs.report.dense.page import DensePage
from jobs.report.metric_table import MetricTable, metric_name, metric_table, modality_name, remarks
from jobs.report.run import Extraction, Judged, ReportedRun, chosen_epoch, own_numbers, validation_metric
from jobs.report.segments.scores import (
    ClassScore,
    Mistake,
    class_scores,
    confusion,
    measures,
    row_shares,
    smoothed,
    top_mistakes,
)
from jobs.report.segments.seen_unseen import Halves, halves
from jobs.report.segments.timeline import NUM_PICTURES, PICTURE_HEIGHT_PX, PICTURE_WIDTH_PX, Timeline

if TYPE_CHECKING:
    from heads.runs.record import RunRecord

NUM_MISTAKES = 12
# Of numbers that a head tells of itself; a stranger's run may name any.
_MOST_CHARTS = 6

_REPORT = Path(__file__).parent
_PAGES = _REPORT.parent / "pages"


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the template shows. A part that the run has nothing for is None or empty.

    Attributes:
        dense: what a run of a dense head has in place of all that is counted in segments.
    """

    run: ReportedRun
    split: str
    modality: str
    metrics: MetricTable
    remarks: tuple[str, ...]
    extraction: Extraction
    heat: HeatMap | None
    halves: Halves | None
    smooth: int | None
    mistakes: tuple[Mistake, ...]
    classes: tuple[ClassScore, ...]
    several_labels: bool
    num_items: int
    num_segments: int
    featureless: str
    charts: tuple[LineChart, ...]
    chosen: int | None
    wrong_timelines: tuple[Timeline, ...]
    right_timelines: tuple[Timeline, ...]
    commands: str
    dense: DensePage | None


def build(
    run: ReportedRun,
    *,
    split: str,
    items: Sequence[Judged] | None,
    extraction: Extraction,
    timelines: Sequence[Timeline],
    compared: Sequence[ReportedRun],
    commands: str,
    smooth: int | None = None,
    dense: DensePage | None = None,
) -> Page:
    """Count and arrange.

    Args:
        split: whose predictions `items` are, and whose metrics come first.
        items: None where the run has no predictions of the split.
        compared: other runs for the metric table, on the same data set.
        smooth: the run filter's least run, for a column of metrics after it; one class a segment.
        dense: of a dense head's run, whose `items` and `timelines` are none.
    """
    record = run.record
    judged = items or ()
    several = record.background is None
    counts_KK = None if several or not judged else confusion(judged, len(run.labels))
    shown_heat = counts_KK is not None and counts_KK.any()
    after = measures(smoothed(judged, smooth), len(run.labels)) if smooth is not None else {}
    metrics = metric_table(run, split, compared, smooth=smooth, after=after)
    chosen = chosen_epoch(record)
    return Page(
        run=run,
        split=split,
        modality=modality_name(record),
        metrics=metrics,
        remarks=(*remarks(run, compared), *(dense.remarks if dense is not None else ())),
        extraction=extraction,
        halves=None if several else halves(judged, run),
        smooth=smooth,
        heat=heat_map(row_shares(counts_KK), counts_KK, run.labels) if counts_KK is not None and shown_heat else None,
        mistakes=tuple(top_mistakes(counts_KK, run.labels, NUM_MISTAKES)) if counts_KK is not None else (),
        classes=tuple(class_scores(judged, run.labels)) if judged else (),
        several_labels=several,
        num_items=len(judged),
        num_segments=sum(item.num_segments for item in judged),
        featureless=_featureless(metrics.columns[0].numbers, dense=dense is not None),
        charts=_charts(record, chosen),
        chosen=chosen,
        wrong_timelines=tuple(t for t in timelines if t.num_right < t.num_segments),
        right_timelines=tuple(t for t in timelines if t.num_right == t.num_segments),
        commands=commands,
        dense=dense,
    )


def render(page: Page) -> str:
    """The HTML text, without any reference to the outside."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_REPORT, _REPORT / "segments", _REPORT / "dense", _PAGES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Every value that reaches the page passes here: no line breaks, direction marks or lone surrogates in a name.
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
    )
    environment.filters["percent"] = lambda share: number(share, True)
    environment.filters["grouped"] = grouped
    environment.filters["hours"] = _hours
    environment.filters["moment"] = _moment
    style = Markup((_PAGES / "page.css").read_text(encoding="utf-8"))  # our own file, no value in it
    record = page.run.record
    recipe_lines = json.dumps(json.loads(record.recipe.to_json()), indent=2).splitlines()
    training_lines = json.dumps({"config": record.config, "training": record.training}, indent=2).splitlines()
    return environment.get_template("page.html").render(
        page=page,
        record=record,
        style=style,
        reasons=REASONS,
        levels=range(1, LEVELS + 1),
        num_bins=NUM_BINS,
        strip_size=(NUM_PICTURES * PICTURE_WIDTH_PX, PICTURE_HEIGHT_PX),
        recipe_lines=recipe_lines,
        training_lines=training_lines,
        command_lines=page.commands.splitlines(),
    )


def grouped(count: int) -> str:
    """`count` with commas between thousands."""
    return f"{count:,}"


def _featureless(numbers: Mapping[str, float], *, dense: bool) -> str:
    """A sentence on what had no features; empty where all had some or it is not known."""
    items, segments = (int(numbers.get(name, 0)) for name in ("items_without_features", "segments_without_features"))
    if not items and not segments:
        return ""
    if dense:
        return f"{grouped(items)} items have no features: all their events count as missed."
    return (
        f"{grouped(segments)} segments have no features and count as predicted background; "
        f"{grouped(items)} items have none at all."
    )


def _charts(record: RunRecord, chosen: int | None) -> tuple[LineChart, ...]:
    epochs = [int(row.get("epoch", i + 1)) for i, row in enumerate(record.history)]

    def values(name: str) -> list[float]:
        return [row.get(name, math.nan) for row in record.history]

    metric = validation_metric(record.history)
    found = [
        line_chart(
            "Loss",
            epochs,
            [("train", "train", values("train_loss")), ("val", "val", values("val_loss"))],
            chosen=chosen,
        )
        if epochs
        else None,
        line_chart(
            f"{metric_name(metric.removeprefix('val_'))} on val",
            epochs,
            [("val", "val", values(metric))],
            chosen=chosen,
            percent=True,
        )
        if metric
        else None,
        *(
            line_chart(name.replace("_", " "), epochs, [("after the steps", "train", values(name))], chosen=chosen)
            for name in own_numbers(record.history)[:_MOST_CHARTS]
        ),
    ]
    return tuple(chart for chart in found if chart is not None)


def _hours(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 3600
        else f"{seconds / 60:.1f} min"
        if seconds >= 60
        else f"{seconds:.0f} s"
    )


def _moment(text: str) -> str:
    """An ISO 8601 time to the minute; any other text as it is."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return text
