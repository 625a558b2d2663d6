"""What decoding and encoding made of a unit, as rows: statuses by recipe, and a wrong row never stored."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from catalog.recipe import Recipe
from catalog.store.modal import Features, Modal
from catalog.store.rows import VideoResult
from catalog.video import Outcome
from pipeline.sandbox.parent import Decoded
from pipeline.unit import UnitResult, VideoWork
from pipeline.write import recipe_rows, unit_rows
from tests.pipeline import made_units

BOTH, SEES, HEARS = (
    made_units.recipe("both"),
    made_units.recipe("sees", sound=False),
    made_units.recipe("hears", picture=False),
)


def outcome(
    decoded: Decoded | None,
    made: Mapping[str, Features],
    *,
    recipes: tuple[Recipe, ...] = (BOTH, SEES, HEARS),
    refused: Mapping[str, str] | None = None,
    reason: str = "",
    attempts: int = 1,
) -> VideoResult:
    """The row of one video whose features by recipe are `made`."""
    names = tuple(recipe.name for recipe in recipes)
    work = VideoWork(
        decoded=decoded,
        reason=reason,
        detail="seen" if reason else "",
        attempts=attempts,
        refused=refused or {},
        features={name: [part] for name, part in made.items()},
        grids=dict.fromkeys(made, made_units.grid(2)),
    )
    result = UnitResult(unit=made_units.unit(1, recipes=names), videos=(work,), decode_s=0, encode_s=0)
    (row,) = unit_rows(result, {recipe.name: recipe for recipe in recipes})
    return row


def told(row: VideoResult) -> dict[str, tuple[str | None, str]]:
    return {name: (made.outcome.status, made.outcome.reason) for name, made in row.features.items() if made.outcome}


def seen(*, picture: bool = True, sound: bool = True) -> Features:
    """Two segments' features; a tower that is None has nothing, a modality that is lost is NaN."""
    row = made_units.features(1.0)
    lost = made_units.features(math.nan)
    return Features(visual=(row if picture else lost).visual, audio=(row if sound else lost).audio)


def test_unit_rows_without_sound_is_partial_whole_and_nothing_by_what_a_recipe_wants() -> None:
    row = outcome(
        made_units.decoded("partial", "no_audio"),
        {"both": seen(sound=False), "sees": made_units.features(1.0, sound=False), "hears": seen(sound=False)},
    )
    assert (row.outcome.status, row.outcome.reason) == ("partial", "no_audio")
    assert told(row) == {
        "both": ("partial", "no_audio"),
        "sees": ("extracted", ""),
        "hears": ("quarantined", "no_audio"),
    }
    assert len(row.features["hears"].start_s) == 0


def test_unit_rows_without_picture_is_the_mirror_image() -> None:
    row = outcome(
        made_units.decoded("partial", "no_video"),
        {"both": seen(picture=False), "sees": seen(picture=False), "hears": seen(picture=False)},
    )
    assert (row.outcome.status, row.outcome.reason) == ("partial", "no_video")
    assert told(row) == {
        "both": ("partial", "no_video"),
        "sees": ("quarantined", "no_video"),
        "hears": ("extracted", ""),
    }


def test_unit_rows_video_that_no_recipe_can_use_is_quarantined_without_rows() -> None:
    row = outcome(made_units.decoded("partial", "no_audio"), {"hears": seen(sound=False)}, recipes=(HEARS,))
    assert (row.outcome.status, row.outcome.reason, row.features) == ("quarantined", "no_audio", {})
    # It was read all the same: what is known of the medium is kept.
    assert (row.duration_s, row.bytes) == (2.0, 7)


def test_unit_rows_of_a_quarantined_video_know_nothing_of_the_medium() -> None:
    row = outcome(None, {}, reason="decoder_crash", attempts=2)
    assert row.outcome == Outcome(status="quarantined", reason="decoder_crash", detail="seen")
    assert row.attempts == 2
    assert math.isnan(row.duration_s)
    assert (row.sha256, row.bytes, row.features) == ("", -1, {})


def test_unit_rows_refused_by_one_encoder_is_partial_and_the_others_are_whole() -> None:
    row = outcome(
        made_units.decoded(),
        {"both": seen()},
        recipes=(BOTH, SEES),
        refused={"sees": "ValueError: too small"},
    )
    assert (row.outcome.status, row.outcome.reason) == ("partial", "encoder_failed")
    assert told(row) == {"both": ("extracted", ""), "sees": ("quarantined", "encoder_failed")}
    assert "sees: ValueError: too small" in row.outcome.detail


def test_unit_rows_refused_by_every_encoder_is_quarantined() -> None:
    row = outcome(made_units.decoded(), {}, recipes=(BOTH,), refused={"both": "ValueError: no"})
    assert (row.outcome.status, row.outcome.reason, row.features) == ("quarantined", "encoder_failed", {})


def test_unit_rows_features_that_do_not_fit_the_grid_are_not_stored() -> None:
    row = outcome(made_units.decoded(), {"both": made_units.features(1.0, 3)}, recipes=(BOTH,))
    assert (row.outcome.status, row.outcome.reason, row.features) == ("quarantined", "encoder_failed", {})
    assert "both: feature rows: visual: needs 2 validity flags, got bool (3,)" in row.outcome.detail


def test_recipe_rows_joins_windows_in_order_on_the_whole_grid() -> None:
    parts = [made_units.features(1.0, 2), made_units.features(math.nan, 1), made_units.features(3.0, 1)]
    rows = recipe_rows(made_units.grid(4), parts)
    assert rows.visual is not None
    np.testing.assert_array_equal(rows.visual.values[:, 0], [1, 1, np.nan, 3])
    assert rows.audio is not None
    np.testing.assert_array_equal(rows.audio.valid, [True, True, False, True])
    np.testing.assert_array_equal(rows.start_s, [0, 1, 2, 3])
    np.testing.assert_array_equal(rows.end_s, [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("visual", "valid", "message"),
    [
        ([1.0, np.nan], [True, True], "visual: row 1 is valid and not finite in float32"),
        ([1.0, np.inf], [True, True], "visual: row 1 is valid and not finite in float32"),
        ([1.0, 0.0], [True, False], "visual: row 1 is not valid and not NaN"),
        ([1.0], [True, True], r"visual: needs floats \(2, 1\), got float32 \(1, 1\)"),
        ([1.0, 1.0], [True], r"visual: needs 2 validity flags, got bool \(1,\)"),
    ],
)
def test_recipe_rows_that_contradict_themselves_are_refused(
    visual: list[float], valid: list[bool], message: str
) -> None:
    made = Features(visual=Modal(values=np.array(visual, np.float32)[:, None], valid=np.array(valid)), audio=None)
    with pytest.raises(ValueError, match=message):
        recipe_rows(made_units.grid(2), [made])


def test_recipe_rows_of_a_window_without_a_tower_that_others_have_are_refused() -> None:
    with pytest.raises(ValueError, match="missing from 1 of 2 windows"):
        recipe_rows(made_units.grid(2), [made_units.features(1.0, 1), made_units.features(1.0, 1, sound=False)])
