"""What goes into a store and comes out of it: a video's result with its rows, and the columns of all videos."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.store.modal import Features
from catalog.video import Outcome, Video


@dataclass(frozen=True, kw_only=True)
class VideoTable:
    """`videos/` as columns, V entries each, in store order. -1, NaN and "" where unknown."""

    ids: list[str]
    uris: list[str]
    duration_s: NDArray[np.float64]
    sha256: list[str]
    bytes: NDArray[np.int64]
    status: list[str]
    reason: list[str]
    detail: list[str]
    attempts: NDArray[np.int32]
    media: list[str]
    unit: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What became of each video under one recipe: V entries each, aligned with `VideoTable`."""

    row_start: NDArray[np.int64]
    row_count: NDArray[np.int32]
    status: list[str]
    reason: list[str]
    detail: list[str]
    attempts: NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class RecipeRows(Features):
    """One video's features under one recipe.

    Attributes:
        start_s, end_s: float64 (rows,).
        outcome: where this recipe fared otherwise than the video as a whole (audio only is "partial", yet all that an
            audio recipe wants); None: as the video.
    """

    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    outcome: Outcome | None = None

    def __post_init__(self) -> None:
        if len(self.end_s) != len(self):
            raise ValueError(f"feature rows: end_s needs {len(self)} entries as start_s has, got {len(self.end_s)}")
        for name, modal in self.modalities():
            try:
                modal.check(len(self))
            except ValueError as error:
                raise ValueError(f"feature rows: {name}: {error}") from error

    def __len__(self) -> int:
        return len(self.start_s)

    def valid(self, modality: str) -> NDArray[np.bool_]:
        """bool (rows,); False throughout where there is nothing of `modality`."""
        modal = self.modal(modality)
        return np.zeros(len(self), np.bool_) if modal is None else modal.valid


@dataclass(frozen=True, kw_only=True)
class VideoResult:
    """One video's outcome for a set of recipes.

    Attributes:
        unit: number of the work unit.
        outcome: of the video; never "pending".
        duration_s: measured; NaN where unknown.
        sha256, bytes: of the medium; "" and -1 where unknown.
        media: streams, decoder path and so on, able to be JSON.
        features: recipe name to rows; empty when quarantined.
    """

    video: Video
    unit: int
    outcome: Outcome
    attempts: int = 1
    duration_s: float = float("nan")
    sha256: str = ""
    bytes: int = -1
    media: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, RecipeRows] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outcome.status == "pending":
            raise ValueError(f"{self.video.id}: a result is of a video that was tried, got status 'pending'")

    def outcome_of(self, recipe_name: str) -> Outcome:
        """The video's under one recipe."""
        rows = self.features.get(recipe_name)
        return self.outcome if rows is None or rows.outcome is None else rows.outcome


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Class names and their features in a recipe's text space: names (K,), features float32 (K, D).

    `prompt` is the text that was encoded, `{}` standing for the name.
    """

    names: tuple[str, ...]
    features: NDArray[np.float32]
    prompt: str = "{}"


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One entry of a store's history."""

    snapshot_id: str
    written_at: datetime
    message: str


def media_json(media: Mapping[str, Any]) -> str:
    """The `media` column's text: sorted keys, ASCII, so that equal facts have equal spelling."""
    return json.dumps(media, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
