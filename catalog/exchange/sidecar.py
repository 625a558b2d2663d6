"""The sidecar of exported features: what foreign formats cannot say, so that an import gives the same store again.

`videos.json` beside the exported files holds the recipe and, for each video, its row of `videos/`, its outcome, how
many feature rows it has and which are valid. Files of others have no sidecar: they come in under a recipe whose grid
the user states, and whose encoder is "imported".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, NonNegativeInt, ValidationError

from catalog.fields import Text, needed
from catalog.grid import GridRule, SegmentGrid
from catalog.plugins import Plugins
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.store.format import MODALITIES, read_shape
from catalog.store.modal import Modal
from catalog.store.reader import FeatureStore
from catalog.store.rows import RecipeRows, VideoResult
from catalog.video import Outcome, Status, Video

NAME = "videos.json"
FORMAT = 1
FORMATS = Plugins(package="catalog.exchange.formats", noun="exchange format")

# Exports and imports hold at most about this much of features at once.
SLAB_BYTES = 32 * 2**20


class RowsOf(Protocol):
    """Where an import finds the features of the manifest's video `index`: visual and audio, (rows, *shape) each."""

    def __call__(self, index: int) -> tuple[NDArray[np.floating] | None, NDArray[np.floating] | None]: ...


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the sidecar holds.

    Attributes:
        exchange: name of the format ("ave-h5").
        recipe, card, visual_shape, audio_shape: as in the store.
        videos: one object a video: id, uri, duration_s, sha256, bytes, media, unit; status, reason and detail of the
            video; `outcome` of the recipe; rows; visual_valid, audio_valid as texts of 0 and 1; start_s and end_s where
            they are not the recipe's grid.
        layout: what the format itself needs to find its files again.
        foreign: the files are not ours; a row that is not finite throughout is taken as not valid.
    """

    exchange: str
    recipe: Recipe
    card: Mapping[str, Any]
    visual_shape: tuple[int, ...] | None
    audio_shape: tuple[int, ...] | None
    videos: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    foreign: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of features, both modalities."""
        shapes = (self.visual_shape, self.audio_shape)
        values = sum(math.prod(shape) for shape in shapes if shape is not None)
        return max(1, values * np.dtype(self.recipe.storage).itemsize)

    def write(self, folder: Path) -> None:
        """Writes `folder/videos.json`."""
        value = {
            "avel_exchange": FORMAT,
            "format": self.exchange,
            "recipe": json.loads(self.recipe.to_json()),
            "fingerprint": self.recipe.fingerprint(),
            "card": self.card,
            "visual_shape": self.visual_shape,
            "audio_shape": self.audio_shape,
            "layout": self.layout,
            "videos": self.videos,
        }
        (folder / NAME).write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, exchange: str) -> Manifest | None:
        """The sidecar of `folder`; None where there is none.

        Raises:
            ValueError: damaged, of another format or newer.
        """
        path = folder / NAME
        if not path.exists():
            return None
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not JSON: {error}") from error
        if not isinstance(value, dict) or value.get("avel_exchange") != FORMAT:
            raise ValueError(f"{path}: needs avel_exchange {FORMAT}; a newer avel may have written it")
        if value.get("format") != exchange:
            raise ValueError(f"{path}: features in the format {value.get('format')!r}, read as {exchange!r}")
        try:
            recipe = Recipe.from_json(json.dumps(value.get("recipe")))
            _check(value)
            shapes = [read_shape(value.get(f"{modality}_shape")) for modality in MODALITIES]
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path}: damaged: {error}") from error
        return cls(
            exchange=exchange,
            recipe=recipe,
            card=value["card"],
            visual_shape=shapes[0],
            audio_shape=shapes[1],
            videos=value["videos"],
            layout=value["layout"],
        )

    def results(self, rows_of: RowsOf) -> Iterator[VideoResult]:
        """The videos as results to append, features fetched one video at a time.

        Raises:
            ValueError: a video's features have another number of rows or another shape than the manifest says.
        """
        for index, entry in enumerate(self.videos):
            # Without rows there is the recipe's own outcome still.
            visual, audio = rows_of(index) if entry["rows"] else (None, None)
            yield VideoResult(
                video=Video(id=entry["id"], uri=entry["uri"]),
                unit=entry["unit"],
                outcome=_outcome(entry),
                attempts=entry["outcome"]["attempts"],
                duration_s=math.nan if entry["duration_s"] is None else entry["duration_s"],
                sha256=entry["sha256"],
                bytes=entry["bytes"],
                media=entry["media"],
                features={self.recipe.name: self._rows(entry, visual, audio)},
            )

    def _rows(
        self, entry: Mapping[str, Any], visual: NDArray[np.floating] | None, audio: NDArray[np.floating] | None
    ) -> RecipeRows:
        count = entry["rows"]
        modals: dict[str, Modal | None] = {}
        for modality, values in (("visual", visual), ("audio", audio)):
            valid = np.array([c == "1" for c in entry[f"{modality}_valid"]], dtype=bool)
            if not valid.any():
                modals[modality] = None
                continue
            if values is None:
                raise ValueError(f"{entry['id']}: {modality} needs {int(valid.sum())} valid rows, the files have none")
            if len(values) != count:
                raise ValueError(f"{entry['id']}: {modality} needs {count} rows, the file has {len(values)}")
            if self.foreign:
                valid &= np.isfinite(values).reshape(count, -1).all(axis=1)
            # The exported file may hold zeros there.
            values = Modal(values=values, valid=valid).filled(math.nan)
            modals[modality] = Modal(values=values, valid=valid)
        if "start_s" in entry:
            starts, ends = np.array(entry["start_s"], dtype=np.float64), np.array(entry["end_s"], dtype=np.float64)
        elif count:
            grid = _grid(self.recipe.grid, count)
            starts, ends = grid.starts_s(), grid.ends_s()
        else:
            starts = ends = np.empty(0)
        return RecipeRows(**modals, start_s=starts, end_s=ends, outcome=_outcome(entry["outcome"]))


def formats() -> dict[str, ModuleType]:
    """The exchange formats by name ("ave-h5"): one file of `catalog/exchange/formats` each."""
    return {module.NAME: module for module in map(FORMATS.load, FORMATS.names())}


def manifest_of(
    store: FeatureStore,
    recipe_name: str,
    exchange: str,
    *,
    video_ids: Iterable[str] | None = None,
    layout: Mapping[str, Any] | None = None,
) -> Manifest:
    """Describes a recipe's features in `store`; `video_ids` None is all, in store order; unknown ids are left out."""
    entry, table, outcomes = store.recipe(recipe_name), store.videos(), store.outcomes(recipe_name)
    columns = {
        name: store.row_column(recipe_name, name) for name in ("start_s", "end_s", "visual_valid", "audio_valid")
    }
    position = {video_id: i for i, video_id in enumerate(table.ids)}
    chosen = range(len(table)) if video_ids is None else [position[i] for i in video_ids if i in position]
    videos = []
    for i in chosen:
        count = int(outcomes.row_count[i])
        rows = slice(int(outcomes.row_start[i]), int(outcomes.row_start[i]) + count) if count else slice(0, 0)
        video: dict[str, Any] = {
            "id": table.ids[i],
            "uri": table.uris[i],
            "duration_s": None if math.isnan(table.duration_s[i]) else float(table.duration_s[i]),
            "sha256": table.sha256[i],
            "bytes": int(table.bytes[i]),
            "media": json.loads(table.media[i]),
            "unit": int(table.unit[i]),
            "status": table.status[i],
            "reason": table.reason[i],
            "detail": table.detail[i],
            "outcome": {
                "status": outcomes.status[i],
                "reason": outcomes.reason[i],
                "detail": outcomes.detail[i],
                "attempts": int(outcomes.attempts[i]),
            },
            "rows": count,
        }
        for modality in MODALITIES:
            video[f"{modality}_valid"] = "".join("01"[int(v)] for v in columns[f"{modality}_valid"][rows])
        if count:
            grid = _grid(entry.recipe.grid, count)
            starts, ends = columns["start_s"][rows], columns["end_s"][rows]
            if not (np.array_equal(starts, grid.starts_s()) and np.array_equal(ends, grid.ends_s())):
                video |= {"start_s": starts.tolist(), "end_s": ends.tolist()}
        videos.append(video)
    return Manifest(
        exchange=exchange,
        recipe=entry.recipe,
        card=entry.card,
        visual_shape=entry.visual_shape,
        audio_shape=entry.audio_shape,
        videos=videos,
        layout=layout or {},
    )


def foreign_manifest(
    exchange: str,
    *,
    name: str,
    grid: GridRule,
    visual_shape: tuple[int, ...] | None,
    audio_shape: tuple[int, ...] | None,
    storage: str,
    origin: str,
    rows: Iterable[tuple[str, int, bool, bool]],
) -> Manifest:
    """A manifest for features of others: all that is known is their grid, by the user's word.

    Args:
        origin: where they came from, for the card.
        rows: (video id, rows, has visual, has audio).
    """
    # How the frames and samples were taken is not known; the settings say so, and keep the recipe from being taken
    # for one that can be run.
    recipe = Recipe(
        name=name,
        encoder="imported",
        grid=grid,
        video=None if visual_shape is None else VideoSampling(frames_per_segment=1, height_px=1, width_px=1),
        audio=None if audio_shape is None else AudioSampling(rate_hz=16000),
        storage="float16" if storage == "float16" else "float32",
        settings={"format": exchange, "sampling": "unknown"},
    )
    videos = []
    for video_id, count, has_visual, has_audio in rows:
        reason = "" if has_visual and has_audio else "no_video" if not has_visual else "no_audio"
        whole = (has_visual or visual_shape is None) and (has_audio or audio_shape is None)
        outcome = {"status": "extracted" if whole else "partial", "reason": "" if whole else reason, "detail": ""}
        videos.append(
            {
                "id": video_id,
                "uri": f"imported:{video_id}",
                "duration_s": None,
                "sha256": "",
                "bytes": -1,
                "media": {},
                "unit": -1,
                **outcome,
                "outcome": outcome | {"attempts": 0},
                "rows": count,
                "visual_valid": "01"[has_visual] * count,
                "audio_valid": "01"[has_audio] * count,
            }
        )
    card = {"imported_from": origin, "note": "features made elsewhere; frame sampling and weights are not known"}
    return Manifest(
        exchange=exchange,
        recipe=recipe,
        card=card,
        visual_shape=visual_shape,
        audio_shape=audio_shape,
        videos=videos,
        foreign=True,
    )


def _outcome(entry: Mapping[str, Any]) -> Outcome:
    return Outcome(status=entry["status"], reason=entry["reason"], detail=entry["detail"])


def _grid(rule: GridRule, count: int) -> SegmentGrid:
    return SegmentGrid(window_s=rule.window_s, hop_s=rule.hop_s, count=count)


class _Outcome(BaseModel, strict=True):
    status: Status
    reason: Text
    detail: Text
    attempts: int


class _Entry(BaseModel, strict=True):
    """A video's fields that must be there."""

    id: Text
    uri: Text
    duration_s: float | None
    sha256: Text
    bytes: int
    media: dict[Text, Any]
    unit: int
    status: Text
    reason: Text
    detail: Text
    outcome: _Outcome
    rows: NonNegativeInt
    visual_valid: Text
    audio_valid: Text


class _Json(BaseModel, strict=True):
    """The fields of `videos.json` beside the recipe and the shapes."""

    card: dict[Text, Any]
    layout: dict[Text, Any]
    videos: list[_Entry]


def _check(value: Mapping[str, Any]) -> None:
    try:
        _Json.model_validate(value)
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_url=False)[0]["loc"]))
        raise ValueError(f"{where} must be {needed(error)}") from None
    for entry in value["videos"]:
        if any(len(entry[f"{modality}_valid"]) != entry["rows"] for modality in MODALITIES):
            raise ValueError(f"video {entry['id']!r}: validity needs one digit a row")
