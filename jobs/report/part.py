"""What a report is made of. What differs between tasks is a part: `segments/part.py`, `dense/part.py`.

Each has `make(request)`, which gives a part with

    template        the file in its folder, included by `page.html`
    nav, intro      anchor and title of its first section; a sentence on the metrics above, or nothing
    num_items       judged items of the split; None without predictions
    num_videos      that the judged items show
    chart, remarks  drawn below the metrics; sentences about the predictions
    shown           all timelines, in the order of the page
    filtered        metrics after the run filter; empty without one
    counted         how many items, and segments or events; empty without predictions
    featureless     a sentence on what had no features
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.cli.console import Progress
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
