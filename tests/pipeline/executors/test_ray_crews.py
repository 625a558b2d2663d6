"""Decode and encode actors apart, and one of them killed in the middle of a unit: who is lost with it, and who is not.

The crew is driven by hand, step by step, so a death falls between two events of a unit and nowhere else.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
import pytest

from catalog import dataset
from pipeline import plan
from pipeline.executors.job import Job
from pipeline.executors.ray_cluster import RaySettings
from pipeline.executors.ray_crews import Finished, SplitCrew
from pipeline.executors.ray_executor import RayExecutor
from pipeline.executors.suspects import Assignment
from pipeline.recipes import find_recipe
from pipeline.unit import UnitResult, run_unit
from tests import small_videos as small

pytestmark = pytest.mark.ray

RECIPE = "descriptors-1s"
# Far above what a step takes on any machine; a hang is a failure.
HANG_S = 900


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Assignment]:
    """Two units of three videos, which is six events each: four more than a decode actor makes ahead."""
    folder = small.make_folder(tmp_path_factory.mktemp("crew") / "videos", 6)
    videos = dataset.load("folder", str(folder)).videos
    return [Assignment(unit=plan.plan_units(videos[low : low + 3], [RECIPE]).units[0]) for low in (0, 3)]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_actor_killed_in_the_middle_loses_the_tasks_that_touched_it_and_no_other(tasks: list[Assignment]) -> None:
    job = Job(recipes=(find_recipe(RECIPE),))
    wanted = [alone(job, task) for task in tasks]
    with RayExecutor(job, workers=2, settings=RaySettings(encode_workers=1)) as executor:
        crew = executor._crew
        assert isinstance(crew, SplitCrew)

        # The encode actor: the first task has sent it events, the second has said that it will.
        begin_in_the_middle(crew, tasks[0])
        crew.give(tasks[1])
        before, decoders = crew._encoders[0], [running.decoder for running in crew._running]
        os.kill(pid_of(executor, before), signal.SIGKILL)
        assert by_task(until_told(crew, 2), tasks) == [(task, None) for task in tasks]
        assert crew._encoders[0] is not before
        assert crew._running == []

        # A decode actor: the task that it had is lost, and another one ends as if nothing had been.
        until_idle(crew, 2)
        assert not {id(decoder) for decoder in crew._idle} & {id(decoder) for decoder in decoders}
        encoder, victim = crew._encoders[0], pid_of(executor, crew._idle[-1])
        begin_in_the_middle(crew, tasks[0])
        os.kill(victim, signal.SIGKILL)
        crew.give(tasks[1])
        lost, survived = by_task(until_told(crew, 2), tasks)
        assert lost == (tasks[0], None)
        assert_equal(survived, tasks[1], wanted[1])
        assert crew._encoders[0] is encoder

        # Who was lost comes again, to the actors that were hired.
        until_idle(crew, 2)
        crew.give(tasks[0])
        (again,) = until_told(crew, 1)
        assert_equal(again, tasks[0], wanted[0])


def alone(job: Job, task: Assignment) -> UnitResult:
    """The task in this process."""
    with job.new_sandbox() as sandbox:
        return run_unit(task.unit, job.by_name(), job.load_encoders(), sandbox, job.local_copy)


def until_idle(crew: SplitCrew, count: int) -> None:
    """Waits for so many decode actors to have started."""
    until_s = time.monotonic() + HANG_S
    while len(crew._idle) < count:
        assert crew.finished(0.1) == []
        assert time.monotonic() < until_s, "decode actors did not start"


def begin_in_the_middle(crew: SplitCrew, task: Assignment) -> None:
    """Gives the task, once all decode actors have started, and steps until one event is on its way to be encoded.

    A decode actor makes so few events ahead that most of the unit is still to come.
    """
    until_idle(crew, 2)
    crew.give(task)
    (running,) = crew._running
    begin = running.fed[0]
    until_s = time.monotonic() + HANG_S
    while not running.fed or running.fed[-1] is begin:
        assert crew.finished(0.1) == []
        assert time.monotonic() < until_s, "no event came"
    assert running.events is not None


def until_told(crew: SplitCrew, count: int) -> list[Finished]:
    """Steps until so many tasks have come to an end."""
    told: list[Finished] = []
    until_s = time.monotonic() + HANG_S
    while len(told) < count:
        told += crew.finished(0.1)
        assert time.monotonic() < until_s, f"{len(told)} of {count} tasks have come to an end"
    return told


def pid_of(executor: RayExecutor, actor: Any) -> int:
    return int(executor.cluster.get(actor.__ray_call__.remote(lambda _: os.getpid())))


def by_task(told: list[Finished], tasks: list[Assignment]) -> list[Finished]:
    return sorted(told, key=lambda one: [task == one[0] for task in tasks], reverse=True)


def assert_equal(told: Finished, task: Assignment, wanted: UnitResult) -> None:
    """The task's result, each bit of its features as in this process."""
    got_task, result = told
    assert got_task == task
    assert result is not None
    assert [video.reason for video in result.videos] == [video.reason for video in wanted.videos] == [""] * 3
    for one, other in zip(result.videos, wanted.videos, strict=True):
        assert one.attempts == other.attempts == 1
        for a, b in zip(one.features[RECIPE], other.features[RECIPE], strict=True):
            for (name, got), (_, want) in zip(a.modalities(), b.modalities(), strict=True):
                np.testing.assert_array_equal(got.values, want.values, err_msg=name)
