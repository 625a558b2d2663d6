"""The format of the feature store, normative, and the arrays that make it: laying them out and checking them.

A store is one Icechunk repository (spec 1) with one Zarr v3 hierarchy on the branch `main`. It holds one data set (or
folder) and any number of recipes. Whoever has zarr and icechunk reads it without this project.

    attributes of the root          avel_format: 1; created_by
    videos/                         one row a video, in the order of their first commit; V videos
        id            text          unique
        uri           text          where the medium lay
        duration_s    float64       NaN: unknown
        sha256        text          of the medium's bytes; "": unknown
        bytes         int64         of the medium; -1: unknown
        status        text          extracted | partial | quarantined | pending
        reason        text          a key of `catalog.video.REASONS`; "" where extracted
        detail        text          for a person
        attempts      int32
        media         text          JSON: streams, decoder path, clock, packet errors
        unit          int32         the work unit it was extracted in; units are cut by the plan
    features/<recipe>/              R feature rows; the rows of a video are contiguous, in time order
        attributes                  recipe (canonical JSON), fingerprint (SHA-256), visual_shape, audio_shape (of one
                                    row, or null), card (weights' hash, licence, citation, code version)
        visual        storage dtype (R, *visual_shape)      NaN: not computed; absent without a visual tower
        audio         storage dtype (R, *audio_shape)       likewise
        visual_valid, audio_valid   bool (R,)               False: the row is NaN throughout
        start_s, end_s              float64 (R,)            the segment [start_s, end_s)
        row_start     int64 (V,)    first row of the video; -1: it has none
        row_count     int32 (V,)
        status, reason, detail, attempts (V,)               as in videos/, for this recipe; "pending": not tried yet
    labels/<recipe>/<vocabulary>/   names text (K,), features float32 (K, D): class names in the recipe's text space;
                                    attribute prompt: what was encoded, {} standing for the name

Rules:
    - Done and data are one commit. What is not committed does not exist.
    - Rows are appended by one committer in the plan's order, whole units at a time: two runs give equal arrays.
      Nothing is written in place, except that a retried video's columns change and its new rows come at the end.
    - A recipe added later has its own rows and offsets; no existing value changes.
    - (V,) arrays of every group have one length, (R,) arrays of a recipe have one length.
    - Chunks are near 1 MB. Feature vectors are stored plain (they look like noise and do not compress), feature maps
      with Blosc-LZ4, columns with Zstandard; each chunk ends with its CRC-32C, which every reader checks.
    - No pickles anywhere. A reader checks before it believes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.dtype import VariableLengthUTF8

from catalog.errors import StoreError
from catalog.recipe import Recipe
from catalog.video import STATUSES

FORMAT = 1
CHUNK_BYTES = 2**20

TEXT = "text"

# Behind every chunk stands its CRC-32C: a bit that turned on a disk would be another feature, and nobody would know.
CHECKED = Crc32cCodec()

# (type, fill value)
Column = tuple[str, Any]

VIDEO_COLUMNS: dict[str, Column] = {
    "id": (TEXT, ""),
    "uri": (TEXT, ""),
    "duration_s": ("float64", math.nan),
    "sha256": (TEXT, ""),
    "bytes": ("int64", -1),
    "status": (TEXT, "pending"),
    "reason": (TEXT, ""),
    "detail": (TEXT, ""),
    "attempts": ("int32", 0),
    "media": (TEXT, "{}"),
    "unit": ("int32", -1),
}
OUTCOME_COLUMNS: dict[str, Column] = {
    "row_start": ("int64", -1),
    "row_count": ("int32", 0),
    "status": (TEXT, "pending"),
    "reason": (TEXT, ""),
    "detail": (TEXT, ""),
    "attempts": ("int32", 0),
}
ROW_COLUMNS: dict[str, Column] = {
    "start_s": ("float64", math.nan),
    "end_s": ("float64", math.nan),
    "visual_valid": ("bool", False),
    "audio_valid": ("bool", False),
}
MODALITIES = ("visual", "audio")


@dataclass(frozen=True, kw_only=True)
class ChunkSizes:
    """Sizes of the chunks that arrays are made with.

    A commit rewrites the last chunk of every column, a reader opens all of them: 4,096 videos are 7 chunks for 25,000
    videos and some 100 KB to rewrite.

    Attributes:
        feature_bytes: of a chunk of features; at least one row.
        videos, rows: entries of a chunk of the (V,) and the (R,) columns.
    """

    feature_bytes: int = CHUNK_BYTES
    videos: int = 4096
    rows: int = 16384


STANDARD_CHUNKS = ChunkSizes()


@dataclass(frozen=True, kw_only=True)
class RecipeEntry:
    """A recipe as a store holds it.

    Attributes:
        recipe: all its settings.
        fingerprint: of the recipe.
        visual_shape, audio_shape: of one feature, e.g. (1024,) or (7, 7, 512); None where there is no such array.
        card: where the values come from: weights' hash, licence, citation, code version (as the encoder said).
        rows: how many feature rows there are.
    """

    recipe: Recipe
    fingerprint: str
    visual_shape: tuple[int, ...] | None
    audio_shape: tuple[int, ...] | None
    card: Mapping[str, Any]
    rows: int

    def shape(self, modality: str) -> tuple[int, ...] | None:
        """The shape of one feature of `modality`."""
        return {"visual": self.visual_shape, "audio": self.audio_shape}[modality]


def make_root(root: zarr.Group, *, created_by: str, chunks: ChunkSizes = STANDARD_CHUNKS) -> None:
    """Lays out an empty store."""
    root.attrs.update({"avel_format": FORMAT, "created_by": created_by})
    videos = root.create_group("videos")
    for name, (kind, fill) in VIDEO_COLUMNS.items():
        _make_column(videos, name, kind, fill, 0, chunks.videos)
    root.create_group("features")
    root.create_group("labels")


def make_recipe(
    features: zarr.Group,
    recipe: Recipe,
    *,
    visual_shape: tuple[int, ...] | None,
    audio_shape: tuple[int, ...] | None,
    card: Mapping[str, Any],
    num_videos: int,
    chunks: ChunkSizes = STANDARD_CHUNKS,
) -> None:
    """Lays out `features/<recipe>/` with no rows, and an outcome "pending" for each video there is."""
    group = features.create_group(recipe.name)
    group.attrs.update(
        {
            "recipe": recipe.to_json(),
            "fingerprint": recipe.fingerprint(),
            "visual_shape": None if visual_shape is None else list(visual_shape),
            "audio_shape": None if audio_shape is None else list(audio_shape),
            "card": dict(card),
        }
    )
    for modality, shape in (("visual", visual_shape), ("audio", audio_shape)):
        if shape is None:
            continue
        dtype = np.dtype(recipe.storage)
        row_bytes = dtype.itemsize * math.prod(shape)
        # Vectors look like noise and do not compress: a codec only costs. Maps after a ReLU are mostly zeros.
        packed = [BloscCodec(cname="lz4", clevel=1, shuffle="shuffle", typesize=dtype.itemsize)]
        group.create_array(
            modality,
            shape=(0, *shape),
            chunks=(max(1, chunks.feature_bytes // row_bytes), *shape),
            dtype=dtype,
            fill_value=math.nan,
            compressors=[*(packed if len(shape) > 1 else []), CHECKED],
        )
    for name, (kind, fill) in ROW_COLUMNS.items():
        _make_column(group, name, kind, fill, 0, chunks.rows)
    for name, (kind, fill) in OUTCOME_COLUMNS.items():
        _make_column(group, name, kind, fill, num_videos, chunks.videos)


def array_of(group: zarr.Group, name: str, *, needed_by: str) -> zarr.Array[Any]:
    """The array `name`; StoreError where it is missing or a group."""
    member = group.get(name)
    if not isinstance(member, zarr.Array):
        raise StoreError(f"{needed_by}: the store is damaged or not an avel store: no array {group.path}/{name}")
    return member


def group_of(root: zarr.Group, path: str, *, needed_by: str) -> zarr.Group:
    """The group at `path`; StoreError where it is missing or an array."""
    member = root.get(path)
    if not isinstance(member, zarr.Group):
        raise StoreError(f"{needed_by}: the store is damaged or not an avel store: no group {path}")
    return member


def check_root(root: zarr.Group, uri: str) -> int:
    """Format number and the columns of `videos/`; returns V, the number of videos.

    Raises:
        StoreError: not an avel store, a newer format, or columns that do not fit together.
    """
    stored = root.attrs.get("avel_format")
    if stored is None:
        raise StoreError(f"{uri}: an Icechunk repository, but not an avel store (no avel_format)")
    if not isinstance(stored, int) or isinstance(stored, bool) or stored < 1:
        raise StoreError(f"{uri}: damaged: avel_format must be a whole number, got {stored!r}")
    if stored > FORMAT:
        raise StoreError(f"{uri}: format {stored}, this avel reads up to {FORMAT}; install a newer avel to read it")
    return _check_columns(group_of(root, "videos", needed_by=uri), VIDEO_COLUMNS, None, uri)


def check_recipe(group: zarr.Group, name: str, *, num_videos: int, uri: str) -> RecipeEntry:
    """One `features/<recipe>/`: attributes and arrays agree with each other and with `videos/`.

    Raises:
        StoreError: they do not.
    """
    where = f"{uri}: features/{name}"
    attrs = group.attrs.asdict()
    try:
        recipe = Recipe.from_json(_text(attrs.get("recipe")))
        shapes = {modality: read_shape(attrs.get(f"{modality}_shape")) for modality in MODALITIES}
        card = attrs.get("card")
        if not isinstance(card, dict):
            raise ValueError(f"card must be an object, got {card!r}")
    except ValueError as error:
        raise StoreError(f"{where}: damaged attributes: {error}") from error
    if recipe.name != name or recipe.fingerprint() != attrs.get("fingerprint"):
        raise StoreError(f"{where}: damaged: the recipe's name or fingerprint is not that of its settings")
    rows = _check_columns(group, ROW_COLUMNS, None, uri)
    _check_columns(group, OUTCOME_COLUMNS, num_videos, uri)
    for modality, shape in shapes.items():
        if shape is None:
            if modality in group:
                raise StoreError(f"{where}: damaged: an array {modality} that the attributes do not speak of")
            continue
        array = array_of(group, modality, needed_by=uri)
        if array.shape != (rows, *shape) or array.dtype != np.dtype(recipe.storage):
            raise StoreError(
                f"{where}/{modality}: damaged: needs {recipe.storage} {(rows, *shape)}, has {array.dtype} {array.shape}"
            )
    return RecipeEntry(
        recipe=recipe,
        fingerprint=recipe.fingerprint(),
        visual_shape=shapes["visual"],
        audio_shape=shapes["audio"],
        card=card,
        rows=rows,
    )


def check_outcomes(
    row_start: NDArray[np.integer], row_count: NDArray[np.integer], status: list[str], *, rows: int, where: str
) -> None:
    """Offsets within the rows, and known statuses: a store made by others must not make us read elsewhere."""
    has = row_start >= 0
    if bool((row_count < 0).any()) or bool((row_start < -1).any()) or bool((row_count[~has] != 0).any()):
        raise StoreError(f"{where}: damaged: row offsets or counts that cannot be")
    if bool((row_start[has] + row_count[has] > rows).any()):
        raise StoreError(f"{where}: damaged: a video's rows reach beyond the {rows} rows there are")
    unexpected = set(status) - set(STATUSES)
    if unexpected:
        raise StoreError(f"{where}: damaged: unknown status {sorted(unexpected)[0]!r}")


def _make_column(group: zarr.Group, name: str, kind: str, fill: Any, length: int, chunk: int) -> None:
    dtype: Any = VariableLengthUTF8() if kind == TEXT else np.dtype(kind)
    group.create_array(
        name,
        shape=(length,),
        chunks=(chunk,),
        dtype=dtype,
        fill_value=fill,
        compressors=[ZstdCodec(level=1), CHECKED],
    )


def _check_columns(group: zarr.Group, columns: Mapping[str, Column], length: int | None, uri: str) -> int:
    for name, (kind, _) in columns.items():
        array = array_of(group, name, needed_by=uri)
        where = f"{uri}: {group.path}/{name}"
        right = array.dtype.kind == "T" if kind == TEXT else array.dtype == np.dtype(kind)
        if not right or array.ndim != 1:
            raise StoreError(f"{where}: damaged: needs one dimension of {kind}, has {array.dtype} {array.shape}")
        length = array.shape[0] if length is None else length
        if array.shape[0] != length:
            raise StoreError(f"{where}: damaged: needs {length} entries as its neighbours, has {array.shape[0]}")
    assert length is not None
    return length


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"recipe must be JSON text, got {json.dumps(value)[:80]}")
    return value


def read_shape(value: object) -> tuple[int, ...] | None:
    """A feature's shape from its JSON form; ValueError where it is none."""
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(type(n) is int and n > 0 for n in value):
        raise ValueError(f"a feature's shape must be a list of numbers above 0, got {value!r}")
    return tuple(value)
