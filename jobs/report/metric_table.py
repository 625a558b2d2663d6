"""The metrics of a run beside those of the runs compared with and of trivial baselines: a table, and bars of the first.

Metrics have a name for people; counts are given in sentences elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from heads import registry
from heads.runs.record import RunRecord
from jobs.pages.charts import number
from jobs.report.reported_run import ReportedRun

_MODALITIES = {"both": "audio and frames", "audio": "audio only", "visual": "frames only"}
_TASKS = {"segments": "decides segment by segment", "events": "finds events with times of their own"}
_METRICS = {
    "accuracy": "Accuracy",
    "segment_f1": "Segment F1",
    "event_f1": "Event F1",
    "mean": "Mean of the three",
    "segment_map": "Segment mAP",
    "segment_micro_f1": "Segment micro F1",
    "average_map": "Mean mAP 0.1:0.9",
    "average_map_strict": "Mean mAP 0.5:0.9",
    "loss": "Loss",
}
# mAP at one temporal overlap.
_MAP_AT = re.compile(r"map_(0\.[1-9])")
# The metric that counts, as `heads.evaluation.protocol.headline` has it.
_HEADLINES = ("average_map", "mean", "accuracy", "segment_map")
# Told in a sentence; no row of their own in the table.
_COUNTS = ("items", "items_without_features", "segments", "segments_without_features", "events")
_BASELINES = {
    "majority": "commonest class",
    "always_event": "commonest event",
    "class_known": "class known, no boundary",
    "whole_video": "each class, all the time",
    "mean_length": "each class, in the middle",
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A system in the metric table: its name, a second line under it, and its numbers by metric.

    Attributes:
        sds: of numbers that are means over seeds.
    """

    name: str
    under: str
    numbers: Mapping[str, float]
    sds: Mapping[str, float] = field(default_factory=dict)
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
class MetricTable:
    """A column a system and a row a metric; `headline` is of the metric that counts."""

    headline_name: str
    headline: tuple[HeadlineBar, ...]
    columns: tuple[Column, ...]
    rows: tuple[MetricRow, ...]


def metric_table(
    run: ReportedRun,
    split: str,
    compared: Sequence[ReportedRun],
    *,
    smooth: int | None = None,
    after: Mapping[str, float],
) -> MetricTable:
    """The table of `run`'s metrics on `split`, first, and of all else there is to compare them with.

    Args:
        smooth, after: the run filter's least run, and the metrics after it (empty where it was not asked for).
    """
    columns = _columns(run, split, compared, smooth=smooth, after=after)
    names = sorted((name for name in columns[0].numbers if name not in _COUNTS), key=_metric_order)
    headline = headline_metric(columns[0].numbers)
    return MetricTable(
        headline_name=metric_name(headline),
        headline=_headline(columns, headline, split),
        columns=columns,
        rows=tuple(MetricRow(name=metric_name(name), cells=tuple(_shown(name, c) for c in columns)) for name in names),
    )


def metric_name(name: str) -> str:
    """A metric's name for people; unknown ones with their underscores opened."""
    for group in ("_seen", "_unseen"):
        if name.endswith(group) and name != group:
            return f"{metric_name(name.removesuffix(group))}, {group[1:]} classes"
    at = _MAP_AT.fullmatch(name)
    if at is not None:
        return f"mAP@{at[1]}"
    words = name.replace("_", " ")
    return _METRICS.get(name, words[:1].upper() + words[1:])


def modality_name(record: RunRecord) -> str:
    """What the head looks at, for people; empty where its config does not say."""
    return _MODALITIES.get(str(record.config.get("modality", "")), "")


def system_name(record: RunRecord) -> str:
    """The head, and what it looks at where its config says so."""
    modality = modality_name(record)
    return f"{record.head}, {modality}" if modality else record.head


def remarks(run: ReportedRun, compared: Sequence[ReportedRun]) -> list[str]:
    """Where a run compared was made from something else."""
    found = []
    for other in compared:
        for what, mine, theirs in (
            ("data set", run.record.dataset["name"], other.record.dataset["name"]),
            ("recipe", run.record.recipe.name, other.record.recipe.name),
            ("store snapshot", run.record.store["snapshot"], other.record.store["snapshot"]),
        ):
            if mine != theirs:
                found.append(f"{other.folder.name} was made with another {what}: {theirs}, not {mine}.")
        task = registry.spec(other.record.head).task
        if task != registry.spec(run.record.head).task:
            found.append(f"{other.folder.name} {_TASKS[task]}: this run's measures do not apply to it.")
    return found


def _columns(
    run: ReportedRun,
    split: str,
    compared: Sequence[ReportedRun],
    *,
    smooth: int | None,
    after: Mapping[str, float],
) -> tuple[Column, ...]:
    record = run.record
    own = [Column(name=system_name(record), under=split, numbers=run.numbers(split), sds=run.sds(split), own=True)]
    if after:
        own.append(Column(name=system_name(record), under=f"{split}, run filter {smooth}", numbers=after, own=True))
    own += [
        Column(name=system_name(record), under=other, numbers=run.numbers(other), sds=run.sds(other))
        for other in record.metrics
        if other != split and other != "train"
    ]
    others = [
        Column(
            name=system_name(other.record),
            under=f"{other.folder.name}, {split}",
            numbers=other.numbers(split),
            sds=other.sds(split),
        )
        for other in compared
    ]
    # The record keeps the baselines of one split and one metric: those that count.
    kept_split = "test" if "test" in record.metrics else "val"
    metric = headline_metric(own[0].numbers)
    trivial = [
        Column(name=_BASELINES.get(name, name.replace("_", " ")), under=f"{name}, {split}", numbers={metric: value})
        for name, value in record.baselines.items()
        if split == kept_split and metric
    ]
    return (*own, *others, *trivial)


def headline_metric(numbers: Mapping[str, float]) -> str:
    """The metric that counts, of those there are. Empty where a run has none of those that count."""
    return next((name for name in _HEADLINES if name in numbers), "")


def _metric_order(name: str) -> tuple[bool, bool]:
    """Those of all classes first, and losses last; else as they come."""
    return "loss" in name, name.endswith(("_seen", "_unseen"))


def _headline(columns: Sequence[Column], name: str, split: str) -> tuple[HeadlineBar, ...]:
    found = [c for c in columns if name in c.numbers and (c.own or c.under.endswith(split))]
    return tuple(
        HeadlineBar(
            name=_bar_name(column, found, split),
            text=_headline_text(column, name),
            share=round(100 * min(1.0, max(0.0, column.numbers[name])), 2),
            own=column.own,
        )
        for column in found
    )


def _bar_name(column: Column, shown: Sequence[Column], split: str) -> str:
    """The system's name; with the run's where another system has the same name."""
    if "run filter" in column.under and column.own:
        return f"{column.name}, filtered"
    if not column.own and [other.name for other in shown].count(column.name) > 1:
        return f"{column.name} ({column.under.removesuffix(f', {split}')})"
    return column.name


def _headline_text(column: Column, name: str) -> str:
    value, sd = column.numbers[name], column.sds.get(name)
    return number(value, percent=True) if sd is None else f"{100 * value:.1f} ± {100 * sd:.1f} %"


def _shown(name: str, column: Column) -> str:
    value, sd = column.numbers.get(name, math.nan), column.sds.get(name)
    # Shares lie in [0, 1]; a loss is in nats.
    if "loss" in name or not 0 <= value <= 1:
        return number(value, percent=False) + ("" if sd is None else f" ± {number(sd, percent=False)}")
    return f"{100 * value:.2f} %" if sd is None else f"{100 * value:.2f} ± {100 * sd:.2f} %"
