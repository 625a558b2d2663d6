"""What a store promises, checked value by value: `avel store verify`.

Complete (every wanted video has a row and every recipe an outcome for it), finite where valid and NaN where not, on the
recipe's grid, rows of a video contiguous and nobody else's, class texts readable and finite, and (with the media at
hand) the media still the same.
Features are read in slabs, so memory is bounded by the slab and the columns.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.errors import StoreError
from catalog.grid import GridRule, SegmentGrid
from catalog.media import local_path
from catalog.store.format import MODALITIES, RecipeEntry
from catalog.store.modal import Modal
from catalog.store.reader import FeatureStore
from catalog.store.rows import Outcomes, VideoTable
from catalog.store.storage import first_line
from catalog.video import REASONS

_SLAB_BYTES = 32 * 2**20
_HASH_BYTES = 2**20

# A duration is stored as a float, the grid was made of the exact one: at a border between two counts either is right.
_DURATION_TOLERANCE_S = Fraction(1, 1_000_000)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One broken promise.

    Attributes:
        where: "videos", "media" or the recipe's name.
        video_id: whose; None where it concerns the whole.
        what: needed and found.
    """

    where: str
    video_id: str | None
    what: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was looked at, and what is wrong.

    Attributes:
        videos: rows of `videos/`.
        rows: recipe to number of feature rows.
        unreferenced_rows: recipe to rows that no video points at: a retry leaves its old ones behind.
        hashed: media compared with their hash.
        problems: in the order found.
    """

    videos: int
    rows: dict[str, int]
    unreferenced_rows: dict[str, int]
    hashed: int
    problems: list[Problem] = field(default_factory=list)


def verify(
    store: FeatureStore,
    *,
    wanted: Iterable[str] | None = None,
    media: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Checks everything that is stored.

    Args:
        wanted: ids that must have a row, e.g. a data set's; None knows of no others than the stored ones.
        media: a folder with the media, which are read whole and compared with the stored hashes.
        progress: called with the name of each thing that was checked.
    """
    table = store.videos()
    problems = list(_check_videos(table, wanted))
    progress("videos")
    rows, unreferenced = {}, {}
    for name, entry in store.recipes().items():
        rows[name] = entry.rows
        unreferenced[name] = 0
        try:
            outcomes = store.outcomes(name)
            owned = _ownership(outcomes, entry.rows)
            unreferenced[name] = int((owned == 0).sum())
            problems += _check_outcomes(name, entry, table, outcomes, owned)
            problems += _check_times(name, entry, store, table, outcomes)
            problems += _check_values(name, entry, store, table, outcomes)
        except StoreError as error:
            problems.append(Problem(where=name, video_id=None, what=str(error)))
        problems += _check_vocabularies(name, store)
        progress(name)
    hashed = 0
    if media is not None:
        for i, video_id in enumerate(table.ids):
            if table.sha256[i]:
                problems += _check_medium(table, i, media)
                hashed += 1
                progress(video_id)
    return Verification(videos=len(table), rows=rows, unreferenced_rows=unreferenced, hashed=hashed, problems=problems)


def _check_videos(table: VideoTable, wanted: Iterable[str] | None) -> Iterator[Problem]:
    held = set(table.ids)
    for video_id in dict.fromkeys(wanted or ()):
        if video_id not in held:
            yield Problem(where="videos", video_id=video_id, what="wanted, and has no row; run `avel extract` again")
    for i, video_id in enumerate(table.ids):
        for what in _video_faults(table, i):
            yield Problem(where="videos", video_id=video_id, what=what)


def _video_faults(table: VideoTable, i: int) -> Iterator[str]:
    if table.status[i] == "pending":
        yield "wanted, and not done; run `avel extract` again"
    yield from _reason_faults(table.status[i], table.reason[i])
    if table.sha256[i] and not re.fullmatch(r"[0-9a-f]{64}", table.sha256[i]):
        yield f"sha256 needs 64 hexadecimal digits, has {table.sha256[i]!r}"
    if table.duration_s[i] < 0 or math.isinf(table.duration_s[i]):
        yield f"duration_s needs seconds or NaN, has {table.duration_s[i]}"
    try:
        media = json.loads(table.media[i])
    except ValueError:
        media = None
    if not isinstance(media, dict):
        yield "media needs a JSON object"


def _reason_faults(status: str, reason: str) -> Iterator[str]:
    if status in ("partial", "quarantined") and reason not in REASONS:
        yield f"{status} needs a known reason, has {reason!r}"
    if status == "extracted" and reason:
        yield f"extracted, and yet with the reason {reason!r}"


def _ownership(outcomes: Outcomes, rows: int) -> NDArray[np.int64]:
    """How many videos point at each row: 1 for all, 0 after a retry, never more."""
    starts = outcomes.row_start[outcomes.row_start >= 0]
    ends = starts + outcomes.row_count[outcomes.row_start >= 0]
    change = np.bincount(starts, minlength=rows + 1) - np.bincount(ends, minlength=rows + 1)
    return np.cumsum(change)[:rows]


def _check_outcomes(
    name: str, entry: RecipeEntry, table: VideoTable, outcomes: Outcomes, owned: NDArray[np.int64]
) -> Iterator[Problem]:
    for i, video_id in enumerate(table.ids):
        status, count = outcomes.status[i], int(outcomes.row_count[i])
        faults = list(_reason_faults(status, outcomes.reason[i]))
        if status == "pending":
            faults.append("not done under this recipe; run `avel extract` with it again")
        if (status in ("extracted", "partial")) != (count > 0):
            faults.append(f"{status} with {count} feature rows")
        if count and bool((owned[int(outcomes.row_start[i]) :][:count] > 1).any()):
            faults.append("its rows are another video's too")
        duration_s = float(table.duration_s[i])
        if count and math.isfinite(duration_s) and entry.recipe.encoder != "imported":
            counts = _counts(entry.recipe.grid, duration_s)
            if count not in counts:
                faults.append(f"{count} rows; its {duration_s:g} s make {' or '.join(map(str, sorted(counts)))}")
        for what in faults:
            yield Problem(where=name, video_id=video_id, what=what)


def _counts(rule: GridRule, duration_s: float) -> set[int]:
    exact = Fraction(duration_s)
    return {rule.grid(exact + apart).count for apart in (-_DURATION_TOLERANCE_S, 0, _DURATION_TOLERANCE_S)}


def _check_times(
    name: str, entry: RecipeEntry, store: FeatureStore, table: VideoTable, outcomes: Outcomes
) -> Iterator[Problem]:
    if not entry.rows:
        return
    starts, ends = store.row_column(name, "start_s"), store.row_column(name, "end_s")
    rule = entry.recipe.grid
    longest = int(outcomes.row_count.max(initial=1))
    grid = SegmentGrid(window_s=rule.window_s, hop_s=rule.hop_s, count=max(1, longest))
    true_starts, true_ends = grid.starts_s(), grid.ends_s()
    for i, video_id in enumerate(table.ids):
        begin, count = int(outcomes.row_start[i]), int(outcomes.row_count[i])
        if not count:
            continue
        off = (starts[begin : begin + count] != true_starts[:count]) | (
            ends[begin : begin + count] != true_ends[:count]
        )
        if off.any():
            k = int(np.flatnonzero(off)[0])
            yield Problem(
                where=name,
                video_id=video_id,
                what=f"segment {k} needs [{true_starts[k]:g}, {true_ends[k]:g}) s by the recipe's grid, "
                f"has [{starts[begin + k]:g}, {ends[begin + k]:g})",
            )


def _check_values(
    name: str, entry: RecipeEntry, store: FeatureStore, table: VideoTable, outcomes: Outcomes
) -> Iterator[Problem]:
    owners = _Owners(table, outcomes)
    for modality in MODALITIES:
        valid = store.row_column(name, f"{modality}_valid")
        shape = entry.shape(modality)
        if shape is None:
            for video_id, row in owners.of(np.flatnonzero(valid)):
                yield Problem(
                    where=name, video_id=video_id, what=f"row {row} is marked valid, and there is no {modality}"
                )
            continue
        array: Any = store.lazy(name, modality)
        row_bytes = max(1, array.dtype.itemsize * math.prod(shape))
        chunk = array.chunks[0]
        slab = max(chunk, _SLAB_BYTES // row_bytes // chunk * chunk)
        for begin in range(0, entry.rows, slab):
            try:
                values = np.asarray(array[begin : begin + slab])
            except Exception as error:  # noqa: BLE001 - whatever a codec or the storage raises, the rows are lost
                what = f"{modality} rows from {begin} on cannot be read: {first_line(error)}"
                yield Problem(where=name, video_id=None, what=what)
                continue
            infinite, unknown = Modal(values=values, valid=valid[begin : begin + len(values)]).faults()
            for video_id, row in owners.of(infinite + begin):
                yield Problem(where=name, video_id=video_id, what=f"{modality} row {row} is valid and not finite")
            for video_id, row in owners.of(unknown + begin):
                yield Problem(where=name, video_id=video_id, what=f"{modality} row {row} is not valid and not NaN")


def _check_vocabularies(name: str, store: FeatureStore) -> Iterator[Problem]:
    for vocabulary in store.vocabularies(name):
        try:
            labels = store.labels(name, vocabulary)
            finite = np.isfinite(labels.features).all(axis=1)
        except Exception as error:  # noqa: BLE001 - as above: whatever is raised, the texts are lost
            # A StoreError would send whoever reads it to this check: its cause says what is wrong.
            message = first_line(error.__cause__ or error)
            yield Problem(
                where=name,
                video_id=None,
                what=f"vocabulary {vocabulary} cannot be read: {message}; write it again, as with `avel labels`",
            )
            continue
        for k in np.flatnonzero(~finite).tolist():
            yield Problem(
                where=name,
                video_id=None,
                what=f"vocabulary {vocabulary}: the text of {labels.names[k]!r} is not finite; write it again",
            )


class _Owners:
    """Row number to video; one problem a video, at its first row, however many rows are wrong."""

    def __init__(self, table: VideoTable, outcomes: Outcomes) -> None:
        has = np.flatnonzero(outcomes.row_count)
        self._order = has[np.argsort(outcomes.row_start[has])]
        self._starts = outcomes.row_start[self._order]
        self._counts = outcomes.row_count[self._order]
        self._ids = table.ids

    def of(self, rows: NDArray[np.int64]) -> Iterator[tuple[str | None, int]]:
        seen: set[str | None] = set()
        for row in rows.tolist():
            k = int(np.searchsorted(self._starts, row, side="right")) - 1
            owned = k >= 0 and row < self._starts[k] + self._counts[k]
            video_id = self._ids[self._order[k]] if owned else None
            if video_id not in seen:
                seen.add(video_id)
                yield video_id, row


def _check_medium(table: VideoTable, i: int, media: Path) -> Iterator[Problem]:
    path = _medium(table, i, media)
    video_id = table.ids[i]
    if path is None:
        yield Problem(where="media", video_id=video_id, what=f"its medium is not in {media}")
        return
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(_HASH_BYTES):
                digest.update(block)
                size += len(block)
    except OSError as error:
        yield Problem(where="media", video_id=video_id, what=f"{path}: cannot be read: {error.strerror}")
        return
    if digest.hexdigest() != table.sha256[i]:
        yield Problem(
            where="media",
            video_id=video_id,
            what=f"{path} is another file than was extracted ({size} bytes, then {table.bytes[i]})",
        )


def _medium(table: VideoTable, i: int, media: Path) -> Path | None:
    """By the id as a path below the folder (a folder's media), by the uri's file name, or by the id and a suffix."""
    uri = table.uris[i]
    try:
        name = Path(local_path(uri) or uri.split("?")[0]).name
    except ValueError:
        name = ""
    root = media.resolve()
    for candidate in (table.ids[i], name):
        path = media / candidate
        # An id of "../x" in a store made by others is not looked at.
        if candidate and path.resolve().is_relative_to(root) and path.is_file():
            return path
    return None
