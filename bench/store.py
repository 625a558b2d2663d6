"""Store write and commit, and whole read, against np.save and np.load of the same bytes."""

from __future__ import annotations

import itertools
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np

from bench.measurement import Measurement, taking_turns
from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.store.modal import Modal
from catalog.store.reader import create_store, open_store
from catalog.store.rows import RecipeRows, VideoResult
from catalog.store.writer import open_writer
from catalog.video import EXTRACTED, Video

ABOUT = "store write+commit and whole read against np.save and np.load of the same bytes"

NUM_VIDEOS, NUM_SEGMENTS, WIDTH = 1000, 10, 1024


def measure(folder: Path) -> list[Measurement]:
    generator = np.random.default_rng(0)
    rows = NUM_VIDEOS * NUM_SEGMENTS
    visual = generator.standard_normal((rows, WIDTH), dtype=np.float32)
    audio = generator.standard_normal((rows, WIDTH), dtype=np.float32)
    recipe = Recipe(
        name="bench",
        encoder="bench",
        grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
        video=VideoSampling(frames_per_segment=1, height_px=8, width_px=8),
        audio=AudioSampling(rate_hz=16000),
    )
    results = [_result(i, recipe.name, visual, audio) for i in range(NUM_VIDEOS)]
    counter = itertools.count()
    last = folder / "store-0"

    def write_store() -> None:
        nonlocal last
        shutil.rmtree(last, ignore_errors=True)
        last = folder / f"store-{next(counter)}"
        with open_writer(create_store(str(last))) as writer:
            writer.ensure_recipe(recipe, visual_shape=(WIDTH,), audio_shape=(WIDTH,), card={})
            for first in range(0, NUM_VIDEOS, 8):
                writer.append(results[first : first + 8], [recipe.name])
            writer.commit("bench")

    def write_npy() -> None:
        # To new files each time, as the store does: overwriting finds its pages in memory already and is 7 x faster.
        for name, values in (("visual", visual), ("audio", audio)):
            (folder / f"{name}.npy").unlink(missing_ok=True)
            np.save(folder / f"{name}.npy", values)

    def read_store() -> None:
        store = open_store(str(last))
        assert len(store.read(recipe.name, "visual").values) == len(store.read(recipe.name, "audio").values) == rows

    def read_npy() -> None:
        assert len(np.load(folder / "visual.npy")) == len(np.load(folder / "audio.npy")) == rows

    store_s, npy_s = taking_turns(7, write_store, write_npy)
    store_read_s, npy_read_s = taking_turns(7, read_store, read_npy)
    size_mb = (visual.nbytes + audio.nbytes) / 1e6
    return [
        Measurement(
            what="store write + commit / np.save",
            value=store_s / npy_s,
            unit="x",
            at_most=1.3,
            detail=f"{size_mb:.0f} MB: {store_s:.3f} s, {npy_s:.3f} s",
        ),
        Measurement(
            what="store whole read / np.load",
            value=store_read_s / npy_read_s,
            unit="x",
            at_most=1.0,
            detail=f"{size_mb:.0f} MB: {store_read_s:.3f} s, {npy_read_s:.3f} s",
        ),
    ]


def _result(i: int, recipe_name: str, visual: np.ndarray, audio: np.ndarray) -> VideoResult:
    part = slice(i * NUM_SEGMENTS, (i + 1) * NUM_SEGMENTS)
    valid = np.ones(NUM_SEGMENTS, np.bool_)
    starts_s = np.arange(NUM_SEGMENTS, dtype=np.float64)
    rows = RecipeRows(
        visual=Modal(values=visual[part], valid=valid),
        audio=Modal(values=audio[part], valid=valid),
        start_s=starts_s,
        end_s=starts_s + 1,
    )
    video = Video(id=f"video-{i:05d}", uri=f"videos/video-{i:05d}.mp4")
    return VideoResult(
        video=video,
        unit=i // 8,
        outcome=EXTRACTED,
        duration_s=NUM_SEGMENTS,
        features={recipe_name: rows},
    )
