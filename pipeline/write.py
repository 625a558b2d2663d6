"""A finished unit as rows for the store, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from catalog.grid import SegmentGrid
from catalog.recipe import Recipe
from catalog.store.modal import Features
from catalog.store.rows import RecipeRows, VideoResult
from catalog.video import Outcome, Video
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
    whole = Features.join(parts)
    return RecipeRows(visual=whole.visual, audio=whole.audio, start_s=grid.starts_s(), end_s=grid.ends_s())


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
    return RecipeRows(
        visual=None,
        audio=None,
        start_s=np.zeros(0),
        end_s=np.zeros(0),
        status="quarantined",
        reason=reason,
        detail=detail,
    )
