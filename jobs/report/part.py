"""What differs between reports by task: a part for heads that score segments, one for heads that find events.

Each task has a file with `make(request) -> Part`: `segments/part.py`, `dense/part.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from jobs.cli.console import Progress
from jobs.pages.charts import LineChart
from jobs.report.media import read_media
from jobs.report.reported_run import Extraction, ReportedRun
from jobs.report.segments.timeline import Media


@dataclass(frozen=True, kw_only=True)
class ReportRequest:
    """What a page is made of.

    Attributes:
        split: whose predictions are shown, and whose metrics come first.
        compared: other runs for the metric table.
        num_videos: how many timelines are drawn.
        smooth: shortest run that the run filter keeps, in segments; None without the filter.
        quiet: no progress on standard error.
    """

    run: ReportedRun
    split: str
    extraction: Extraction
    compared: Sequence[ReportedRun] = ()
    num_videos: int = 0
    smooth: int | None = None
    quiet: bool = False

    def media(self, shown: Sequence[tuple[str, float]]) -> list[Media]:
        """Frames and audio energy of videos, given as (video id, seconds to show)."""
        with Progress("report", len(shown), "videos", quiet=self.quiet) as progress:
            return list(read_media(shown, self.extraction, on_video=progress.advance))


class ShownTimeline(Protocol):
    """What both kinds of timeline have."""

    @property
    def video_id(self) -> str: ...

    @property
    def media(self) -> Media: ...


class Part(Protocol):
    """The task's own part of a page; the template of each file shows the rest of its fields.

    Attributes:
        template: the file in its folder, included by `page.html`.
        nav: anchor and title of its first section.
        intro: a sentence on the metrics above; empty where they need none.
        num_items: judged items of the split; None without predictions.
        num_videos: that the judged items show.
        chart: drawn below the metrics.
        remarks: sentences about the predictions.
    """

    @property
    def template(self) -> str: ...

    @property
    def nav(self) -> tuple[str, str]: ...

    @property
    def intro(self) -> str: ...

    @property
    def num_items(self) -> int | None: ...

    @property
    def num_videos(self) -> int: ...

    @property
    def chart(self) -> LineChart | None: ...

    @property
    def remarks(self) -> tuple[str, ...]: ...

    @property
    def shown(self) -> Sequence[ShownTimeline]:
        """All timelines, in the order of the page."""

    @property
    def filtered(self) -> Mapping[str, float]:
        """Metrics after the run filter; empty without one."""

    @property
    def counted(self) -> str:
        """How many items, and segments or events; empty without predictions."""

    def featureless(self, numbers: Mapping[str, float]) -> str:
        """A sentence on what had no features; empty where all had some or it is not known."""
