"""The Ray executor: units to actors and results back; deaths of workers are charged to the videos that cause them."""

from __future__ import annotations

import contextlib
from collections import deque

from pipeline.executors.job import Job
from pipeline.executors.ray_cluster import RaySettings, connected
from pipeline.executors.ray_crews import Crew, FusedCrew, SplitCrew
from pipeline.executors.suspects import Assignment, Suspects, WorkersKeepDying
from pipeline.plan import Unit
from pipeline.unit import UnitResult

# Deaths without any finished unit in between, beyond which something else is wrong (no memory, a broken node).
DEATHS_IN_A_ROW = 12


class RayExecutor:
    """Runs units on `workers` actors. A context manager: entering starts or joins Ray, leaving ends the actors."""

    def __init__(self, job: Job, *, workers: int, settings: RaySettings) -> None:
        self._job = job
        self._workers = workers
        self._settings = settings
        self._todo: deque[Assignment] = deque()
        self._suspects = Suspects()
        self._deaths = 0
        self.workers_up = 0  # at most so many had started
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> RayExecutor:
        with contextlib.ExitStack() as stack:
            self.cluster = stack.enter_context(connected(self._settings, self._workers))
            kind: type[SplitCrew | FusedCrew] = SplitCrew if self._settings.encode_workers else FusedCrew
            self._crew: Crew = kind(self.cluster, self._job, self._workers, self._settings)
            stack.callback(self._crew.end)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def submit(self, unit: Unit) -> None:
        """Queues a unit."""
        self._todo.append(Assignment(unit=unit))

    def wait(self, timeout_s: float) -> list[UnitResult]:
        """The units that have finished, after at most `timeout_s`; raises what a worker raised.

        Raises:
            WorkersKeepDying: worker processes die without a video to blame.
        """
        while self._todo and self._crew.idle:
            self._crew.give(self._todo.popleft())
        results = []
        self._crew.watch()
        self.workers_up = max(self.workers_up, self._workers - self._crew.starting)
        for assignment, result in self._crew.finished(timeout_s):
            if assignment is None or result is None:
                self._died(assignment)
                continue
            self._deaths = 0
            # What follows from a trial goes first: the units behind it wait for their turn to be appended.
            self._todo.extendleft(reversed(self._suspects.passed(assignment)))
            if not assignment.trial:
                results.append(result)
        return results

    def _died(self, assignment: Assignment | None) -> None:
        self._deaths += 1
        if self._deaths > DEATHS_IN_A_ROW + 2 * self._workers:
            raise WorkersKeepDying(
                f"{self._deaths} worker processes died in a row; the last ones may say why with --verbose. "
                "Is the machine short of memory? Try fewer --workers"
            )
        if assignment is not None:
            self._todo.extendleft(reversed(self._suspects.died(assignment)))
