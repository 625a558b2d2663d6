"""Small recipes, results and stores for tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.store.format import STANDARD_CHUNKS, ChunkSizes
from catalog.store.modal import Modal
from catalog.store.reader import FeatureStore, create_store
from catalog.store.rows import RecipeRows, VideoResult
from catalog.store.writer import open_writer
from catalog.video import Outcome, Video

VISUAL, AUDIO = 6, 4


def recipe(name: str = "tiny", **changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "encoder": "tiny",
        "grid": GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
        "video": VideoSampling(frames_per_segment=1, height_px=8, width_px=8),
        "audio": AudioSampling(rate_hz=16000),
        "storage": "float32",
    }
    return Recipe(name=name, **(settings | changes))


def features(seed: int, count: int, width: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32)


def rows(seed: int, count: int, *, visual: bool = True, audio: bool = True, invalid: tuple[int, ...] = ()) -> Any:
    """`count` one-second rows, drawn from `seed` (visual) and `seed + 1000` (audio)."""
    valid = np.ones(count, dtype=bool)
    valid[list(invalid)] = False
    modals = []
    for wanted, drawn in ((visual, features(seed, count, VISUAL)), (audio, features(seed + 1000, count, AUDIO))):
        drawn[~valid] = np.nan
        modals.append(Modal(values=drawn, valid=valid.copy()) if wanted else None)
    starts = np.arange(count, dtype=np.float64)
    return RecipeRows(
        visual=modals[0],
        audio=modals[1],
        start_s=starts,
        end_s=starts + 1,
    )


def result(number: int, *, count: int | None = None, names: tuple[str, ...] = ("tiny",), **changes: Any) -> VideoResult:
    """An extracted video "v<number>" with `count` rows (2 to 4, by its number) under each recipe of `names`."""
    count = 2 + number % 3 if count is None else count
    status = changes.pop("status", "extracted")
    outcome = Outcome(status=status, reason=changes.pop("reason", ""), detail=changes.pop("detail", ""))
    settings: dict[str, Any] = {
        "video": Video(id=f"v{number}", uri=f"/media/v{number}.mp4"),
        "unit": number // 2,
        "outcome": outcome,
        "duration_s": float(count),
        "sha256": f"{number:064x}",
        "bytes": 100 + number,
        "media": {"t0": "0", "streams": ["video", "audio"]},
        "features": {name: rows(number, count) for name in names},
    }
    return VideoResult(**(settings | changes))


def quarantined(number: int, reason: str = "not_media") -> VideoResult:
    return result(
        number, status="quarantined", reason=reason, detail="no demuxer knows it", duration_s=float("nan"), features={}
    )


def make(
    uri: str | Path,
    results: list[VideoResult],
    *,
    recipe_: Recipe | None = None,
    chunks: ChunkSizes = STANDARD_CHUNKS,
) -> FeatureStore:
    """A store of `results`, in one commit."""
    chosen = recipe() if recipe_ is None else recipe_
    store = create_store(uri, chunks=chunks)
    with open_writer(store, chunks=chunks) as writer:
        writer.ensure_recipe(chosen, visual_shape=(VISUAL,), audio_shape=(AUDIO,), card={"licence": "none"})
        writer.append(results, [chosen.name])
        writer.commit("sample")
    return store
