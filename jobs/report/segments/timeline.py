"""Timelines of a sample of videos: frames, audio energy, truth and prediction over one time axis.

Everything horizontal is a share of the axis in per cent, so that the rows stay aligned at any width. Media are opened
in the sandbox's child alone; a sentence takes the frames' place where they can no longer be read.
"""

from __future__ import annotations

import base64
import io
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from catalog.grid import SegmentGrid
from jobs.pages.charts import Tick, nice_ticks
from jobs.report.reported_run import Judged, ReportedRun, Span, runs_of_true, segment_edges_s, spans

NUM_COLOURS = 10
NUM_FRAMES = 10
# One cell of the strip; shown at about two thirds of this on a laptop, which is sharp on dense screens too.
FRAME_HEIGHT_PX, FRAME_WIDTH_PX, FRAME_GAP_PX = 90, 120, 4
# About 4 KB a frame; artefacts are not visible at the shown size.
FRAME_QUALITY = 55
# Below this (of full scale, as RMS) a curve scaled to its own peak would show the noise of silence.
SILENCE = 1e-3
MOST_SPANS = 24


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A coloured interval: its position on the axis, its colour's number, the class and what the pointer reads.

    Attributes:
        score: in [0, 1]; None where there is none.
        wrong: is it known to be a mistake?
    """

    left: float
    width: float
    colour: int
    label: str
    title: str
    score: float | None = None
    wrong: bool = False


@dataclass(frozen=True, kw_only=True)
class Media:
    """What was read of a medium. Each part is empty where it could not be had, and its `problem` says why."""

    strip: str = ""  # data: URI
    strip_problem: str = ""
    energy: str = ""  # SVG path in a box of NUM_BINS x 100, shorter where the medium ends before the axis
    energy_problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """One video as the template draws it. Lanes hold bars that do not overlap; `smoothed_*`: after the run filter."""

    item_id: str
    video_id: str
    duration_s: float
    num_segments: int
    num_right: int
    media: Media
    frame_times_s: tuple[float, ...]
    true_lanes: tuple[tuple[Bar, ...], ...]
    predicted_lanes: tuple[tuple[Bar, ...], ...]
    smoothed_lanes: tuple[tuple[Bar, ...], ...] | None
    smoothed_wrong: tuple[tuple[float, float], ...]
    wrong: tuple[tuple[float, float], ...]
    featureless: tuple[tuple[float, float], ...]
    hidden: int
    ticks: tuple[Tick, ...]
    legend: tuple[tuple[int, str], ...]


def choose(items: Sequence[Judged], num: int, seed: int) -> list[Judged]:
    """`num` items, half with a wrong segment and half without, as far as there are such; the same for a seed.

    Those with mistakes come first; within either half the order is that of `items`.
    """
    rng = random.Random(seed)
    judged = [item for item in items if item.num_segments > 0]
    wrong = [i for i, item in enumerate(judged) if item.num_right < item.num_segments]
    right = [i for i, item in enumerate(judged) if item.num_right == item.num_segments]
    num_wrong = min(len(wrong), max(math.ceil(num / 2), num - len(right)))
    num_right = min(len(right), num - num_wrong)
    chosen = sorted(rng.sample(wrong, num_wrong)) + sorted(rng.sample(right, num_right))
    return [judged[i] for i in chosen]


def timeline(item: Judged, run: ReportedRun, media: Media, smoothed: Judged | None = None) -> Timeline:
    """The timeline of `item` with what was read of its medium; `smoothed` is the item after the run filter."""
    edges_s = segment_edges_s(item.num_segments, run)
    duration_s = axis_s(item, run)
    truth = spans(item.true_TK, run)
    predicted = spans(item.predicted_TK, run, item.score_TK)
    surest = sorted(predicted, key=lambda span: -(span.score or 0))[:MOST_SPANS]
    kept = sorted(surest, key=lambda span: (span.start_s, span.end_s))
    filtered = [] if smoothed is None else spans(smoothed.predicted_TK, run, smoothed.score_TK)
    colours = colours_of([*truth, *kept, *filtered], run.labels)
    return Timeline(
        item_id=item.item_id,
        video_id=item.video_id,
        duration_s=duration_s,
        num_segments=item.num_segments,
        num_right=item.num_right,
        media=media,
        frame_times_s=frame_times_s(duration_s),
        true_lanes=lanes(truth, colours, duration_s),
        predicted_lanes=lanes(kept, colours, duration_s),
        smoothed_lanes=None if smoothed is None else lanes(filtered, colours, duration_s),
        smoothed_wrong=() if smoothed is None else _cells(smoothed.wrong_T, edges_s, duration_s),
        wrong=_cells(item.wrong_T, edges_s, duration_s),
        featureless=_cells(~item.features_T, edges_s, duration_s),
        hidden=len(predicted) - len(kept),
        ticks=axis_ticks(duration_s),
        legend=tuple((colour, label) for label, colour in colours.items()),
    )


def axis_s(item: Judged, run: ReportedRun) -> float:
    """Seconds from the medium's beginning to the end of the item's last segment."""
    rule = run.record.recipe.grid
    count = item.num_segments
    return float(SegmentGrid(window_s=rule.window_s, hop_s=rule.hop_s, count=count).end_s(count - 1))


def axis_ticks(duration_s: float) -> tuple[Tick, ...]:
    """Round seconds on an axis of `duration_s`, in per cent of it."""
    return tuple(
        Tick(at=round(100 * tick / duration_s, 3), text=f"{tick:g}")
        for tick in nice_ticks(0, duration_s, 6)
        if tick <= duration_s
    )


def frame_times_s(duration_s: float) -> tuple[float, ...]:
    """The middles of `NUM_FRAMES` equal parts of the axis."""
    return tuple((i + 0.5) * duration_s / NUM_FRAMES for i in range(NUM_FRAMES))


def frame_strip(frames: Sequence[NDArray[np.uint8] | None]) -> str:
    """Pictures, uint8 (H, W, 3) of any size or None, side by side as one WebP `data:` URI, each cut to its cell."""

    size = (FRAME_WIDTH_PX - FRAME_GAP_PX, FRAME_HEIGHT_PX)
    strip = Image.new("RGBA", (FRAME_WIDTH_PX * len(frames), FRAME_HEIGHT_PX))  # gaps are see-through
    for i, frame in enumerate(frames):
        at = (i * FRAME_WIDTH_PX + FRAME_GAP_PX // 2, 0)
        if frame is None:
            strip.paste((127, 127, 127, 90), (*at, at[0] + size[0], size[1]))
        else:
            strip.paste(ImageOps.fit(Image.fromarray(frame), size, Image.Resampling.LANCZOS), at)
    buffer = io.BytesIO()
    strip.save(buffer, "WEBP", quality=FRAME_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def energy_path(loudness_N: NDArray[np.floating]) -> str:
    """The closed outline of a mirrored curve of N bins, each 1 wide, in a height of 100.

    The peak fills the height, unless all is below `SILENCE`.
    """
    values_N = np.nan_to_num(np.abs(np.asarray(loudness_N, dtype=np.float64)), nan=0.0, posinf=0.0)
    peak = max(float(values_N.max(initial=0.0)), SILENCE)
    half_N = 48 * values_N / peak + 0.6  # a hair line where all is quiet
    upper = [f"{i + 0.5:g},{50 - half:.1f}" for i, half in enumerate(half_N)]
    lower = [f"{i + 0.5:g},{50 + half:.1f}" for i, half in reversed(list(enumerate(half_N)))]
    return f"M{' '.join(upper)} {' '.join(lower)}Z"


def lanes(found: Sequence[Span], colours: Mapping[str, int], duration_s: float) -> tuple[tuple[Bar, ...], ...]:
    """Spans on as few lanes as keep them apart; one empty lane where there are none."""
    packed: list[list[Bar]] = [[]]
    ends_s = [0.0]
    for span in sorted(found, key=lambda span: (span.start_s, span.end_s)):
        lane = next((i for i, end_s in enumerate(ends_s) if end_s <= span.start_s), len(packed))
        if lane == len(packed):
            packed.append([])
            ends_s.append(0.0)
        ends_s[lane] = span.end_s
        score = f", score {span.score:.2f}" if span.score is not None else ""
        verdict = f", {span.verdict}" if span.verdict else ""
        start_s, end_s = max(0.0, span.start_s), min(duration_s, span.end_s)
        packed[lane].append(
            Bar(
                left=round(100 * start_s / duration_s, 3),
                width=round(100 * max(0.0, end_s - start_s) / duration_s, 3),
                colour=colours[span.label],
                label=span.label,
                title=f"{span.label}, {span.start_s:g} to {span.end_s:g} s{score}{verdict}",
                score=span.score,
                wrong=span.wrong,
            )
        )
    return tuple(map(tuple, packed))


def colours_of(found: Sequence[Span], labels: Sequence[str]) -> dict[str, int]:
    """A colour for each class in order of appearance: its own (by class number) unless another here has it."""
    taken: dict[str, int] = {}
    for span in found:
        if span.label in taken:
            continue
        own = labels.index(span.label) % NUM_COLOURS
        free = [(own + step) % NUM_COLOURS for step in range(NUM_COLOURS)]
        taken[span.label] = next((colour for colour in free if colour not in taken.values()), own)
    return taken


def _cells(flags_T: NDArray[np.bool_], edges_s: Sequence[float], duration_s: float) -> tuple[tuple[float, float], ...]:
    """(left, width) in per cent of each run of True."""
    return tuple(
        (round(100 * edges_s[a] / duration_s, 3), round(100 * (edges_s[b] - edges_s[a]) / duration_s, 3))
        for a, b in runs_of_true(flags_T)
    )
