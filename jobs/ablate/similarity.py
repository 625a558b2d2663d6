"""Cosine similarity of audio and frames at each pair of times, by the heads of a table: the number, and matrices drawn.

The number is kept in the run's folder, as `similarity_test.json`: it takes a forward pass of the whole split.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from catalog.whole_file import write_atomically
from heads.ablation.cross_similarity import cross_similarity, mean_of_std
from heads.ablation.table import MEAN_OF_STD
from heads.data.split import Split
from heads.runs.folder import Run, read_run
from heads.runs.record import Numbers
from jobs.cli.console import visible

FILE = "similarity_test.json"
# Videos drawn.
_VIDEOS = 3


def measure_similarity(folder: Path, split: Split) -> None:
    """See that the run in `folder` has its number, of its encoders' outputs over the test split.

    Raises:
        ValueError: the head has no encoders of both modalities, or the features lack one.
    """
    if (folder / FILE).exists():
        return
    found = mean_of_std(read_run(folder).head, split)
    numbers = {MEAN_OF_STD: found.mean, "std_by_item": found.std_by_item}
    write_atomically(folder / FILE, json.dumps(numbers, indent=1, allow_nan=False) + "\n")


def read_similarity(folder: Path) -> Numbers:
    """The number as a metric of the run.

    Raises:
        ValueError: it was not measured, or its file is damaged.
    """
    path = folder / FILE
    try:
        return {MEAN_OF_STD: float(json.loads(path.read_text(encoding="utf-8"))[MEAN_OF_STD])}
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: `avel ablate` measures it where a table asks for it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: needs a number {MEAN_OF_STD} ({error}); remove it, the run is kept") from error


def draw_similarity(folders: Mapping[str, Path], split: Split, path: Path, *, title: str) -> None:
    """Draw matrices of the videos with the most events: of the features as stored, then of each run's encoders.

    Features as stored are left out where audio and frames differ in width. A run with LCC is drawn in its common
    space too.

    Args:
        folders: label to a run's folder.
        path: of the figure; its format by the suffix.
    """
    # The object interface: pyplot would choose a backend by the screen and keep every figure alive.

    runs = {label: read_run(folder) for label, folder in folders.items()}
    items = sorted(split.present.tolist(), key=lambda n: (-len(split.items[n].events), n))[:_VIDEOS]
    lines = [_matrices(runs, split, item) for item in items]
    figure = Figure(figsize=(2.6 * len(lines[0]) + 1, 2.5 * len(lines) + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(lines), len(lines[0]), squeeze=False)
    for axes_of_line, line, item in zip(grid, lines, items, strict=True):
        for axes, (label, similarity_VA) in zip(axes_of_line, line.items(), strict=True):
            image = axes.imshow(similarity_VA, vmin=-1, vmax=1, cmap="RdBu_r", origin="lower", aspect="auto")
            title_of_item = f"{visible(label)}\n{visible(split.items[item].id)}, std {similarity_VA.std():.3f}"
            axes.set_title(title_of_item, fontsize=8, parse_math=False)
            axes.tick_params(labelsize=7)
        axes_of_line[0].set_ylabel("segment seen", fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("segment heard", fontsize=8)
    figure.colorbar(image, ax=grid, shrink=0.6, label="cosine")
    figure.suptitle(visible(title), fontsize=10, parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box is drawn, which will do
        figure.savefig(path, dpi=120)


def _matrices(runs: Mapping[str, Run], split: Split, item: int) -> dict[str, NDArray[np.float32]]:
    found: dict[str, NDArray[np.float32]] = {}
    visual, audio = split.visual, split.audio
    if visual is not None and audio is not None and visual.values.shape[-1] == audio.values.shape[-1]:
        found["features as stored"] = cross_similarity(None, split, item, stage="raw")
    for label, run in runs.items():
        found[label] = cross_similarity(run.head, split, item)
        if run.record.config.get("lcc", "off") != "off":
            found[f"{label}, LCC's space"] = cross_similarity(run.head, split, item, stage="common")
    return found
