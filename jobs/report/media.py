"""Frames and audio energy of the media behind timelines, read in the sandbox's killable child alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from catalog.errors import MediaError
from catalog.video import REASONS
from jobs.pages.charts import NUM_BINS
from jobs.report.reported_run import Extraction
from jobs.report.segments.timeline import FRAME_HEIGHT_PX, Media, energy_path, frame_strip, frame_times_s
from pipeline.sandbox.fetch import local_copy
from pipeline.sandbox.parent import Sandbox

MOST_BINS = 100_000  # of a whole medium that is much longer than its timeline


def read_media(
    shown: Sequence[tuple[str, float]],
    extraction: Extraction,
    *,
    on_video: Callable[[], None] = lambda: None,
) -> Iterator[Media]:
    """What can be read of each medium, in order; `on_video` is called after each.

    Args:
        shown: video ids, and the seconds from the medium's beginning that are shown.
    """
    if not shown:
        return

    with Sandbox() as sandbox:
        for video_id, shown_s in shown:
            stored = extraction.videos.get(video_id)
            if stored is None:
                media = _unread(extraction.problem or "The store has no such video.")
            elif stored.reason.startswith("decoder_"):
                # It broke or stalled the decoder twice; waiting for that once more would show nothing.
                media = _unread(f"{stored.reason}: {REASONS.get(stored.reason, '')}; it was not opened again.")
            else:
                try:
                    with local_copy(stored.uri) as path:
                        media = _read(sandbox, path, shown_s, stored.duration_s)
                except MediaError as error:
                    media = _unread(f"{error.reason}: {error.detail}")
                except OSError as error:
                    media = _unread(str(error))
            on_video()
            yield media


def _read(sandbox: Sandbox, path: Path | str, shown_s: float, duration_s: float) -> Media:
    """Frames and audio of the first `shown_s` seconds of a medium that lasts `duration_s` (NaN: not known)."""
    strip = strip_problem = energy = energy_problem = ""
    length_s = duration_s if math.isfinite(duration_s) and duration_s > 0 else shown_s
    times_s = frame_times_s(shown_s)
    # The last frame counts as shown for ever; behind the medium's end the strip shall stay empty.
    within_s = [time_s for time_s in times_s if time_s < length_s]
    try:
        frames = sandbox.thumbnails(path, within_s, FRAME_HEIGHT_PX)
        frames += [None] * (len(times_s) - len(within_s))
        if any(frame is not None for frame in frames):
            strip = frame_strip(frames)
        else:
            strip_problem = "There are no frames."
    except MediaError as error:
        if error.reason != "no_video":
            return _unread(f"{error.reason}: {error.detail}")
        strip_problem = "There are no frames."
    try:
        num_bins = max(1, min(MOST_BINS, round(NUM_BINS * length_s / shown_s)))
        loudness_N = sandbox.loudness(path, num_bins)
        if loudness_N.any():
            energy = energy_path(loudness_N[:NUM_BINS])
        else:
            energy_problem = "There is no audio."
    except MediaError as error:
        energy_problem = "There is no audio." if error.reason == "no_audio" else f"{error.reason}: {error.detail}"
    return Media(strip=strip, strip_problem=strip_problem, energy=energy, energy_problem=energy_problem)


def _unread(why: str) -> Media:
    problem = f"The medium can no longer be read. {why}"
    return Media(strip_problem=problem, energy_problem=problem)
