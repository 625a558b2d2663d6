"""Predicted events as a picture: one lane a medium, one bar an event, one colour a class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from catalog.event import Prediction
from jobs.cli.console import visible

MAX_LANES = 60
FORMATS = (".png", ".svg", ".pdf")


def draw(
    lanes: Sequence[tuple[str, float | None, Sequence[Prediction]]], classes: Sequence[str], path: Path, *, title: str
) -> None:
    """Write the picture; its format by the suffix of `path`.

    Args:
        lanes: (name, duration in seconds, events); a duration of None stands for a medium without prediction.
            Those beyond MAX_LANES are left out, and the title says so.
        classes: in the head's order, so that a class keeps its colour from picture to picture.
    """
    shown = lanes[:MAX_LANES]
    colours = colormaps["tab20"]
    # The object interface: pyplot would choose a backend by the screen and keep every figure alive.
    figure = Figure(figsize=(10, 1.4 + 0.45 * max(1, len(shown))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    used = sorted({event.label for _, _, events in shown for event in events}, key=list(classes).index)
    for lane, (_, duration_s, events) in enumerate(shown):
        if duration_s is None:
            axes.text(0, lane, " no prediction", va="center", color="0.45", fontsize=8)
            continue
        axes.barh(lane, duration_s, height=0.8, color="0.93")
        for event in events:
            colour = colours(list(classes).index(event.label) % 20)
            axes.barh(
                lane,
                event.end_s - event.start_s,
                left=event.start_s,
                height=0.6,
                color=colour,
                alpha=0.35 + 0.65 * min(1.0, max(0.0, event.score)),  # a surer event stands out
                edgecolor="white",
            )
    # Names come from files: no part of them is to be read as mathematics.
    axes.set_yticks(range(len(shown)))
    axes.set_yticklabels([_short(name) for name, _, _ in shown], parse_math=False)
    axes.set_ylim(max(1, len(shown)) - 0.4, -0.6)  # the first lane on top, no empty margins
    axes.set_xlabel("seconds")
    axes.set_xlim(0, max([duration_s or 0.0 for _, duration_s, _ in shown] + [1e-3]))
    left_out = f" (the first {MAX_LANES} of {len(lanes)})" if len(lanes) > MAX_LANES else ""
    axes.set_title(visible(title) + left_out, parse_math=False, loc="left", fontsize=10)
    if used:
        patches = [Patch(color=colours(list(classes).index(label) % 20), label=visible(label)) for label in used]
        legend = figure.legend(handles=patches, loc="outside lower left", ncols=4, fontsize=8, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box is drawn, which will do
        figure.savefig(path, dpi=120)


def _short(name: str) -> str:
    name = visible(name)
    return name if len(name) <= 40 else "…" + name[-39:]
