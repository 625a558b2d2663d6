"""A plain Zarr v3 folder, for readers without Icechunk: one recipe, rows in the order of the videos, no history.

visual (R, *shape), audio (R, *shape), visual_valid, audio_valid (R,), start_s, end_s (R,), offsets (V + 1,):
the rows of video k of `videos.json` are offsets[k]:offsets[k + 1]
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from catalog.dataset import Dataset
from catalog.exchange.importing import SlabReader, Stated
from catalog.exchange.sidecar import SLAB_BYTES, Manifest, RowsOf, manifest_of
from catalog.store.format import CHUNK_BYTES, MODALITIES
from catalog.store.reader import FeatureStore

NAME = "zarr"


def export(
    store: FeatureStore,
    recipe_name: str,
    out: Path,
    *,
    dataset: Dataset | None = None,
    fill: float = math.nan,
) -> dict[str, int]:
    """Writes `out`, which must be new or empty, slab by slab.

    Args:
        dataset: only its videos, in its order; None is all.
        fill: what stands in rows that were not computed.

    Returns:
        counts: rows, videos, videos of the data set that the store has not.
    """
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out}: needs an empty folder or a new one")
    out.mkdir(parents=True, exist_ok=True)
    entry = store.recipe(recipe_name)
    wanted = None if dataset is None else [video.id for video in dataset.videos]
    manifest = manifest_of(store, recipe_name, NAME, video_ids=wanted)
    counts = np.array([video["rows"] for video in manifest.videos], dtype=np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
    ids = [video["id"] for video in manifest.videos]
    total = int(offsets[-1])
    root = zarr.open_group(str(out), mode="w")
    root.create_array("offsets", data=offsets)
    for name in ("start_s", "end_s"):
        root.create_array(name, shape=(total,), dtype="float64")
    for modality in MODALITIES:
        root.create_array(f"{modality}_valid", shape=(total,), dtype="bool")
        shape = entry.shape(modality)
        if shape is None:
            continue
        row_bytes = np.dtype(entry.recipe.storage).itemsize * math.prod(shape)
        array = root.create_array(
            modality,
            shape=(total, *shape),
            chunks=(max(1, min(max(total, 1), CHUNK_BYTES // row_bytes)), *shape),
            dtype=entry.recipe.storage,
            fill_value=math.nan,
        )
        begin = 0
        while begin < len(ids):
            # As many whole videos as fit a slab, and at least one.
            end = int(np.searchsorted(offsets, offsets[begin] + SLAB_BYTES // row_bytes, side="right")) - 1
            end = min(max(end, begin + 1), len(ids))
            ragged = store.read(recipe_name, modality, ids[begin:end])
            rows = slice(int(offsets[begin]), int(offsets[end]))
            if rows.stop > rows.start:
                array[rows] = ragged.values if math.isnan(fill) else ragged.filled(fill)
                _array(root, f"{modality}_valid", out)[rows] = ragged.valid
                for name, column in (("start_s", ragged.start_s), ("end_s", ragged.end_s)):
                    _array(root, name, out)[rows] = column
            begin = end
    manifest.write(out)
    absent = 0 if wanted is None else len(wanted) - len(ids)
    return {"rows": total, "videos": len(ids), "absent_videos": absent}


@contextlib.contextmanager
def opened(source: Path, stated: Stated) -> Iterator[tuple[Manifest, RowsOf]]:
    """Such a folder's videos and their rows; `stated` is not needed: the sidecar has it all.

    Raises:
        ValueError: no sidecar, or arrays that are not as it says.
    """
    del stated
    manifest = Manifest.read(source, NAME)
    if manifest is None:
        raise ValueError(
            f"{source}: needs videos.json beside the arrays, as `avel store export --format zarr` writes it"
        )
    try:
        root = zarr.open_group(str(source), mode="r")
    except zarr.errors.GroupNotFoundError as error:
        raise ValueError(f"{source}: no Zarr group there") from error
    offsets = np.asarray(_array(root, "offsets", source)[...])
    counts = [video["rows"] for video in manifest.videos]
    if offsets.tolist() != [0, *np.cumsum(counts, dtype=np.int64).tolist()]:
        raise ValueError(f"{source}: offsets are not those of the {len(counts)} videos in the sidecar")
    arrays = {m: _array(root, m, source) for m in MODALITIES if m in root}
    shapes = {"visual": manifest.visual_shape, "audio": manifest.audio_shape}
    for modality in MODALITIES:
        wanted = shapes[modality]
        stored = arrays[modality].shape if modality in arrays else None
        if stored != (None if wanted is None else (int(offsets[-1]), *wanted)):
            raise ValueError(f"{source}: {modality} needs rows of shape {wanted}, the array has {stored}")
    reader = SlabReader(arrays)

    def rows_of(index: int) -> tuple[NDArray[np.floating] | None, NDArray[np.floating] | None]:
        rows = int(offsets[index]), int(offsets[index + 1])
        taken = {m: reader.rows(m, *rows) if m in arrays else None for m in MODALITIES}
        return taken["visual"], taken["audio"]

    yield manifest, rows_of


def _array(root: zarr.Group, name: str, where: Path) -> zarr.Array[Any]:
    array = root.get(name)
    if not isinstance(array, zarr.Array):
        raise ValueError(f"{where}: needs the array {name!r}")
    return array
