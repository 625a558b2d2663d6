"""The reading side of a feature store; `format.py` describes what is stored."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zarr

from catalog.errors import StoreError
from catalog.recipe import Recipe
from catalog.store.format import (
    MODALITIES,
    STANDARD_CHUNKS,
    VIDEO_COLUMNS,
    ChunkSizes,
    RecipeEntry,
    array_of,
    check_outcomes,
    check_recipe,
    check_root,
    group_of,
    make_root,
)
from catalog.store.ragged import Ragged, gather_rows
from catalog.store.rows import Commit, Labels, Outcomes, VideoTable
from catalog.store.storage import Place, StorageErrors, icechunk, incomplete, place
from catalog.video import STATUSES

Table = TypeVar("Table")


def exists(uri: str | os.PathLike[str]) -> bool:
    """Whether an avel store lies at `uri` (newer ones and those with a wrong layout count too).

    Raises:
        StoreError: a part of one lies there.
    """
    where = place(uri)
    if where.path is not None:
        if where.path.is_dir() and (missing := where.missing_part()):
            raise StoreError(f"{where.uri}: {incomplete(missing)}")
        if not (where.path / "refs").is_dir():
            return False
    with StorageErrors(where.uri):
        storage = where.storage()
        if not icechunk.Repository.exists(storage):
            return False
        session = icechunk.Repository.open(storage).readonly_session("main")
        try:
            return "avel_format" in zarr.open_group(session.store, mode="r").attrs
        except zarr.errors.GroupNotFoundError:
            return False


def create_store(uri: str | os.PathLike[str], *, chunks: ChunkSizes = STANDARD_CHUNKS) -> FeatureStore:
    """Lays out an empty store at `uri` and opens it.

    Args:
        chunks: of the columns of `videos/`.

    Raises:
        StoreError: a store or anything else lies there, or the place cannot be written to.
    """
    where = place(uri)
    if exists(uri):
        raise StoreError(f"{where.uri}: already exists; open it, or give another path")
    where.check_free()
    if where.path is None:
        _lay_out(where, chunks)
        return open_store(uri)
    # Laid out beside its place and moved there in one step: a creation that is killed leaves no half of a store, and
    # of two at once the second fails.
    try:
        where.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{where.path.name}.", dir=where.path.parent) as folder:
            draft = Path(folder) / "store"
            _lay_out(Place(uri=where.uri, path=draft), chunks)
            draft.rename(where.path)
    except OSError as error:
        raise StoreError(f"{where.uri}: no store can be made there: {error.strerror}") from error
    return open_store(uri)


def _lay_out(where: Place, chunks: ChunkSizes) -> None:
    with StorageErrors(where.uri, writing=True):
        # On S3 a creation that was killed half-way leaves a repository without our layout: it is completed.
        session = icechunk.Repository.open_or_create(where.storage()).writable_session("main")
        make_root(zarr.open_group(session.store, mode="a"), created_by="avel", chunks=chunks)
        session.commit("Empty store")


def open_store(uri: str | os.PathLike[str], *, at: str | None = None) -> FeatureStore:
    """Opens a store for reading; it is checked first.

    Args:
        at: tag or snapshot id; None is the newest commit.

    Raises:
        StoreError: no store there, damaged, of a newer format, or no such tag or snapshot.
    """
    where = place(uri)
    where.check_readable()
    with StorageErrors(where.uri):
        storage = where.storage()
        if not icechunk.Repository.exists(storage):
            raise StoreError(f"{where.uri}: no store there; `avel extract SOURCE --recipe R --store STORE` makes one")
        repository = icechunk.Repository.open(storage)
    return FeatureStore(where, repository, at=at)


def recipes_of(uri: str | os.PathLike[str]) -> dict[str, Recipe]:
    """The recipes that a store holds, by name; none where there is no store."""
    return {name: entry.recipe for name, entry in open_store(uri).recipes().items()} if exists(uri) else {}


@dataclass(frozen=True, kw_only=True)
class _View:
    """A snapshot; `tables` holds what was read of it that has an entry a video, since everybody asks for it again."""

    session: icechunk.Session
    root: zarr.Group
    num_videos: int
    recipes: dict[str, RecipeEntry]
    tables: dict[str, Any] = field(default_factory=dict)


class FeatureStore:
    """A store at one snapshot. Opened without `at` it follows the commits of its own writers, nobody else's."""

    def __init__(self, where: Place, repository: icechunk.Repository, *, at: str | None) -> None:
        self.place = where
        self.at = at
        self.repository = repository
        self.refresh()

    @property
    def uri(self) -> str:
        """The place as it was given."""
        return self.place.uri

    @property
    def snapshot_id(self) -> str:
        """The snapshot that is read."""
        return str(self._current().session.snapshot_id)

    def refresh(self) -> None:
        """Moves to the newest commit (of a pinned store: to the same snapshot), checking it."""
        with StorageErrors(self.uri):
            session = self._session_at(self.at)
            try:
                root = zarr.open_group(session.store, mode="r")
            except zarr.errors.GroupNotFoundError as error:
                raise StoreError(f"{self.uri}: an Icechunk repository that is damaged or not an avel store") from error
            num_videos = check_root(root, self.uri)
            features = group_of(root, "features", needed_by=self.uri)
            recipes = {
                name: check_recipe(group, name, num_videos=num_videos, uri=self.uri)
                for name, group in sorted(features.groups())
            }
        self._view: _View | None = _View(session=session, root=root, num_videos=num_videos, recipes=recipes)

    def invalidate(self) -> None:
        """Forgets the snapshot: the newest commit is opened when next something is read."""
        self._view = None

    def _current(self) -> _View:
        if self._view is None:
            self.refresh()
        assert self._view is not None
        return self._view

    def __len__(self) -> int:
        return self._current().num_videos

    def videos(self) -> VideoTable:
        """All columns of `videos/`; read once a snapshot, not to be written to."""
        return self._once("videos", self._read_videos)

    def _read_videos(self) -> VideoTable:
        columns = {name: self._column(f"videos/{name}") for name in VIDEO_COLUMNS}
        table = VideoTable(ids=columns.pop("id"), uris=columns.pop("uri"), **columns)
        unexpected = set(table.status) - set(STATUSES)
        if unexpected or len(set(table.ids)) != len(table.ids):
            raise StoreError(f"{self.uri}: videos/: damaged: an id twice or an unknown status {sorted(unexpected)}")
        return table

    def video_ids(self) -> list[str]:
        """The column `videos/id` alone, in store order."""
        return self._once("videos/id", lambda: self._column("videos/id"))

    def recipes(self) -> dict[str, RecipeEntry]:
        """The recipes held, by name."""
        return dict(self._current().recipes)

    def recipe(self, name: str) -> RecipeEntry:
        """The recipe called `name`.

        Raises:
            ValueError: the store has none of this name; the message lists those it has.
        """
        recipes = self._current().recipes
        if name not in recipes:
            held = ", ".join(recipes) or "none yet"
            raise ValueError(f"{self.uri}: no recipe {name!r}; it has: {held}")
        return recipes[name]

    def outcomes(self, recipe_name: str) -> Outcomes:
        """The outcome of each video under this recipe; read once a snapshot, not to be written to."""
        return self._once(f"features/{recipe_name}", lambda: self._read_outcomes(recipe_name))

    def _read_outcomes(self, recipe_name: str) -> Outcomes:
        entry = self.recipe(recipe_name)
        where = f"features/{recipe_name}"
        columns = {
            name: self._column(f"{where}/{name}")
            for name in ("row_start", "row_count", "status", "reason", "detail", "attempts")
        }
        outcomes = Outcomes(**columns)
        check_outcomes(
            outcomes.row_start, outcomes.row_count, outcomes.status, rows=entry.rows, where=f"{self.uri}: {where}"
        )
        return outcomes

    def lazy(self, recipe_name: str, modality: str) -> zarr.Array[Any]:
        """The array (rows, *shape) itself, unread; for dask and for slices.

        Raises:
            ValueError: no such recipe, or it has no such modality.
        """
        entry = self.recipe(recipe_name)
        if modality not in MODALITIES:
            raise ValueError(f"a modality is visual or audio, got {modality!r}")
        if entry.shape(modality) is None:
            raise ValueError(f"{self.uri}: recipe {recipe_name} has no {modality} features")
        return array_of(self._current().root, f"features/{recipe_name}/{modality}", needed_by=self.uri)

    def row_column(self, recipe_name: str, name: str) -> Any:
        """A whole (R,) column of a recipe: start_s, end_s, visual_valid or audio_valid."""
        self.recipe(recipe_name)
        return self._column(f"features/{recipe_name}/{name}")

    def read(self, recipe_name: str, modality: str, video_ids: Iterable[str] | None = None) -> Ragged:
        """Features of some videos, in few large reads: ask for a whole split at once, not video by video.

        Args:
            modality: "visual" or "audio".
            video_ids: which, in which order (an id may come twice); None is all, in store order.
                A video without rows (quarantined, pending) is there with none.

        Raises:
            ValueError: no such recipe, modality or video.
        """
        array = self.lazy(recipe_name, modality)
        outcomes = self.outcomes(recipe_name)
        held = self.video_ids()
        if video_ids is None:
            wanted = tuple(held)
            index = np.arange(len(held))
        else:
            wanted = tuple(video_ids)
            position = {video_id: i for i, video_id in enumerate(held)}
            unknown = [video_id for video_id in wanted if video_id not in position]
            if unknown:
                raise ValueError(f"{self.uri}: no video {unknown[0]!r} ({len(unknown)} such ids of {len(wanted)})")
            index = np.array([position[video_id] for video_id in wanted], dtype=np.int64)
        starts, counts = outcomes.row_start[index], outcomes.row_count[index].astype(np.int64)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
        with StorageErrors(self.uri):
            columns = [
                gather_rows(
                    array_of(self._current().root, f"features/{recipe_name}/{name}", needed_by=self.uri), starts, counts
                )
                for name in (f"{modality}_valid", "start_s", "end_s")
            ]
            values = gather_rows(array, starts, counts)
        valid, start_s, end_s = columns
        return Ragged(video_ids=wanted, values=values, valid=valid, start_s=start_s, end_s=end_s, offsets=offsets)

    def vocabularies(self, recipe_name: str) -> list[str]:
        """Names of the vocabularies whose label features are stored for this recipe."""
        group = self._current().root.get(f"labels/{recipe_name}")
        return sorted(group.group_keys()) if isinstance(group, zarr.Group) else []

    def labels(self, recipe_name: str, vocabulary: str) -> Labels:
        """Class names and their text features.

        Raises:
            ValueError: no such vocabulary for this recipe.
        """
        if vocabulary not in self.vocabularies(recipe_name):
            held = ", ".join(self.vocabularies(recipe_name)) or "none"
            raise ValueError(f"{self.uri}: recipe {recipe_name} has no labels {vocabulary!r}; it has: {held}")
        where = f"labels/{recipe_name}/{vocabulary}"
        names, features = self._column(f"{where}/names"), self._column(f"{where}/features")
        if features.ndim != 2 or len(names) != len(features):
            raise StoreError(f"{self.uri}: {where}: damaged: {len(names)} names, features {features.shape}")
        prompt = self._current().root[where].attrs.get("prompt", "{}")
        return Labels(names=tuple(names), features=features, prompt=str(prompt))

    def log(self) -> list[Commit]:
        """The history of what is read, newest first."""
        with StorageErrors(self.uri):
            return [
                Commit(snapshot_id=entry.id, written_at=entry.written_at, message=entry.message)
                for entry in self.repository.ancestry(snapshot_id=self.snapshot_id)
            ]

    def stored_bytes(self) -> int:
        """Bytes of all chunks in the repository, those of the past included."""
        with StorageErrors(self.uri):
            return int(self.repository.chunk_storage_stats().native_bytes)

    def tags(self) -> dict[str, str]:
        """Tag to snapshot id."""
        with StorageErrors(self.uri):
            return {name: self.repository.lookup_tag(name) for name in sorted(self.repository.list_tags())}

    def tag(self, name: str) -> str:
        """Names the snapshot that is read, for ever: tags neither move nor come back once deleted.

        Raises:
            ValueError: the name is taken, or no name at all.
        """
        if not name or "/" in name or name != name.strip():
            raise ValueError(f"a tag needs a name without slashes or blanks around it, got {name!r}")
        tags = self.tags()
        if name in tags:
            raise ValueError(f"{self.uri}: the tag {name!r} stands at {tags[name]} already, and tags never move")
        with StorageErrors(self.uri, writing=True):
            self.repository.create_tag(name, self.snapshot_id)
        return self.snapshot_id

    def _session_at(self, at: str | None) -> icechunk.Session:
        if at is None:
            return self.repository.readonly_session("main")
        tags = self.tags()
        if at in tags:
            return self.repository.readonly_session(tag=at)
        try:
            return self.repository.readonly_session(snapshot_id=at)
        except icechunk.IcechunkError as error:
            known = ", ".join(tags) or "none"
            raise StoreError(f"{self.uri}: no tag or snapshot {at!r}; its tags: {known}") from error

    def _once(self, name: str, read: Callable[[], Table]) -> Table:
        tables = self._current().tables
        if name not in tables:
            tables[name] = read()
        table: Table = tables[name]
        return table

    def _column(self, path: str) -> Any:
        with StorageErrors(self.uri):
            values = array_of(self._current().root, path, needed_by=self.uri)[...]
        assert isinstance(values, np.ndarray)
        # Text comes as numpy's variable-length strings; plain ones are what callers compare and print.
        return values.tolist() if values.dtype.kind == "T" else values
