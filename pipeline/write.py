"""A finished unit as rows for the store, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from catalog.grid import SegmentGrid
from catalog.recipe import Recipe
from catalog.store.rows import RecipeRows, VideoResult
from catalog.video import Outcome, Video
from pipeline.clips import Features
from pipeline.sandbox.parent import Decoded
from pipeline.unit import UnitResult, VideoWork


def unit_rows(result: UnitResult, recipes: Mapping[str, Recipe]) -> list[VideoResult]:
    """One `VideoResult` a video of the unit, in the unit's order.

    Features that do not fit their grid are not stored, the recipe is then `encoder_failed` on that video: a wrong row
    is worse than none.
    """
    unit = result.unit
    wanted = [recipes[name] for name in unit.recipes]
    return [
        _video_result(video, unit.number, work, wanted) for video, work in zip(unit.videos, result.videos, strict=True)
    ]


def recipe_rows(grid: SegmentGrid, parts: Sequence[Features]) -> RecipeRows:
    """The rows of one video for one recipe.

    Args:
        grid: the whole video's.
        parts: the features of its windows, in time order.

    Raises:
        ValueError: as many rows as segments are needed, finite where valid and NaN elsewhere.
    """
    visual = _joined(parts, lambda part: part.visual)
    audio = _joined(parts, lambda part: part.audio)
    visual_valid = np.concatenate([part.visual_valid for part in parts])
    audio_valid = np.concatenate([part.audio_valid for part in parts])
    for name, values, valid in (("visual", visual, visual_valid), ("audio", audio, audio_valid)):
        _check_rows(name, values, valid, grid.count)
    return RecipeRows(
        visual=visual,
        audio=audio,
        visual_valid=visual_valid,
        audio_valid=audio_valid,
        start_s=grid.starts_s(),
        end_s=grid.ends_s(),
    )


def _video_result(video: Video, unit: int, work: VideoWork, recipes: Sequence[Recipe]) -> VideoResult:
    decoded = work.decoded
    outcome = Outcome(status="quarantined", reason=work.reason, detail=work.detail)
    rows: dict[str, RecipeRows] = {}
    if not work.reason:
        assert decoded is not None, f"{video.id}: features without a decoder's report"
        rows = {recipe.name: _rows_of(recipe, work, decoded) for recipe in recipes}
        refusals = [made for made in rows.values() if made.reason == "encoder_failed"]
        outcome = decoded.outcome
        if refusals:
            outcome = Outcome(status="partial", reason="encoder_failed", detail=refusals[0].detail)
        if all(made.status == "quarantined" for made in rows.values()):
            first = next(iter(rows.values()))
            outcome, rows = Outcome(status="quarantined", reason=first.reason, detail=first.detail), {}
    return VideoResult(
        video=video,
        unit=unit,
        status=outcome.status,
        reason=outcome.reason,
        detail=outcome.detail,
        attempts=work.attempts,
        duration_s=math.nan if decoded is None else float(decoded.duration_s),
        sha256="" if decoded is None else decoded.sha256,
        bytes=-1 if decoded is None else decoded.num_bytes,
        media={} if decoded is None else decoded.media,
        features=rows,
    )


def _rows_of(recipe: Recipe, work: VideoWork, decoded: Decoded) -> RecipeRows:
    """One recipe's rows with its own status: what one encoder refuses another may take."""
    if recipe.name in work.refused:
        return _no_rows("encoder_failed", f"{recipe.name}: {work.refused[recipe.name]}")
    # A missing track is no loss to a recipe without that tower.
    reason = decoded.outcome.reason
    needs_video, needs_audio = recipe.video is not None, recipe.audio is not None
    if (reason == "no_video" and not needs_audio) or (reason == "no_audio" and not needs_video):
        return _no_rows(reason, "")
    try:
        made = recipe_rows(work.grids[recipe.name], work.features[recipe.name])
    except ValueError as error:
        return _no_rows("encoder_failed", f"{recipe.name}: {error}")
    if (reason == "no_video" and not needs_video) or (reason == "no_audio" and not needs_audio):
        return replace(made, status="extracted")
    return replace(made, status=decoded.outcome.status, reason=reason)


def _no_rows(reason: str, detail: str) -> RecipeRows:
    none = np.zeros(0, np.bool_)
    return RecipeRows(
        visual=None,
        audio=None,
        visual_valid=none,
        audio_valid=none,
        start_s=np.zeros(0),
        end_s=np.zeros(0),
        status="quarantined",
        reason=reason,
        detail=detail,
    )


def _joined(
    parts: Sequence[Features], of: Callable[[Features], NDArray[np.floating] | None]
) -> NDArray[np.floating] | None:
    values = [of(part) for part in parts]
    present = [value for value in values if value is not None]
    if len(present) not in (0, len(values)):
        raise ValueError(f"features are missing from {len(values) - len(present)} of {len(values)} windows")
    return np.concatenate(present) if present else None


def _check_rows(name: str, values: NDArray[np.floating] | None, valid: NDArray[np.bool_], count: int) -> None:
    if valid.shape != (count,):
        raise ValueError(f"{name}: the grid has {count} segments, the encoder gave {valid.shape[0]} validity flags")
    if values is None:
        if valid.any():
            raise ValueError(f"{name}: rows are flagged valid and there are none")
        return
    if values.shape[0] != count:
        raise ValueError(f"{name}: the grid has {count} segments, the encoder gave {values.shape[0]} rows")
    flat_SD = values.reshape(count, -1)
    # Whole rows first, then the flags: choosing rows first would copy what may be hours of features.
    if not np.isfinite(flat_SD).all(axis=1)[valid].all():
        raise ValueError(f"{name}: NaN or infinity in a row that is flagged valid")
    if not np.isnan(flat_SD).all(axis=1)[~valid].all():
        raise ValueError(f"{name}: a number in a row that is flagged not valid; it must be NaN")
