"""Geometry of the charts: numbers to positions. The template draws them as inline SVG, so colours follow the page.

Everything is in the user units of the chart's own `viewBox`, which are pixels at its natural size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVELS = 9  # steps of the heat map's scale
NUM_BINS = 240  # of an audio-energy curve

# Width of an average character as a share of the font size; names are cut to what fits.
_CHARACTER_WIDTH = 0.6
_LONGEST_NAME = 28


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve: `pieces` are SVG point lists (a gap where a value is missing), `dots` stand-alone points."""

    name: str
    kind: str
    pieces: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """Curves over epochs, or whatever `x_name` is.

    Attributes:
        mark_points: each curve's x, y, text, the text's distance below y, and kind at the marked epoch.
    """

    title: str
    x_name: str
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    mark_x: float | None
    mark_points: tuple[tuple[float, float, str, float, str], ...]
    mark_anchor: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One class pair of the heat map with at least one segment."""

    x: float
    y: float
    level: int  # 1 .. LEVELS
    right: bool
    text: str  # per cent, where it fits
    title: str


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """A row-normalised confusion matrix: rows the truth, columns the prediction (`names`)."""

    width: float
    height: float
    left: float
    top: float
    cell: float
    font: float
    names: tuple[str, ...]
    row_names: tuple[str, ...]
    cells: tuple[Cell, ...]
    empty_rows: tuple[int, ...]


def line_chart(
    title: str,
    at: Sequence[float],
    curves: Sequence[tuple[str, str, Sequence[float]]],
    *,
    x_name: str = "epoch",
    chosen: float | None = None,
    percent: bool = False,
    width: float = 460,
    height: float = 240,
) -> LineChart | None:
    """Curves `(name, kind, value an epoch)` over the epochs `at`; None where no value is finite.

    Args:
        title: what the y axis is.
        x_name: what the x axis is, where it is no epoch.
        chosen: the epoch to mark.
        percent: show shares as per cent.
    """
    finite = [value for _, _, values in curves for value in values if math.isfinite(value)]
    if not finite:
        return None
    ticks = nice_ticks(min(finite), max(finite), 4)
    frame = _Frame(
        left=46.0,
        right=width - 14,
        top=14.0,
        bottom=height - 34,
        first=min(at),
        last=max(at),
        low=min(ticks[0], *finite),
        high=max(ticks[-1], *finite),
    )
    mark_x = None
    marks: list[tuple[float, float, str, float, str]] = []
    spoken: list[str] = []
    if chosen is not None and chosen in at:
        mark_x = frame.x(chosen)
        marks, spoken = _marks(frame, list(at).index(chosen), mark_x, curves, percent)
    return LineChart(
        title=title,
        x_name=x_name,
        width=width,
        height=height,
        left=frame.left,
        right=frame.right,
        top=frame.top,
        bottom=frame.bottom,
        x_ticks=tuple(Tick(at=frame.x(tick), text=f"{tick:g}") for tick in _x_ticks(at)),
        y_ticks=tuple(Tick(at=frame.y(tick), text=_tick_text(tick, ticks, percent)) for tick in ticks),
        lines=tuple(_line(frame, name, kind, at, values) for name, kind, values in curves),
        mark_x=mark_x,
        mark_points=tuple(marks),
        mark_anchor="end" if mark_x is not None and mark_x > (frame.left + frame.right) / 2 else "start",
        summary=f"{title} over {x_name}s {frame.first:g} to {frame.last:g}"
        + (f"; at the chosen {x_name} {chosen:g}: {', '.join(spoken)}" if spoken else ""),
    )


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Where a chart's values lie in pixels."""

    left: float
    right: float
    top: float
    bottom: float
    first: float
    last: float
    low: float
    high: float

    def x(self, epoch: float) -> float:
        share = (epoch - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return round(self.left + (self.right - self.left) * share, 1)

    def y(self, value: float) -> float:
        return round(self.bottom - (self.bottom - self.top) * (value - self.low) / (self.high - self.low), 1)


def _line(frame: _Frame, name: str, kind: str, at: Sequence[float], values: Sequence[float]) -> Line:
    """A curve in pieces: it is broken where a value is not finite."""
    runs: list[list[tuple[float, float]]] = [[]]
    for epoch, value in zip(at, values, strict=True):
        if math.isfinite(value):
            runs[-1].append((frame.x(epoch), frame.y(value)))
        elif runs[-1]:
            runs.append([])
    return Line(
        name=name,
        kind=kind,
        pieces=tuple(" ".join(f"{x:g},{y:g}" for x, y in run) for run in runs if len(run) > 1),
        dots=tuple(run[0] for run in runs if len(run) == 1),
    )


def _marks(
    frame: _Frame, index: int, mark_x: float, curves: Sequence[tuple[str, str, Sequence[float]]], percent: bool
) -> tuple[list[tuple[float, float, str, float, str]], list[str]]:
    """Points and numbers of the curves at the marked epoch, and the same in words."""
    there = sorted((values[index], name, kind) for name, kind, values in curves if math.isfinite(values[index]))
    marks, spoken = [], []
    for i, (value, name, kind) in enumerate(there):
        # The lower curve's number stands below it, so that two near each other do not overlap.
        below = i == 0 and len(there) > 1 and frame.y(value) < frame.bottom - 20
        marks.append((mark_x, frame.y(value), number(value, percent), 17.0 if below else -9.0, kind))
        spoken.append(f"{name} {number(value, percent)}")
    return marks, spoken


def heat_map(
    shares_KK: NDArray[np.float64],
    counts_KK: NDArray[np.int64],
    labels: Sequence[str],
    *,
    rows: Sequence[int] | None = None,
) -> HeatMap:
    """The heat map of row shares in [0, 1]; NaN rows (no true segment) are listed in `empty_rows`.

    Args:
        rows: the true classes to show, in this order; None shows all.
    """
    num = len(labels)
    shown = range(num) if rows is None else rows
    cell = 44.0 if num <= 12 else 25.0 if num <= 34 else 14.0 if num <= 60 else 7.6
    font = 12.0 if num <= 34 else 10.0 if num <= 60 else 7.0
    names = tuple(shortened(label, _LONGEST_NAME) for label in labels)
    margin = 10 + max(map(len, names)) * font * _CHARACTER_WIDTH
    top = 10 + 0.87 * max(map(len, names)) * font * _CHARACTER_WIDTH  # column names lean by 60 degrees
    lean = 0.5 * max(map(len, names)) * font * _CHARACTER_WIDTH
    cells = []
    for row, i in enumerate(shown):
        for j in range(num):
            count = int(counts_KK[i, j])
            if not count:
                continue
            share = float(shares_KK[i, j])
            cells.append(
                Cell(
                    x=round(margin + j * cell, 1),
                    y=round(top + row * cell, 1),
                    level=max(1, math.ceil(share * LEVELS)),
                    right=i == j,
                    text=f"{100 * share:.0f}" if cell >= 25 and share >= 0.095 else "",
                    # A tooltip a cell is worth its bytes only where cells can be hit with a pointer.
                    title=f"{labels[i]} called {labels[j]}: {count} segments, {100 * share:.1f} %" if cell > 12 else "",
                )
            )
    return HeatMap(
        width=round(margin + num * cell + lean, 1),
        height=round(top + len(shown) * cell + 4, 1),
        left=round(margin, 1),
        top=round(top, 1),
        cell=cell,
        font=font,
        names=names,
        row_names=tuple(names[i] for i in shown),
        cells=tuple(cells),
        empty_rows=tuple(row for row, i in enumerate(shown) if not counts_KK[i].any()),
    )


def nice_ticks(low: float, high: float, num: int) -> list[float]:
    """About `num` round numbers (1, 2 or 5 times a power of ten apart) that enclose `[low, high]`."""
    if high <= low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    rough = (high - low) / num
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def shortened(text: str, longest: int) -> str:
    """`text`, its end replaced by an ellipsis where it is longer than `longest` characters."""
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def number(value: float, percent: bool) -> str:
    """`value` as the page shows it: 83.7 % for the share 0.837, four significant digits otherwise, – for NaN."""
    if not math.isfinite(value):
        return "–"
    return f"{100 * value:.1f} %" if percent else f"{value:.4g}"


def _tick_text(tick: float, ticks: Sequence[float], percent: bool) -> str:
    step = (ticks[1] - ticks[0]) * (100 if percent else 1)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{100 * tick:.{digits}f} %" if percent else f"{tick:.{digits}f}"


def _x_ticks(at: Sequence[float]) -> list[float]:
    """Each value where there are few, else round numbers within."""
    values = sorted(set(at))
    if len(values) <= 9 and max(values) - min(values) <= 9:
        return values
    return [tick for tick in nice_ticks(values[0], values[-1], 5) if values[0] <= tick <= values[-1]]
