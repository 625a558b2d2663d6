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
from jobs.console import visible
from jobs.report.charts import LEVELS, NUM_BINS, HeatMap, LineChart, heat_map, line_chart, number
from jobs.report.evidence import Extraction, Judged, ReportedRun, chosen_epoch, validation_metric
from jobs.report.halves import Halves, halves
from jobs.report.scores import (
    ClassScore,
    Mistake,
    class_scores,
    confusion,
    measures,
    row_shares,
    smoothed,
    top_mistakes,
)
from jobs.report.timeline import NUM_PICTURES, PICTURE_HEIGHT_PX, PICTURE_WIDTH_PX, Timeline

if TYPE_CHECKING:
    from heads.run_record import RunRecord

NUM_MISTAKES = 12

_HERE = Path(__file__).parent
_MODALITIES = {"both": "sound and picture", "audio": "sound only", "visual": "picture only"}
_METRICS = {
    "accuracy": "Accuracy",
    "segment_f1": "Segment F1",
    "event_f1": "Event F1",
    "mean": "Mean of the three",
    "segment_map": "Segment mAP",
    "segment_micro_f1": "Segment micro F1",
    "loss": "Loss",
}
# Told in a sentence; no row of their own in the table.
_COUNTS = ("items", "items_without_features", "segments", "segments_without_features")
_BASELINES = {
    "majority": "commonest class",
    "always_event": "commonest event",
    "class_known": "class known, no boundary",
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A system in the metric table: its name, a second line under it, and its numbers by metric."""

    name: str
    under: str
    numbers: Mapping[str, float]
    own: bool = False


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One metric of all systems, as shown."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class HeadlineBar:
    """One system's value of the first metric; `share` of the full width in per cent."""

    name: str
    text: str
    share: float
    own: bool


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the template shows. A part that the run has nothing for is None or empty."""

    run: ReportedRun
    split: str
    modality: str
    headline: tuple[HeadlineBar, ...]
    headline_name: str
    columns: tuple[Column, ...]
    metric_rows: tuple[MetricRow, ...]
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
) -> Page:
    """Count and arrange.

    Args:
        split: whose predictions `items` are, and whose metrics come first.
        items: None where the run has no predictions of the split.
        compared: other runs for the metric table, on the same data set.
        smooth: the run filter's least run, for a column of metrics after it; one class a segment.
    """
    record = run.record
    judged = items or ()
    several = record.background is None
    counts_KK = None if several or not judged else confusion(judged, len(run.labels))
    shown_heat = counts_KK is not None and counts_KK.any()
    after = measures(smoothed(judged, smooth), len(run.labels)) if smooth is not None else {}
    columns = _columns(run, split, compared, smooth=smooth, after=after)
    names = sorted((name for name in columns[0].numbers if name not in _COUNTS), key=_metric_order)
    headline_name = _headline_metric(columns[0].numbers)
    chosen = chosen_epoch(record)
    return Page(
        run=run,
        split=split,
        modality=_MODALITIES.get(str(record.config.get("modality", "")), ""),
        headline=_headline(columns, headline_name, split),
        headline_name=metric_name(headline_name),
        columns=columns,
        metric_rows=tuple(
            MetricRow(name=metric_name(name), cells=tuple(_shown(name, c.numbers.get(name, math.nan)) for c in columns))
            for name in names
        ),
        remarks=tuple(_remarks(run, compared)),
        extraction=extraction,
        halves=None if several else halves(judged, run),
        smooth=smooth,
        heat=heat_map(row_shares(counts_KK), counts_KK, run.labels) if counts_KK is not None and shown_heat else None,
        mistakes=tuple(top_mistakes(counts_KK, run.labels, NUM_MISTAKES)) if counts_KK is not None else (),
        classes=tuple(class_scores(judged, run.labels)) if judged else (),
        several_labels=several,
        num_items=len(judged),
        num_segments=sum(item.num_segments for item in judged),
        featureless=_featureless(columns[0].numbers),
        charts=_charts(record, chosen),
        chosen=chosen,
        wrong_timelines=tuple(t for t in timelines if t.num_right < t.num_segments),
        right_timelines=tuple(t for t in timelines if t.num_right == t.num_segments),
        commands=commands,
    )


def render(page: Page) -> str:
    """The HTML text, without any reference to the outside."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
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
    style = Markup((_HERE / "page.css").read_text(encoding="utf-8"))  # our own file, no value in it
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


def metric_name(name: str) -> str:
    """A metric's name for people; unknown ones with their underscores opened."""
    for group in ("_seen", "_unseen"):
        if name.endswith(group) and name != group:
            return f"{metric_name(name.removesuffix(group))}, {group[1:]} classes"
    words = name.replace("_", " ")
    return _METRICS.get(name, words[:1].upper() + words[1:])


def grouped(count: int) -> str:
    """`count` with commas between thousands."""
    return f"{count:,}"


def _columns(
    run: ReportedRun,
    split: str,
    compared: Sequence[ReportedRun],
    *,
    smooth: int | None,
    after: Mapping[str, float],
) -> tuple[Column, ...]:
    record = run.record
    own = [Column(name=_system(record), under=split, numbers=record.metrics.get(split, {}), own=True)]
    if after:
        own.append(Column(name=_system(record), under=f"{split}, run filter {smooth}", numbers=after, own=True))
    own += [
        Column(name=_system(record), under=other, numbers=numbers)
        for other, numbers in record.metrics.items()
        if other != split and other != "train"
    ]
    others = [
        Column(
            name=_system(other.record),
            under=f"{other.folder.name}, {split}",
            numbers=other.record.metrics.get(split, {}),
        )
        for other in compared
    ]
    # The record keeps the baselines of one split and one metric: those that count.
    kept_split = "test" if "test" in record.metrics else "val"
    trivial = [
        Column(name=_BASELINES.get(name, name.replace("_", " ")), under=f"{name}, {split}", numbers={metric: value})
        for name, value in record.baselines.items()
        if split == kept_split and (metric := _headline_metric(own[0].numbers))
    ]
    return (*own, *others, *trivial)


def _headline_metric(numbers: Mapping[str, float]) -> str:
    """The metric that counts, as `heads.protocol.headline` has it; empty where a run has neither."""
    return next((name for name in ("mean", "accuracy", "segment_map") if name in numbers), "")


def _metric_order(name: str) -> tuple[bool, bool]:
    """Those of all classes first, and losses last; else as they come."""
    return "loss" in name, name.endswith(("_seen", "_unseen"))


def _system(record: RunRecord) -> str:
    modality = _MODALITIES.get(str(record.config.get("modality", "")))
    return f"{record.head}, {modality}" if modality else record.head


def _headline(columns: Sequence[Column], name: str, split: str) -> tuple[HeadlineBar, ...]:
    found = [c for c in columns if name in c.numbers and (c.own or c.under.endswith(split))]
    return tuple(
        HeadlineBar(
            name=column.name if "run filter" not in column.under else f"{column.name}, filtered",
            text=number(column.numbers[name], percent=True),
            share=round(100 * min(1.0, max(0.0, column.numbers[name])), 2),
            own=column.own,
        )
        for column in found
    )


def _shown(name: str, value: float) -> str:
    # Shares lie in [0, 1]; a loss is in nats.
    if "loss" in name or not 0 <= value <= 1:
        return number(value, percent=False)
    return f"{100 * value:.2f} %"


def _featureless(numbers: Mapping[str, float]) -> str:
    """A sentence on what had no features; empty where all had some or it is not known."""
    items, segments = (int(numbers.get(name, 0)) for name in ("items_without_features", "segments_without_features"))
    if not items and not segments:
        return ""
    return (
        f"{grouped(segments)} segments have no features and count as predicted background; "
        f"{grouped(items)} items have none at all."
    )


def _remarks(run: ReportedRun, compared: Sequence[ReportedRun]) -> list[str]:
    remarks = []
    for other in compared:
        for what, mine, theirs in (
            ("data set", run.record.dataset["name"], other.record.dataset["name"]),
            ("recipe", run.record.recipe.name, other.record.recipe.name),
            ("store snapshot", run.record.store["snapshot"], other.record.store["snapshot"]),
        ):
            if mine != theirs:
                remarks.append(f"{other.folder.name} was made with another {what}: {theirs}, not {mine}.")
    return remarks


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
