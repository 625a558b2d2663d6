"""The writing side of a store: one committer, rows appended in the order given, done and data in one commit."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from catalog.errors import RecipeMismatch, StoreBusy, StoreError
from catalog.recipe import NAME, Recipe
from catalog.store.format import (
    CHECKED,
    MODALITIES,
    OUTCOME_COLUMNS,
    STANDARD_CHUNKS,
    TEXT,
    VIDEO_COLUMNS,
    ChunkSizes,
    RecipeEntry,
    array_of,
    group_of,
    make_recipe,
)
from catalog.store.reader import FeatureStore
from catalog.store.rows import RecipeRows, VideoResult, media_json
from catalog.store.storage import StorageErrors, first_line, icechunk, writer_lock

# Results wait in memory until a commit, or until their features reach this size: then they go to the uncommitted
# session. Writing few large pieces spares rewriting the chunk that two pieces share.
HELD_BYTES = 64 * 2**20


def open_writer(
    store: FeatureStore,
    *,
    wait_s: float = 0.0,
    held_bytes: int = HELD_BYTES,
    chunks: ChunkSizes = STANDARD_CHUNKS,
) -> StoreWriter:
    """The store's one writer, a context manager. It takes the lock on entering.

    Args:
        wait_s: how long to wait for another writer to finish.
        held_bytes: size of appended features at which they go to the uncommitted session.
        chunks: of recipes that are new to the store.

    Raises:
        StoreBusy: (on entering) another writer holds the store; names it.
        StoreError: the store was opened at a fixed snapshot.
    """
    if store.at is not None:
        raise StoreError(f"{store.uri}: opened at {store.at}, which is past; open it without `at` to write")
    return StoreWriter(store, wait_s=wait_s, held_bytes=held_bytes, chunks=chunks)


class StoreWriter:
    """Appends results to a store; from `open_writer`, inside a `with`.

    What is not committed when the block is left (or the process dies) is lost, and nothing else.
    """

    def __init__(self, store: FeatureStore, *, wait_s: float, held_bytes: int, chunks: ChunkSizes) -> None:
        self._store = store
        self._wait_s = wait_s
        self._max_held_bytes = held_bytes
        self._chunks = chunks
        self._stack = contextlib.ExitStack()
        self._session: icechunk.Session | None = None

    def __enter__(self) -> StoreWriter:
        with contextlib.ExitStack() as stack:
            stack.enter_context(writer_lock(self._store.place, wait_s=self._wait_s))
            # The store may have moved on while we waited.
            self._store.refresh()
            self._read_state()
            self._begin()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._session = None
        self._stack.close()

    def ensure_recipe(
        self,
        recipe: Recipe,
        *,
        visual_shape: tuple[int, ...] | None,
        audio_shape: tuple[int, ...] | None,
        card: Mapping[str, Any],
    ) -> None:
        """Makes the recipe's arrays, or finds them made with the same settings (the card of the first time stays).

        Raises:
            RecipeMismatch: the store has other settings under this name; names each differing one.
            ValueError: neither modality has a shape.
        """
        root = self._root()
        if visual_shape is None and audio_shape is None:
            raise ValueError(f"recipe {recipe.name}: needs a visual shape, an audio shape or both")
        entry = self._recipes.get(recipe.name)
        if entry is None:
            with self._writing():
                make_recipe(
                    group_of(root, "features", needed_by=self._store.uri),
                    recipe,
                    visual_shape=visual_shape,
                    audio_shape=audio_shape,
                    card=card,
                    num_videos=self._num_stored,
                    chunks=self._chunks,
                )
            self._recipes[recipe.name] = RecipeEntry(
                recipe=recipe,
                fingerprint=recipe.fingerprint(),
                visual_shape=visual_shape,
                audio_shape=audio_shape,
                card=card,
                rows=0,
            )
            self._rows[recipe.name] = 0
            self._tried[recipe.name] = set()
            return
        differences = entry.recipe.differences(recipe)
        for modality, shape in (("visual", visual_shape), ("audio", audio_shape)):
            if entry.shape(modality) != shape:
                differences.append((f"{modality}_shape", entry.shape(modality), shape))
        if differences:
            settings = "; ".join(f"{path}: stored {stored}, wanted {wanted}" for path, stored, wanted in differences)
            raise RecipeMismatch(
                f"{self._store.uri} holds recipe {recipe.name!r} with other settings ({settings}); "
                "store yours under another name with --as NAME, or extract into another store",
                differences,
            )

    def append(self, results: Sequence[VideoResult], recipe_names: Sequence[str], *, replace: bool = False) -> None:
        """Adds results, uncommitted. Their order is the order of rows.

        A video that the store has not gets its row in `videos/`. A known one keeps that row and gets the recipes'
        rows (backfill), unless `replace` is set (a retry): then the row changes.
        Each result counts for every one of `recipe_names`; without rows it must not be "extracted" or "partial".

        Raises:
            ValueError: an unknown recipe, wrong shapes, rows missing for a recipe, a recipe that the video has already
                (without `replace`), or a video twice in `results`.
        """
        self._root()
        for name in recipe_names:
            if name not in self._recipes:
                raise ValueError(f"{self._store.uri}: no recipe {name!r} yet; call ensure_recipe first")
        ids = [result.video.id for result in results]
        if len(set(ids)) != len(ids):
            twice = next(video_id for i, video_id in enumerate(ids) if video_id in ids[:i])
            raise ValueError(f"{twice}: duplicate video id")
        for result in results:
            self._check(result, recipe_names, replace=replace)
        for result in results:
            self._take(result, recipe_names, replace=replace)
        if self._held_bytes >= self._max_held_bytes:
            self._flush()

    def commit(self, message: str) -> str:
        """Makes everything appended visible at once; the snapshot id. With nothing new there is no commit.

        Raises:
            StoreBusy: on S3, another writer committed since this one began.
            StoreError: the storage refuses: it is full, read-only, or takes other credentials.
        """
        self._root()
        assert self._session is not None
        self._flush()
        if self._session.has_uncommitted_changes:
            try:
                with self._writing():
                    self._head = str(self._session.commit(message))
            except icechunk.ConflictError as error:
                raise StoreBusy(
                    f"{self._store.uri}: another writer committed meanwhile ({first_line(error)}); "
                    "nothing of this one's last part was stored: run again when the other has finished"
                ) from error
            self._store.invalidate()
            self._begin()
        return self._head

    def write_labels(
        self,
        recipe_name: str,
        vocabulary: str,
        names: Sequence[str],
        features_KD: NDArray[np.floating],
        *,
        prompt: str = "{}",
    ) -> None:
        """Stores class names and their text features, uncommitted; replaces those of the same vocabulary.

        Args:
            prompt: what was encoded, `{}` standing for the name.

        Raises:
            ValueError: no such recipe, or names and features do not fit together.
        """
        root = self._root()
        if recipe_name not in self._recipes:
            raise ValueError(f"{self._store.uri}: no recipe {recipe_name!r}")
        if features_KD.ndim != 2 or len(features_KD) != len(names) or not NAME.fullmatch(vocabulary):
            raise ValueError(
                f"labels {vocabulary!r}: needs a plain name and one feature a class, "
                f"got {len(names)} names and features {features_KD.shape}"
            )
        texts = np.array(list(names), dtype=np.dtypes.StringDType())
        with self._writing():
            group = root.require_group("labels").require_group(recipe_name).create_group(vocabulary, overwrite=True)
            group.attrs["prompt"] = prompt
            group.create_array("names", data=texts, compressors=[CHECKED])
            values_KD = np.ascontiguousarray(features_KD, dtype=np.float32)
            group.create_array("features", data=values_KD, compressors=[CHECKED])

    def _writing(self) -> StorageErrors:
        return StorageErrors(self._store.uri, writing=True)

    def _begin(self) -> None:
        self._session = self._store.repository.writable_session("main")
        self._group = zarr.open_group(self._session.store, mode="a")
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def _root(self) -> zarr.Group:
        if self._session is None:
            raise StoreError(
                f"{self._store.uri}: the writer is closed; use it inside `with open_writer(store) as writer:`"
            )
        return self._group

    def _read_state(self) -> None:
        """Reads what the store holds, once: while the lock is held only this writer changes it."""
        self._head = self._store.snapshot_id
        self._recipes = self._store.recipes()
        self._rows = {name: entry.rows for name, entry in self._recipes.items()}
        videos = self._store.videos()
        self._position = {video_id: i for i, video_id in enumerate(videos.ids)}
        self._num_stored = len(videos)
        self._tried = {
            name: {i for i, status in enumerate(self._store.outcomes(name).status) if status != "pending"}
            for name in self._recipes
        }
        self._clear()

    def _clear(self) -> None:
        self._held_bytes = 0
        self._new_videos: list[VideoResult] = []
        self._changed_videos: dict[int, VideoResult] = {}
        self._new_rows: dict[str, list[RecipeRows]] = {}
        self._outcomes: dict[str, dict[int, tuple[Any, ...]]] = {}

    def _check(self, result: VideoResult, recipe_names: Sequence[str], *, replace: bool) -> None:
        """Checks a result in full, before anything of it is taken."""
        where = f"{result.video.id}: "
        position = self._position.get(result.video.id)
        unexpected = set(result.features) - set(recipe_names)
        if unexpected:
            raise ValueError(f"{where}features of {sorted(unexpected)[0]!r}, which is not among the recipes given")
        for name in recipe_names:
            if position is not None and position in self._tried[name] and not replace:
                raise ValueError(f"{where}the store has this video's outcome under {name}; a retry needs replace=True")
            rows = result.features.get(name)
            status = result.outcome_of(name).status
            if not rows and status in ("extracted", "partial"):
                raise ValueError(f"{where}{status} without rows for recipe {name}")
            if rows is None:
                continue
            entry = self._recipes[name]
            for modality, modal in rows.modalities():
                shape = entry.shape(modality)
                if shape is None:
                    raise ValueError(f"{where}{name} has no {modality} features, got {modal.values.shape}")
                try:
                    modal.check(len(rows), shape, storage=entry.recipe.storage)
                except ValueError as error:
                    raise ValueError(
                        f"{where}{name} {modality}: {error}; rows that are not finite are to be NaN and not valid, "
                        "values beyond 65,504 need --set storage=float32"
                    ) from error

    def _take(self, result: VideoResult, recipe_names: Sequence[str], *, replace: bool) -> None:
        position = self._position.get(result.video.id)
        if position is None:
            position = len(self._position)
            self._position[result.video.id] = position
            self._new_videos.append(result)
        elif replace:
            if position >= self._num_stored:
                self._new_videos[position - self._num_stored] = result
            else:
                self._changed_videos[position] = result
        for name in recipe_names:
            rows = result.features.get(name)
            outcome = result.outcome_of(name)
            start, count = -1, 0
            if rows:
                start, count = self._rows[name], len(rows)
                self._rows[name] += count
                self._new_rows.setdefault(name, []).append(rows)
                self._held_bytes += rows.nbytes
            columns = (start, count, outcome.status, outcome.reason, outcome.detail, result.attempts)
            self._outcomes.setdefault(name, {})[position] = columns
            if outcome.status != "pending":
                self._tried[name].add(position)

    def _flush(self) -> None:
        """Writes the results held to the uncommitted session."""
        with self._writing():
            self._write_held()

    def _write_held(self) -> None:
        """Each array once, however many videos."""
        if self._new_videos:
            columns = _video_columns(self._new_videos)
            for name in VIDEO_COLUMNS:
                _append(self._array(f"videos/{name}"), columns[name])
            self._num_stored += len(self._new_videos)
            for name in self._recipes:
                for column in OUTCOME_COLUMNS:
                    self._array(f"features/{name}/{column}").resize((self._num_stored,))
        if self._changed_videos:
            positions = sorted(self._changed_videos)
            columns = _video_columns([self._changed_videos[i] for i in positions])
            for name in VIDEO_COLUMNS:
                if name != "id":
                    _put(self._array(f"videos/{name}"), positions, columns[name])
        for name, pieces in self._new_rows.items():
            self._flush_rows(name, pieces)
        for name, outcomes in self._outcomes.items():
            positions = sorted(outcomes)
            for k, (column, (kind, _)) in enumerate(OUTCOME_COLUMNS.items()):
                values = _column([outcomes[i][k] for i in positions], kind)
                _put(self._array(f"features/{name}/{column}"), positions, values)
        self._clear()

    def _flush_rows(self, name: str, pieces: list[RecipeRows]) -> None:
        entry = self._recipes[name]
        for column in ("start_s", "end_s"):
            _append(
                self._array(f"features/{name}/{column}"), np.concatenate([getattr(piece, column) for piece in pieces])
            )
        for modality in MODALITIES:
            valid = np.concatenate([piece.valid(modality) for piece in pieces])
            _append(self._array(f"features/{name}/{modality}_valid"), valid)
            shape = entry.shape(modality)
            if shape is None:
                continue
            array = self._array(f"features/{name}/{modality}")
            parts = [piece.modal(modality) for piece in pieces]
            if all(part is None for part in parts):
                array.resize((array.shape[0] + len(valid), *shape))
                continue
            # Where one modality is missing in a video of two, its rows are there and NaN.
            filled = [
                np.full((len(piece), *shape), np.nan, dtype=array.dtype) if part is None else part.values
                for piece, part in zip(pieces, parts, strict=True)
            ]
            # One long video alone: its rows are as large as all else in memory, so they are not copied.
            joined = filled[0] if len(filled) == 1 else np.concatenate(filled, dtype=array.dtype, casting="same_kind")
            _append(array, joined)

    def _array(self, path: str) -> zarr.Array[Any]:
        if path not in self._arrays:
            # Whether a chunk holds nothing is known from the validity flags; comparing every value with NaN first,
            # as Zarr does by default, takes three times as long as writing.
            array = array_of(self._root(), path, needed_by=self._store.uri)
            self._arrays[path] = array.with_config({"write_empty_chunks": True})
        return self._arrays[path]


def _video_columns(results: Sequence[VideoResult]) -> dict[str, NDArray[Any]]:
    values: dict[str, list[Any]] = {
        "id": [result.video.id for result in results],
        "uri": [result.video.uri for result in results],
        "duration_s": [result.duration_s for result in results],
        "sha256": [result.sha256 for result in results],
        "bytes": [result.bytes for result in results],
        "status": [result.outcome.status for result in results],
        "reason": [result.outcome.reason for result in results],
        "detail": [result.outcome.detail for result in results],
        "attempts": [result.attempts for result in results],
        "media": [media_json(result.media) for result in results],
        "unit": [result.unit for result in results],
    }
    return {name: _column(values[name], kind) for name, (kind, _) in VIDEO_COLUMNS.items()}


def _column(values: Sequence[Any], kind: str) -> NDArray[Any]:
    if kind != TEXT:
        return np.array(values, dtype=kind)
    # A decoder's message may quote a file name that is not UTF-8.
    texts = [value.encode("utf-8", "backslashreplace").decode() for value in values]
    return np.array(texts, dtype=np.dtypes.StringDType())


def _append(array: zarr.Array[Any], values: NDArray[Any]) -> None:
    start = array.shape[0]
    array.resize((start + len(values), *array.shape[1:]))
    array[start:] = values


def _put(array: zarr.Array[Any], positions: Sequence[int], values: NDArray[Any]) -> None:
    """Values at ascending positions, one write a run of neighbours."""
    where = np.asarray(positions)
    bounds = [0, *(np.flatnonzero(np.diff(where) != 1) + 1).tolist(), len(where)]
    for begin, end in itertools.pairwise(bounds):
        array[int(where[begin]) : int(where[begin]) + end - begin] = values[begin:end]
