"""A split of a data set out of a feature store: rows read once, in large slices; padded batches gathered by index.

An item whose video has no features (absent from the store, quarantined, not tried yet) stays in the split with no
real segment, and so do segments that the truth has and the features do not: a test set never shrinks.

N items, B items of a batch, T segments, R rows, D feature width.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from catalog.dataset import Dataset, Item
from catalog.errors import RecipeMismatch
from catalog.recipe import Recipe
from catalog.store.modal import Modal
from catalog.store.reader import FeatureStore
from heads.data.targets import labelled_segments, segments_until

# Rows are read in slices of about this size: while they are brought together, memory holds them once.
_BLOCK_BYTES = 256 * 2**20

# A modality's rows of a split that are larger lie in a file (in $TMPDIR), which is mapped.
MAPPED_BYTES = 2 * 2**30


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Padded features of B items.

    Attributes:
        visual, audio: float32 (B, T, *shape), 0 where not valid; None where the recipe has no such tower.
        mask_BT: bool, True where the segment is real.
        visual_valid_BT, audio_valid_BT: bool, True where the feature was computed; False outside the mask.
    """

    visual: NDArray[np.float32] | None
    audio: NDArray[np.float32] | None
    mask_BT: NDArray[np.bool_]
    visual_valid_BT: NDArray[np.bool_]
    audio_valid_BT: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Features of one split, read as a whole; a video that several items show is held once.

    Attributes:
        name: "train", "val" or "test".
        items: all items of the split, in the data set's order.
        recipe: what the features were made with.
        visual, audio: (R, *shape) in the stored dtype, in memory or mapped, 0 where not valid (or not finite); None
            where the recipe has no such tower.
        rows_NT: int64 into the rows; -1 where there is none.
        counted_NT: bool, the segments that a metric counts: all `num_segments` where the data set fixes them,
            else what the features have or, if longer, what the events reach into.
        absent: item id to why it has no features.
    """

    name: str
    items: tuple[Item, ...]
    recipe: Recipe
    visual: Modal | None
    audio: Modal | None
    rows_NT: NDArray[np.int64]
    counted_NT: NDArray[np.bool_]
    absent: Mapping[str, str]

    @property
    def num_segments(self) -> int:
        """T."""
        return int(self.rows_NT.shape[1])

    @property
    def mask_NT(self) -> NDArray[np.bool_]:
        """bool, True where the segment is real."""
        return self.rows_NT >= 0

    @property
    def present(self) -> NDArray[np.int64]:
        """The numbers of the items that have at least one real segment."""
        return np.flatnonzero(self.mask_NT.any(axis=1))

    def batch(self, items: NDArray[np.integer] | slice) -> Batch:
        """The padded features of some items, T segments each."""
        rows_BT = self.rows_NT[items]
        mask_BT = rows_BT >= 0
        visual, visual_valid_BT = _gather(self.visual, rows_BT, mask_BT)
        audio, audio_valid_BT = _gather(self.audio, rows_BT, mask_BT)
        return Batch(
            visual=visual,
            audio=audio,
            mask_BT=mask_BT,
            visual_valid_BT=visual_valid_BT,
            audio_valid_BT=audio_valid_BT,
        )


def find_recipe(store: FeatureStore, wanted: Recipe) -> str:
    """The name under which the store holds features of exactly this recipe.

    Raises:
        RecipeMismatch: it holds none; names both fingerprints and each setting that differs.
    """
    held = {name: entry.recipe for name, entry in store.recipes().items()}
    for name in sorted(held, key=lambda name: (name != wanted.name, name)):
        if held[name].fingerprint() == wanted.fingerprint():
            return name
    if not held:
        raise RecipeMismatch(f"needs features of recipe {wanted.name}, the store holds none; run `avel extract`", [])
    near = wanted.name if wanted.name in held else min(held, key=lambda name: len(wanted.differences(held[name])))
    differences = wanted.differences(held[near])
    # Between two encoders the other differences do not matter.
    shown = [row for row in differences if row[0] == "encoder"] or differences
    differing = "; ".join(f"{path}: needs {here}, store has {there}" for path, here, there in shown)
    raise RecipeMismatch(
        f"needs features of recipe {wanted.name} ({wanted.fingerprint()[:12]}), "
        f"the store's {near} ({held[near].fingerprint()[:12]}) differs: {differing}; "
        "extract with the wanted recipe (`avel extract ... --as NAME`) or train a head on the store's",
        [(path, there, here) for path, here, there in differences],
    )


def read_split(
    store: FeatureStore,
    recipe_name: str,
    dataset: Dataset,
    split: str,
    *,
    num_segments: int | None = None,
    pool_places: bool = False,
) -> Split:
    """Every item of a split, with the features of its video.

    Args:
        num_segments: T. None takes the recipe's grid over the data set's seconds (10 segments of 1 s for AVE) or, if
            the data set does not fix them, the longest item. Longer videos are cut to T.
        pool_places: average feature maps over their places, to (rows, D).

    Raises:
        ValueError: the store has no such recipe, or the data set no item in this split.
    """
    entries = store.recipes()
    if recipe_name not in entries:
        raise ValueError(f"the store has no recipe {recipe_name!r}; it has {', '.join(sorted(entries)) or 'none'}")
    recipe = entries[recipe_name].recipe
    items = dataset.split(split)
    if not items:
        raise ValueError(f"data set {dataset.name} has no item in split {split!r}")

    ids, first_row, rows_a_video, absent_videos = _placed(store, recipe_name, items)
    fixed = num_segments
    if fixed is None and dataset.num_segments is not None:
        fixed = recipe.grid.grid(Fraction(dataset.num_segments)).count
    counted_N = np.array([_counted(item, dataset, recipe, rows_a_video, fixed) for item in items])
    longest = int(counted_N.max())

    try:
        rows_NT = np.full((len(items), longest), -1, dtype=np.int64)
    except MemoryError as error:
        raise ValueError(
            f"{split}: {len(items)} items of up to {longest:,} segments do not fit into memory; the longest is "
            f"{items[int(counted_N.argmax())].id}: are its times right?"
        ) from error
    for row_T, item in zip(rows_NT, items, strict=True):
        if item.video_id in first_row:
            count = min(rows_a_video[item.video_id], longest)
            row_T[:count] = np.arange(first_row[item.video_id], first_row[item.video_id] + count)
    return Split(
        name=split,
        items=items,
        recipe=recipe,
        visual=_rows(store, recipe_name, "visual", ids, entries[recipe_name].visual_shape, pool_places),
        audio=_rows(store, recipe_name, "audio", ids, entries[recipe_name].audio_shape, pool_places),
        rows_NT=rows_NT,
        counted_NT=np.arange(longest)[None, :] < counted_N[:, None],
        absent={item.id: absent_videos[item.video_id] for item in items if item.video_id in absent_videos},
    )


def _placed(
    store: FeatureStore, recipe_name: str, items: Sequence[Item]
) -> tuple[list[str], dict[str, int], dict[str, int], dict[str, str]]:
    """Videos to read, in order of first mention; first row and rows of each once read so; why the others are absent."""
    outcomes = store.outcomes(recipe_name)
    place = {video_id: i for i, video_id in enumerate(store.videos().ids)}
    ids: list[str] = []
    first_row: dict[str, int] = {}
    rows_a_video: dict[str, int] = {}
    absent: dict[str, str] = {}
    total = 0
    for item in items:
        video_id = item.video_id
        if video_id in first_row or video_id in absent:
            continue
        i = place.get(video_id)
        if i is None:
            absent[video_id] = "not in the store"
        elif outcomes.row_start[i] < 0 or outcomes.row_count[i] == 0:
            why = (str(outcomes.status[i]), str(outcomes.reason[i]))
            absent[video_id] = ": ".join(word for word in why if word) or "no features"
        else:
            ids.append(video_id)
            first_row[video_id], rows_a_video[video_id] = total, int(outcomes.row_count[i])
            total += rows_a_video[video_id]
    if place and not place.keys() & {item.video_id for item in items}:
        absent = dict.fromkeys(absent, _other_ids(list(absent), list(place)))
    return ids, first_row, rows_a_video, absent


def _other_ids(wanted: Sequence[str], held: Sequence[str]) -> str:
    """Why none of a data set's videos is in a store: it is of others, or was made of a folder, under file names."""
    named = set(held)
    stems = {os.path.splitext(os.path.basename(name))[0] for name in named}
    alike = sum(video_id in stems for video_id in wanted)
    told = f"not in the store: looked for {_some(wanted)}; it has {_some(held)}"
    if not alike:
        return f"{told}; give the store of this data set, or extract it: `avel extract --dataset NAME --root DIR`"
    return (
        f"{told}: files of those names were extracted as a folder, under names of their own; extract them as the data "
        "set's: `avel extract --dataset NAME --root DIR --media FOLDER`"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:2])) + (f" and {len(names) - 2:,} more" if len(names) > 2 else "")


def _counted(item: Item, dataset: Dataset, recipe: Recipe, rows_a_video: Mapping[str, int], fixed: int | None) -> int:
    if fixed is not None:
        return fixed
    rows = rows_a_video.get(item.video_id, 0)
    if not rows:
        return labelled_segments(item, dataset, recipe.grid)
    # Truth beyond the last feature (a truncated video) still counts.
    return max(rows, *(segments_until(event.end_s, recipe.grid) for event in item.events), 1)


def _rows(
    store: FeatureStore,
    recipe_name: str,
    modality: Literal["visual", "audio"],
    ids: Sequence[str],
    shape: Sequence[int] | None,
    pool_places: bool,
) -> Modal | None:
    if shape is None:
        return None
    pooled = pool_places and len(shape) > 1
    kept = tuple(shape[-1:] if pooled else shape)
    counts = dict(zip(store.videos().ids, store.outcomes(recipe_name).row_count.tolist(), strict=True))
    total = sum(counts[video_id] for video_id in ids)
    values: NDArray[np.floating] | None = None
    valid_R = np.zeros(total, dtype=bool)
    done = 0
    # A slice of videos at a time; one video is far below the bound for any preset.
    at_once = max(1, int(_BLOCK_BYTES * len(ids) / max(1, 4 * total * int(np.prod(shape)))))
    for first in range(0, len(ids), at_once):
        ragged = store.read(recipe_name, modality, ids[first : first + at_once])
        part = _clean(ragged.values, ragged.valid)
        found = part.values
        if pooled:
            found = found.mean(axis=tuple(range(1, found.ndim - 1)), dtype=np.float32)
        if len(found) == total:
            return Modal(values=found, valid=part.valid)
        if values is None:
            values = _allocate_rows((total, *kept), found.dtype)
        values[done : done + len(found)], valid_R[done : done + len(found)] = found, part.valid
        done += len(found)
    return Modal(values=np.zeros((0, *kept), dtype=np.float32) if values is None else values, valid=valid_R)


def _allocate_rows(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[np.floating]:
    """Memory for rows: beyond `MAPPED_BYTES` that of a file without a name, which the system may put aside."""
    size = int(np.prod(shape)) * dtype.itemsize
    if size <= MAPPED_BYTES:
        return np.empty(shape, dtype=dtype)
    with tempfile.TemporaryFile(prefix="avel-rows-") as file:
        os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error now, and no SIGBUS later
        mapped: NDArray[np.floating] = np.memmap(file, dtype=dtype, mode="r+", shape=shape)
    return mapped


def _clean(values: NDArray[np.floating], valid_R: NDArray[np.bool_]) -> Modal:
    # The flag is the store's word; a foreign store may flag a row that holds NaN or infinity.
    finite_R = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    valid_R = valid_R & finite_R
    if not valid_R.all():
        if not values.flags.writeable:
            values = values.copy()
        values[~valid_R] = 0
    return Modal(values=values, valid=valid_R)


def _gather(
    rows: Modal | None, rows_BT: NDArray[np.int64], mask_BT: NDArray[np.bool_]
) -> tuple[NDArray[np.float32] | None, NDArray[np.bool_]]:
    if rows is None:
        return None, np.zeros(mask_BT.shape, dtype=bool)
    if not len(rows.values):
        return np.zeros((*rows_BT.shape, *rows.values.shape[1:]), dtype=np.float32), np.zeros(mask_BT.shape, dtype=bool)
    values = rows.values[rows_BT].astype(np.float32)
    values[~mask_BT] = 0
    return values, rows.valid[rows_BT] & mask_BT
