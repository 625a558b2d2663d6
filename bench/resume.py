"""A run over a finished store of 25,000 videos: the plan, the check that nothing is left, and the table."""

from __future__ import annotations

import contextlib
import io
import time
from pathlib import Path

import numpy as np

from bench.measurement import Measurement
from catalog.datasets import folder as source
from catalog.store.modal import Modal
from catalog.store.reader import create_store
from catalog.store.rows import RecipeRows, VideoResult
from catalog.store.writer import open_writer
from catalog.video import EXTRACTED, Video
from jobs.cli import main as cli
from pipeline.recipes import find_recipe

ABOUT = "`avel extract` over a finished store of 25,000 videos, after imports"

NUM_VIDEOS, VIDEOS_A_UNIT = 25_000, 8


def measure(folder: Path) -> list[Measurement]:
    recipe = find_recipe("descriptors-1s")
    names = [f"videos/{i:06d}.mp4" for i in range(NUM_VIDEOS)]
    (folder / "list.txt").write_text("".join(f"{folder / name}\n" for name in names), encoding="utf-8")
    videos = source.load(folder / "list.txt").videos
    with open_writer(create_store(folder / "store")) as writer:
        writer.ensure_recipe(recipe, visual_shape=(4,), audio_shape=(4,), card={})
        results = [_result(video, i, recipe.name) for i, video in enumerate(videos)]
        for first in range(0, NUM_VIDEOS, 1000):
            writer.append(results[first : first + 1000], [recipe.name])
        writer.commit("injected")
    words = ["extract", str(folder / "list.txt"), "--recipe", recipe.name, "--store", str(folder / "store")]
    _extract(words)  # the imports
    began_s = time.perf_counter()
    said = _extract(words)
    spent_s = time.perf_counter() - began_s
    assert "nothing to do" in said, said
    return [Measurement(what="a run over 25,000 finished videos", value=spent_s, unit="s", at_most=2.0)]


def _extract(words: list[str]) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = cli.main(words)
    assert status == cli.OK, said.getvalue()
    return said.getvalue()


def _result(video: Video, i: int, recipe_name: str) -> VideoResult:
    valid = np.ones(1, np.bool_)
    rows = RecipeRows(
        visual=Modal(values=np.full((1, 4), i, np.float32), valid=valid),
        audio=Modal(values=np.full((1, 4), -i, np.float32), valid=valid),
        start_s=np.zeros(1),
        end_s=np.ones(1),
    )
    features = {recipe_name: rows}
    return VideoResult(video=video, unit=i // VIDEOS_A_UNIT, outcome=EXTRACTED, duration_s=1.0, features=features)
