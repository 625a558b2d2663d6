"""The layout of the published AVE features: `visual_feature.h5` and `audio_feature.h5`, each with one data set
`avadataset` of (N, T, *shape), rows in the order of Annotations.txt.

With a data set, N is its items (a video that two items share is there twice) and T its number of segments; without, N
is the store's videos and T the largest number of rows. Rows that were not computed are NaN (`fill` says otherwise): the
published files have none, so whoever trains on the files alone must leave such videos out, and a NaN shows where that
was forgotten. Rows beyond T are cut off, as published code would. The sidecar says which rows are real.

Source: AVE-ECCV18 README and data loader; CMBS and PSP read the same layout.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from catalog.dataset import Dataset
from catalog.exchange.importing import SlabReader, Stated
from catalog.exchange.sidecar import SLAB_BYTES, Manifest, RowsOf, foreign_manifest, manifest_of
from catalog.store.format import MODALITIES
from catalog.store.reader import FeatureStore

NAME = "ave-h5"
_DATA = "avadataset"


def export(
    store: FeatureStore,
    recipe_name: str,
    out: Path,
    *,
    dataset: Dataset | None = None,
    fill: float = math.nan,
) -> dict[str, int]:
    """Writes the files and the sidecar into `out`, slab by slab.

    Returns:
        counts: rows of the files, their segments, videos of the data set that the store has not, videos cut to T.
    """
    entry = store.recipe(recipe_name)
    held = store.video_ids()
    row_ids = held if dataset is None else [item.video_id for item in dataset.items]
    manifest = manifest_of(store, recipe_name, NAME, video_ids=dict.fromkeys(row_ids))
    counts = {video["id"]: video["rows"] for video in manifest.videos}
    segments = dataset.num_segments if dataset is not None else None
    if segments is None:
        segments = max(counts.values(), default=0)
    cut = sum(count > segments for count in counts.values())
    manifest = dataclasses.replace(
        manifest,
        videos=[_cut(video, segments) for video in manifest.videos],
        layout={"rows": row_ids, "segments": segments},
    )
    out.mkdir(parents=True, exist_ok=True)
    known = set(held)
    for modality in MODALITIES:
        shape = entry.shape(modality)
        if shape is None:
            continue
        slab = max(1, SLAB_BYTES // max(1, segments * manifest.row_bytes))
        with h5py.File(out / f"{modality}_feature.h5", "w") as file:
            data = file.create_dataset(_DATA, (len(row_ids), segments, *shape), dtype=entry.recipe.storage)
            for begin in range(0, len(row_ids), slab):
                ids = row_ids[begin : begin + slab]
                rows = np.full((len(ids), segments, *shape), fill, dtype=entry.recipe.storage)
                present = [k for k, video_id in enumerate(ids) if video_id in known]
                ragged = store.read(recipe_name, modality, [ids[k] for k in present])
                for at, k in enumerate(present):
                    modal = ragged.video(at)
                    valid = modal.valid[:segments]
                    rows[k, : len(valid)][valid] = modal.values[:segments][valid]
                data[begin : begin + len(ids)] = rows
    manifest.write(out)
    return {
        "rows": len(row_ids),
        "segments": segments,
        "absent_videos": len(set(row_ids) - known),
        "cut_videos": cut,
    }


@contextlib.contextmanager
def opened(source: Path, stated: Stated) -> Iterator[tuple[Manifest, RowsOf]]:
    """The files' videos and their rows.

    Args:
        stated: for files without our sidecar; the rows are those of its data set's items, in order.

    Raises:
        ValueError: files missing or of another layout, or a needed argument is missing; says which.
    """
    files = {m: source / f"{m}_feature.h5" for m in MODALITIES if (source / f"{m}_feature.h5").is_file()}
    if not files:
        raise ValueError(f"{source}: needs visual_feature.h5, audio_feature.h5 or both; neither is there")
    with contextlib.ExitStack() as stack:
        data = {m: _data(stack.enter_context(h5py.File(path, "r")), path) for m, path in files.items()}
        manifest = Manifest.read(source, NAME)
        if manifest is None:
            manifest, row_ids = _foreign(source, data, stated)
        else:
            row_ids = _row_ids(manifest, source)
        if any(len(array) != len(row_ids) for array in data.values()):
            lengths = {modality: len(array) for modality, array in data.items()}
            raise ValueError(f"{source}: needs {len(row_ids)} rows, one an item; the files have {lengths}")
        first: dict[str, int] = {}
        for row, video_id in enumerate(row_ids):
            first.setdefault(video_id, row)
        reader, videos = SlabReader(data), manifest.videos

        def rows_of(index: int) -> tuple[NDArray[np.floating] | None, NDArray[np.floating] | None]:
            row, count = first[videos[index]["id"]], videos[index]["rows"]
            taken = {m: reader.rows(m, row, row + 1)[0, :count] if m in data else None for m in MODALITIES}
            return taken["visual"], taken["audio"]

        yield manifest, rows_of


def _cut(video: Mapping[str, Any], segments: int) -> Mapping[str, Any]:
    if video["rows"] <= segments:
        return video
    per_row = ("visual_valid", "audio_valid", "start_s", "end_s")
    return {**video, **{name: video[name][:segments] for name in per_row if name in video}, "rows": segments}


def _data(file: h5py.File, path: Path) -> Any:
    link = file.get(_DATA, getlink=True)
    data = file.get(_DATA) if isinstance(link, h5py.HardLink) else None
    # External and virtual data would read other files than the one that was given.
    if not isinstance(data, h5py.Dataset) or data.external is not None or data.is_virtual:
        raise ValueError(f"{path}: needs one plain data set {_DATA!r}, has {sorted(file)}")
    if data.ndim < 3 or data.dtype.kind != "f":
        raise ValueError(f"{path}: {_DATA} needs floats (videos, segments, ...), has {data.dtype} {data.shape}")
    return data


def _row_ids(manifest: Manifest, source: Path) -> list[str]:
    row_ids = manifest.layout.get("rows")
    if not isinstance(row_ids, list) or not all(isinstance(video_id, str) for video_id in row_ids):
        raise ValueError(f"{source}: the sidecar's layout needs the video id of each row")
    missing = {video["id"] for video in manifest.videos} - set(row_ids)
    if missing:
        raise ValueError(f"{source}: the sidecar names video {sorted(missing)[0]!r}, which has no row")
    return row_ids


def _foreign(source: Path, data: dict[str, Any], stated: Stated) -> tuple[Manifest, Sequence[str]]:
    if stated.dataset is None:
        raise ValueError(
            f"{source}: no sidecar says whose rows these are; give the data set (--dataset ave --root DIR)"
        )
    if stated.grid is None:
        raise ValueError(f"{source}: no sidecar says what one row spans; give --window and --hop (AVE: 1 and 1)")
    row_ids = [item.video_id for item in stated.dataset.items]
    segments = {array.shape[1] for array in data.values()}
    if len(segments) != 1:
        raise ValueError(f"{source}: visual and audio have different numbers of segments: {sorted(segments)}")
    count = segments.pop()
    shapes = {modality: tuple(data[modality].shape[2:]) if modality in data else None for modality in MODALITIES}
    manifest = foreign_manifest(
        NAME,
        name=stated.name,
        grid=stated.grid,
        visual_shape=shapes["visual"],
        audio_shape=shapes["audio"],
        storage="float16" if all(array.dtype == np.float16 for array in data.values()) else "float32",
        origin=str(source),
        rows=[(video_id, count, "visual" in data, "audio" in data) for video_id in dict.fromkeys(row_ids)],
    )
    return manifest, row_ids
