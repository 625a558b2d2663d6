"""Features in an exchange format, read into a store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.dataset import Dataset
from catalog.exchange.sidecar import SLAB_BYTES, Manifest, RowsOf
from catalog.grid import GridRule
from catalog.store.reader import FeatureStore, create_store, exists, open_store
from catalog.store.rows import VideoResult
from catalog.store.writer import open_writer

_VIDEOS_AN_APPEND = 64


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What the user states of features without a sidecar.

    Attributes:
        name: the recipe's.
        grid: what one row spans.
        dataset: whose rows they are.
    """

    name: str = "imported"
    grid: GridRule | None = None
    dataset: Dataset | None = None


def import_features(
    exchange: ModuleType, source: Path, store_uri: str, stated: Stated = Stated(), *, wait_s: float = 0.0
) -> FeatureStore:
    """Reads a folder in a format into a store, in one commit: a new store, or a recipe of an existing one.

    Raises:
        ValueError: files are missing or of another layout, or `stated` lacks what they need.
        StoreBusy, RecipeMismatch: as the writer does.
    """
    with exchange.opened(source, stated) as (manifest, rows_of):
        return _import_results(manifest, rows_of, store_uri, wait_s=wait_s)


class SlabReader:
    """Rows of arrays, front to back, fetched in slabs of bounded size."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._arrays = arrays
        self._slabs: dict[str, tuple[int, NDArray[np.floating]]] = {}

    def rows(self, name: str, begin: int, end: int) -> NDArray[np.floating]:
        """Rows `begin` to `end` of an array."""
        array = self._arrays[name]
        start, slab = self._slabs.get(name, (0, np.empty((0, *array.shape[1:]), dtype=array.dtype)))
        if not (start <= begin and end <= start + len(slab)):
            row_bytes = max(1, array.dtype.itemsize * math.prod(array.shape[1:]))
            start, slab = begin, np.asarray(array[begin : max(end, begin + SLAB_BYTES // row_bytes)])
            self._slabs[name] = (start, slab)
        return slab[begin - start : end - start]


def _import_results(manifest: Manifest, rows_of: RowsOf, store_uri: str, *, wait_s: float) -> FeatureStore:
    store = open_store(store_uri) if exists(store_uri) else create_store(store_uri)
    name = manifest.recipe.name
    with open_writer(store, wait_s=wait_s) as writer:
        writer.ensure_recipe(
            manifest.recipe,
            visual_shape=manifest.visual_shape,
            audio_shape=manifest.audio_shape,
            card=manifest.card,
        )
        pending: list[VideoResult] = []
        for result in manifest.results(rows_of):
            pending.append(result)
            if len(pending) == _VIDEOS_AN_APPEND:
                writer.append(pending, [name])
                pending = []
        writer.append(pending, [name])
        writer.commit(f"Imported {len(manifest.videos)} videos as {name} from {manifest.exchange}")
    return store
