"""Units are cut once and kept; what is committed is not done again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.video import EXTRACTED, Outcome, Video
from pipeline.plan import UNIT_VIDEOS, Committed, plan_units


def wanted(count: int) -> list[Video]:
    return [Video(id=f"v{i:03d}", uri=f"v{i:03d}.mp4") for i in range(count)]


def committed(count: int, **status: list[str]) -> Committed:
    return Committed(
        ids=[f"v{i:03d}" for i in range(count)],
        unit=np.arange(count) // UNIT_VIDEOS,
        outcomes={
            name: [Outcome(status=value, reason="not_media" if value == "quarantined" else "") for value in values]
            for name, values in status.items()
        },
    )


def test_plan_of_an_empty_store_is_runs_of_eight_in_order() -> None:
    plan = plan_units(wanted(19), ["r"])
    assert [len(unit.videos) for unit in plan.units] == [8, 8, 3]
    assert [unit.number for unit in plan.units] == [0, 1, 2]
    assert [video.id for unit in plan.units for video in unit.videos] == [video.id for video in wanted(19)]


@given(total=st.integers(1, 60), units_done=st.integers(0, 8))
def test_units_after_an_interruption_are_those_of_an_undisturbed_plan(total: int, units_done: int) -> None:
    # The law behind equal stores: what is left is cut as it was cut at first, whatever had been committed.
    done = min(total, units_done * UNIT_VIDEOS)
    whole = plan_units(wanted(total), ["r"])
    rest = plan_units(wanted(total), ["r"], committed(done, r=["extracted"] * done))
    assert rest.done == done
    assert [(unit.number, unit.videos) for unit in rest.units] == [
        (unit.number, unit.videos) for unit in whole.units if unit.number * UNIT_VIDEOS >= done
    ]


def test_videos_added_later_make_new_units_and_leave_old_ones_alone() -> None:
    plan = plan_units(wanted(7), ["r"], committed(5, r=["extracted"] * 5))
    assert [(unit.number, [video.id for video in unit.videos]) for unit in plan.units] == [(1, ["v005", "v006"])]


def test_a_recipe_added_later_goes_over_the_same_units() -> None:
    plan = plan_units(wanted(10), ["old", "new"], committed(10, old=["extracted"] * 10))
    assert [(unit.number, len(unit.videos), unit.recipes) for unit in plan.units] == [
        (0, 8, ("new",)),
        (1, 2, ("new",)),
    ]
    assert not any(unit.replace for unit in plan.units)


@pytest.mark.parametrize(("reasons", "again"), [((), []), (("not_media",), ["v001"]), (("all",), ["v001"])])
def test_failures_are_final_until_asked_for_again(reasons: tuple[str, ...], again: list[str]) -> None:
    held = committed(3, r=["extracted", "quarantined", "extracted"])
    plan = plan_units(wanted(3), ["r"], held, reasons)
    assert [video.id for unit in plan.units for video in unit.videos] == again
    assert all(unit.replace for unit in plan.units)
    assert plan.done == 3 - len(again)


def test_other_reasons_are_not_retried() -> None:
    held = committed(1, r=["quarantined"])
    assert plan_units(wanted(1), ["r"], held, ["empty_file"]).units == ()


def test_unknown_reason_is_refused_and_the_known_are_listed() -> None:
    with pytest.raises(ValueError, match=r"no reason is called 'tired'; there are .*empty_file"):
        plan_units(wanted(1), ["r"], retry_reasons=["tired"])


def test_a_video_wanted_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'v000' is wanted twice"):
        plan_units([*wanted(1), *wanted(1)], ["r"])


def test_videos_without_a_unit_are_cut_by_their_place_in_the_store() -> None:
    # Imported features have no units; a recipe that is then extracted must find the same ones each time.
    held = Committed(ids=[f"v{i:03d}" for i in range(20)], unit=np.full(20, -1), outcomes={})
    whole = plan_units(wanted(20), ["new"], held)
    assert [[video.id for video in unit.videos] for unit in whole.units] == [
        [f"v{i:03d}" for i in range(first, min(first + UNIT_VIDEOS, 20))] for first in range(0, 20, UNIT_VIDEOS)
    ]
    assert {unit.number for unit in whole.units} == {-1}
    first_done = [EXTRACTED] * UNIT_VIDEOS + [Outcome(status="pending")] * 12
    rest = plan_units(wanted(20), ["new"], replace(held, outcomes={"new": first_done}))
    assert [unit.videos for unit in rest.units] == [unit.videos for unit in whole.units[1:]]
