"""Decode and encode actors apart, their calls ending in any order: a result always holds all of its unit's windows."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from pipeline.executors.ray_cluster import RayCluster, RaySettings
from pipeline.executors.ray_crews import WINDOWS_AHEAD, FusedCrew, SplitCrew
from pipeline.executors.suspects import Assignment
from pipeline.unit import UnitResult, one_thread, run_unit
from tests.pipeline import made_units
from tests.pipeline.executors.scripted_ray import Call, Events, ScriptedRay
from tests.pipeline.made_units import ScriptedJob, ShadeEncoder, clips, decoded

Handles = Sequence[Call | Events]

# Long videos: each window is an event of its own, and each has a shade of its own.
WINDOWS = 3
JOB = ScriptedJob(
    recipes=(made_units.recipe(),),
    script={
        f"v{i:02d}": [
            [
                *(("r", clips(f"v{i:02d}", first=2 * n, of=2 * WINDOWS, shade=10 * i + n + 1)) for n in range(WINDOWS)),
                decoded(),
            ]
        ]
        for i in range(3)
    },
)
ASSIGNMENTS = [Assignment(unit=made_units.unit(3, index=index)) for index in range(4)]


@pytest.fixture(autouse=True)
def one_thread_around_all_workers() -> Iterator[None]:
    """The workers, which live in this process here, leave its threads as they were."""
    with one_thread():
        yield


def encoder_last(handles: Handles) -> Call | Events:
    """An encode actor that is slow: its calls end when nothing else can."""
    return min(handles, key=lambda handle: isinstance(handle, Call))


def encoder_first(handles: Handles) -> Call | Events:
    return min(handles, key=lambda handle: isinstance(handle, Events))


def encoder_last_newest_first(handles: Handles) -> Call | Events:
    """As `encoder_last`; of several calls that have ended, the one made last is reported first."""
    return min(reversed(handles), key=lambda handle: isinstance(handle, Call))


@dataclass
class AnyOrder:
    rng: random.Random

    def __call__(self, handles: Handles) -> Call | Events:
        return self.rng.choice(handles)


@dataclass
class LosesFeeds:
    """Loses the `nth` event of each unit on its way to the encode actor."""

    nth: int
    seen: dict[int, int] = field(default_factory=dict)
    num_lost: int = 0

    def __call__(self, call: Call) -> bool:
        if call.method != "feed":
            return False
        key = call.arguments[0]
        self.seen[key] = self.seen.get(key, 0) + 1
        lost = self.seen[key] == self.nth
        self.num_lost += lost
        return lost


def crew_of(ray: ScriptedRay, *, workers: int = 2, encode_workers: int = 1) -> SplitCrew:
    return SplitCrew(RayCluster(ray), JOB, workers, RaySettings(encode_workers=encode_workers))


def run(crew: SplitCrew | FusedCrew, assignments: Sequence[Assignment]) -> list[tuple[int, UnitResult | None]]:
    """(unit index, result) as the assignments end; one that was lost is not given again."""
    todo, ended = list(assignments), list[tuple[int, UnitResult | None]]()
    while len(ended) < len(assignments):
        while todo and crew.idle:
            crew.give(todo.pop(0))
        for assignment, result in crew.finished(1.0):
            assert assignment is not None
            ended.append((assignment.unit.index, result))
    crew.end()
    return ended


def assert_whole(result: UnitResult | None, index: int) -> None:
    """Each bit of the unit's features as from one thread that decodes and encodes in turn."""
    assert result is not None
    unit = ASSIGNMENTS[index].unit
    with JOB.new_sandbox() as sandbox:
        wanted = run_unit(unit, JOB.by_name(), {"r": ShadeEncoder()}, sandbox, JOB.local_copy)
    for got, want in zip(result.videos, wanted.videos, strict=True):
        assert (got.decoded, got.reason) == (want.decoded, "")
        for one, other in zip(got.features["r"], want.features["r"], strict=True):
            assert one.visual is not None
            assert other.visual is not None
            np.testing.assert_array_equal(one.visual.values, other.visual.values)


@pytest.mark.parametrize("policy", [encoder_first, encoder_last])
@pytest.mark.parametrize("encode_workers", [1, 2])
def test_split_crew_gives_whole_units_however_slow_the_encoder(policy: object, encode_workers: int) -> None:
    assert callable(policy)
    ended = run(crew_of(ScriptedRay(policy), encode_workers=encode_workers), ASSIGNMENTS)
    assert sorted(index for index, _ in ended) == [0, 1, 2, 3]
    for index, result in ended:
        assert_whole(result, index)


def test_fused_crew_gives_whole_units_in_any_order() -> None:
    crew = FusedCrew(RayCluster(ScriptedRay(AnyOrder(random.Random(1)))), JOB, 2, RaySettings())
    ended = run(crew, ASSIGNMENTS)
    assert sorted(index for index, _ in ended) == [0, 1, 2, 3]
    for index, result in ended:
        assert_whole(result, index)


@pytest.mark.parametrize("nth", range(1, 3 * (WINDOWS + 1) + 1))
@pytest.mark.parametrize("policy", [encoder_first, encoder_last, encoder_last_newest_first])
def test_split_crew_unit_that_lost_a_window_on_the_way_has_no_result(policy: object, nth: int) -> None:
    # Also the last one, which is lost when the decode actor has ended and the result has been asked for.
    assert callable(policy)
    loses = LosesFeeds(nth)
    assert run(crew_of(ScriptedRay(policy, loses)), ASSIGNMENTS[:1]) == [(0, None)]
    assert loses.num_lost == 1


@pytest.mark.parametrize("seed", range(40))
def test_split_crew_in_any_order_ends_each_unit_whole_or_lost(seed: int) -> None:
    rng = random.Random(seed)
    lost_units: set[int] = set()

    def loses(call: Call) -> bool:
        lost = call.method == "feed" and rng.random() < 0.03
        if lost:
            lost_units.add(call.arguments[0])  # keys are given in the order of the units
        return lost

    ended = run(crew_of(ScriptedRay(AnyOrder(rng), loses), encode_workers=1 + seed % 2), ASSIGNMENTS)
    assert sorted(index for index, _ in ended) == [0, 1, 2, 3]
    assert {index for index, result in ended if result is None} == lost_units
    for index, result in ended:
        if result is not None:
            assert_whole(result, index)


def test_split_crew_decoders_run_only_so_far_ahead_of_the_encoder() -> None:
    crew = crew_of(ScriptedRay(encoder_last), workers=1)
    while not crew.idle:
        crew.finished(1.0)
    crew.give(ASSIGNMENTS[0])
    fed = []
    while crew._running:
        crew.finished(1.0)
        fed += [len(running.fed) for running in crew._running]
    assert max(fed) == WINDOWS_AHEAD
    crew.end()
