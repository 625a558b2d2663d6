"""What changed between two snapshots of a store, in videos and recipes rather than in chunks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from catalog.store.reader import FeatureStore
from catalog.store.rows import VideoTable


@dataclass(frozen=True, kw_only=True)
class RecipeDiff:
    """One recipe's change.

    Attributes:
        rows_before, rows_after: feature rows; 0 where the snapshot has not the recipe.
        done: videos that got their first outcome.
        retried: videos whose outcome or rows changed.
    """

    rows_before: int
    rows_after: int
    done: tuple[str, ...]
    retried: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StoreDiff:
    """What `after` has that `before` has not; video ids in the order of `after`.

    Attributes:
        removed: videos of `before` alone: nothing is ever removed, so these are two different histories.
        changed: videos whose row in `videos/` differs.
        recipes: only those that changed.
    """

    before: str
    after: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    recipes: dict[str, RecipeDiff]


def diff(before: FeatureStore, after: FeatureStore) -> StoreDiff:
    """Compares two opened snapshots; no features are read."""
    old_rows, new_rows = _rows(before.videos()), _rows(after.videos())
    held_before, held_after = before.recipes(), after.recipes()
    recipes = {}
    for name in sorted(held_before.keys() | held_after.keys()):
        old, new = _outcomes(before, name), _outcomes(after, name)
        tried = {video_id for video_id, row in old.items() if row[0] != "pending"}
        change = RecipeDiff(
            rows_before=held_before[name].rows if name in held_before else 0,
            rows_after=held_after[name].rows if name in held_after else 0,
            done=tuple(v for v, row in new.items() if row[0] != "pending" and v not in tried),
            retried=tuple(v for v, row in new.items() if v in tried and row != old[v]),
        )
        same_rows = name in held_before and name in held_after and change.rows_before == change.rows_after
        if change.done or change.retried or not same_rows:
            recipes[name] = change
    return StoreDiff(
        before=before.snapshot_id,
        after=after.snapshot_id,
        added=tuple(video_id for video_id in new_rows if video_id not in old_rows),
        removed=tuple(video_id for video_id in old_rows if video_id not in new_rows),
        changed=tuple(v for v, row in new_rows.items() if v in old_rows and old_rows[v] != row),
        recipes=recipes,
    )


def _rows(table: VideoTable) -> dict[str, tuple[Any, ...]]:
    columns = (
        table.uris,
        [None if math.isnan(seconds) else seconds for seconds in table.duration_s.tolist()],
        table.sha256,
        table.bytes.tolist(),
        table.status,
        table.reason,
        table.detail,
        table.attempts.tolist(),
        table.media,
        table.unit.tolist(),
    )
    return dict(zip(table.ids, zip(*columns, strict=True), strict=True))


def _outcomes(store: FeatureStore, name: str) -> dict[str, tuple[Any, ...]]:
    if name not in store.recipes():
        return {}
    outcomes = store.outcomes(name)
    columns = (
        outcomes.status,
        outcomes.reason,
        outcomes.detail,
        outcomes.row_start.tolist(),
        outcomes.row_count.tolist(),
        outcomes.attempts.tolist(),
    )
    return dict(zip(store.video_ids(), zip(*columns, strict=True), strict=True))
