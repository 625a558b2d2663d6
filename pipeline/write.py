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
from catalog.video import EXTRACTED, Outcome, Video
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
        outcomes = [made.outcome for made in rows.values() if made.outcome is not None]
        refusals = [one for one in outcomes if one.reason == "encoder_failed"]
        outcome = decoded.outcome
        if refusals:
            outcome = replace(refusals[0], status="partial")
        if all(one.status == "quarantined" for one in outcomes):
            outcome, rows = outcomes[0], {}
    return VideoResult(
        video=video,
        unit=unit,
        outcome=outcome,
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
        return replace(made, outcome=EXTRACTED)
    return replace(made, outcome=decoded.outcome)


def _no_rows(reason: str, detail: str) -> RecipeRows:
    outcome = Outcome(status="quarantined", reason=reason, detail=detail)
    return RecipeRows(visual=None, audio=None, start_s=np.zeros(0), end_s=np.zeros(0), outcome=outcome)
