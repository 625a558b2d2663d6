"""Pictures and sound energy of the media behind timelines, read in the sandbox's killable child alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from catalog.errors import MediaError
from jobs.report.charts import NUM_BINS
from jobs.report.evidence import Extraction, Judged, ReportedRun
from jobs.report.timeline import PICTURE_HEIGHT_PX, Media, axis_s, energy_path, picture_strip, picture_times_s

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.sandbox import Sandbox


def read_media(
    items: Sequence[Judged],
    run: ReportedRun,
    extraction: Extraction,
    *,
    on_video: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Judged, Media]]:
    """What can be read of each item's medium, in order; `on_video` is called after each."""
    from pipeline.fetch import local_copy
    from pipeline.sandbox import Sandbox

    if not items:
        return
    with Sandbox() as sandbox:
        for item in items:
            uri = extraction.uris.get(item.video_id)
            if uri is None:
                media = _unread(extraction.problem or "the store has no such video")
            else:
                try:
                    with local_copy(uri) as path:
                        media = _read(sandbox, path, axis_s(item, run))
                except MediaError as error:
                    media = _unread(f"{error.reason}: {error.detail}")
                except OSError as error:
                    media = _unread(str(error))
            on_video()
            yield item, media


def _read(sandbox: Sandbox, path: Path | str, duration_s: float) -> Media:
    strip = strip_problem = energy = energy_problem = ""
    try:
        pictures = sandbox.thumbnails(path, picture_times_s(duration_s), PICTURE_HEIGHT_PX)
        strip = picture_strip(pictures)
    except MediaError as error:
        strip_problem = f"No picture can be read. {error.reason}: {error.detail}"
    try:
        energy = energy_path(sandbox.loudness(path, NUM_BINS))
    except MediaError as error:
        energy_problem = f"No sound can be read. {error.reason}: {error.detail}"
    return Media(strip=strip, strip_problem=strip_problem, energy=energy, energy_problem=energy_problem)


def _unread(why: str) -> Media:
    problem = f"The medium can no longer be read. {why}"
    return Media(strip_problem=problem, energy_problem=problem)
