"""The part of a page that only runs of heads that score segments have: confusion, classes, timelines of a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from catalog.errors import BadArguments
from jobs.pages.charts import HeatMap, LineChart, heat_map
from jobs.pages.numbers import grouped
from jobs.report.part import ReportRequest
from jobs.report.reported_run import Judged, ReportedRun, read_predictions
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
from jobs.report.segments.seen_unseen import SeenUnseen, seen_unseen
from jobs.report.segments.timeline import Timeline, axis_s, choose, timeline

NUM_MISTAKES = 12


@dataclass(frozen=True, kw_only=True)
class SegmentsPart:
    """See `jobs.report.part`; what the run has nothing for is None or empty."""

    num_items: int | None
    num_videos: int
    num_segments: int
    several_labels: bool
    heat: HeatMap | None
    seen_unseen: SeenUnseen | None
    mistakes: tuple[Mistake, ...]
    classes: tuple[ClassScore, ...]
    timelines: tuple[Timeline, ...]
    filtered: Mapping[str, float] = field(default_factory=dict)
    template: str = "segments.html"
    nav: tuple[str, str] = ("confusion", "Confusion")
    intro: str = ""
    chart: LineChart | None = None
    remarks: tuple[str, ...] = ()

    @property
    def shown(self) -> Sequence[Timeline]:
        """All timelines, in the order of the page."""
        return (*self.wrong_timelines, *self.right_timelines)

    @property
    def wrong_timelines(self) -> tuple[Timeline, ...]:
        """Of videos with mistakes."""
        return tuple(t for t in self.timelines if t.num_right < t.num_segments)

    @property
    def right_timelines(self) -> tuple[Timeline, ...]:
        """Of videos right throughout."""
        return tuple(t for t in self.timelines if t.num_right == t.num_segments)

    @property
    def counted(self) -> str:
        """How many items and segments; empty without predictions."""
        return f"{grouped(self.num_items)} items, {grouped(self.num_segments)} segments" if self.num_items else ""

    def featureless(self, numbers: Mapping[str, float]) -> str:
        """A sentence on what had no features; empty where all had some or it is not known."""
        items, segments = (int(numbers.get(f"{name}_without_features", 0)) for name in ("items", "segments"))
        if not items and not segments:
            return ""
        return (
            f"{grouped(segments)} segments have no features and count as predicted background; "
            f"{grouped(items)} items have none at all."
        )


def make(request: ReportRequest) -> SegmentsPart:
    """Count the split's judged segments and draw timelines of a sample of its items.

    Raises:
        BadArguments: the run filter of a data set with several labels a segment.
        ValueError: the predictions are damaged; the message names the item and the field.
    """
    run, smooth = request.run, request.smooth
    several = run.record.background is None
    if smooth is not None and several:
        raise BadArguments("--smooth is for data sets with one class a segment")
    items = read_predictions(run, request.split)
    judged: tuple[Judged, ...] = items or ()
    counts_KK = None if several or not judged else confusion(judged, len(run.labels))
    return SegmentsPart(
        num_items=None if items is None else len(items),
        num_videos=len({item.video_id for item in judged}),
        num_segments=sum(item.num_segments for item in judged),
        several_labels=several,
        heat=None if counts_KK is None else _heat(counts_KK, run),
        seen_unseen=None if several else seen_unseen(judged, run),
        mistakes=() if counts_KK is None else tuple(top_mistakes(counts_KK, run.labels, NUM_MISTAKES)),
        classes=tuple(class_scores(judged, run.labels)) if judged else (),
        timelines=_timelines(request, judged),
        filtered={} if smooth is None else measures(smoothed(judged, smooth), len(run.labels)),
    )


def _heat(counts_KK: NDArray[np.int64], run: ReportedRun) -> HeatMap | None:
    return heat_map(row_shares(counts_KK), counts_KK, run.labels) if counts_KK.any() else None


def _timelines(request: ReportRequest, items: Sequence[Judged]) -> tuple[Timeline, ...]:
    run = request.run
    chosen = choose(items, request.num_videos, run.record.seed)
    after = {} if request.smooth is None else {item.item_id: item for item in smoothed(chosen, request.smooth)}
    media = request.media([(item.video_id, axis_s(item, run)) for item in chosen])
    return tuple(timeline(item, run, found, after.get(item.item_id)) for item, found in zip(chosen, media, strict=True))
