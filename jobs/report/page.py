"""The page: what was read and counted, arranged for the template and rendered to one HTML text.

Ids, labels, paths and messages come from annotations, media and stores of strangers. The template escapes every value
(autoescape is on and nothing is marked safe but our own style sheet), control characters are made visible first, and
the page's own policy forbids scripts and anything from outside.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2
from markupsafe import Markup

from catalog.video import REASONS
from heads.runs.record import RunRecord
from jobs.cli.console import visible
from jobs.pages.charts import LEVELS, NUM_BINS, LineChart, line_chart, number
from jobs.pages.numbers import grouped, length_text
from jobs.report.dense.part import EventsPart
from jobs.report.metric_table import MetricTable, metric_name, metric_table, modality_name, remarks
from jobs.report.part import ReportRequest
from jobs.report.reported_run import Extraction, ReportedRun, chosen_epoch, own_numbers, validation_metric
from jobs.report.segments.part import SegmentsPart
from jobs.report.segments.timeline import FRAME_HEIGHT_PX, FRAME_WIDTH_PX, NUM_FRAMES
from jobs.report.summary import summary

# Charts of a head's own numbers; a stranger's run may name any.
_MOST_CHARTS = 6

_REPORT = Path(__file__).parent
_PAGES = _REPORT.parent / "pages"


Part = SegmentsPart | EventsPart


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the template shows. A part that the run has nothing for is None or empty."""

    run: ReportedRun
    summary: str
    split: str
    modality: str
    metrics: MetricTable
    remarks: tuple[str, ...]
    extraction: Extraction
    smooth: int | None
    featureless: str
    charts: tuple[LineChart, ...]
    chosen: int | None
    commands: str
    part: Part


def build(request: ReportRequest, part: Part, *, commands: str) -> Page:
    """Arranges the run's record and the task's own part for the template.

    Args:
        commands: what makes the run and this page again, one command a line.
    """
    run = request.run
    metrics = metric_table(run, request.split, request.compared, smooth=request.smooth, after=part.filtered)
    chosen = chosen_epoch(run.record)
    return Page(
        run=run,
        summary=summary(run, request.split, request.compared, num_videos=part.num_videos),
        split=request.split,
        modality=modality_name(run.record),
        metrics=metrics,
        remarks=(*_of_first(run), *remarks(run, request.compared), *part.remarks),
        extraction=request.extraction,
        smooth=request.smooth,
        featureless=part.featureless(metrics.columns[0].numbers),
        charts=_charts(run.record, chosen),
        chosen=chosen,
        commands=commands,
        part=part,
    )


def render(page: Page) -> str:
    """The HTML text, without any reference to the outside."""
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
    environment.filters["hours"] = length_text
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
        strip_size=(NUM_FRAMES * FRAME_WIDTH_PX, FRAME_HEIGHT_PX),
        recipe_lines=recipe_lines,
        training_lines=training_lines,
        command_lines=page.commands.splitlines(),
    )


def _of_first(run: ReportedRun) -> list[str]:
    """Which seed's the page's details are, where it is of several."""
    if not run.seeds:
        return []
    return [f"Numbers here are means ± sd of {len(run.seeds)} seeds; all below this line is of {run.seeds[0]}."]


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


def _moment(text: str) -> str:
    """An ISO 8601 time to the minute; any other text as it is."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return text
