"""Which video of a unit kills its worker process: found by trying each alone.

A worker that dies takes its whole unit with it, and which video it was decoding is not known. After `DEATHS_OF_A_UNIT`
deaths each video of the unit is tried alone, results thrown away; one that kills its worker `DEATHS_ALONE` times is
guilty. Then the unit runs whole again without the guilty, so that its batches hold the same videos as they would in
an undisturbed run: workers killed from outside leave no trace in the values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from catalog.errors import AvelError
from pipeline.plan import Unit

DEATHS_OF_A_UNIT = 2
DEATHS_ALONE = 2
MAX_ROUNDS = 3


class WorkersKeepDying(AvelError):
    """Worker processes die without any single video to blame."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Work for one worker: a whole unit, or (trial) one of its videos alone, whose result is thrown away."""

    unit: Unit
    trial: bool = False


class Suspects:
    """Counts the deaths of workers and decides what runs next."""

    def __init__(self) -> None:
        self._cases: dict[int, _Case] = {}

    def died(self, assignment: Assignment) -> list[Assignment]:
        """Counts a death of the worker on `assignment`; returns what to run now.

        Raises:
            WorkersKeepDying: the unit's videos pass one by one, and together they keep killing the worker.
        """
        case = self._cases.setdefault(assignment.unit.index, _Case(unit=assignment.unit))
        if assignment.trial:
            (video,) = assignment.unit.videos
            case.alone[video.id] = case.alone.get(video.id, 0) + 1
            if case.alone[video.id] < DEATHS_ALONE:
                return [assignment]
            case.guilty |= {video.id}
            return self._trial_over(case)
        case.deaths += 1
        if case.deaths < DEATHS_OF_A_UNIT:
            return [assignment]
        case.deaths = 0
        case.rounds += 1
        if case.rounds > MAX_ROUNDS:
            names = ", ".join(repr(video.id) for video in assignment.unit.videos)
            raise WorkersKeepDying(
                f"unit {assignment.unit.number} ({names}) has killed its worker {DEATHS_OF_A_UNIT * case.rounds} "
                "times, and none of its videos does so alone; perhaps the machine is short of memory: "
                "try fewer --workers"
            )
        case.alone = {}
        suspects = [video for video in case.unit.videos if video.id not in case.guilty]
        case.open_trials = len(suspects)
        if not suspects:
            return [Assignment(unit=replace(case.unit, crashed=frozenset(case.guilty)))]
        return [Assignment(unit=replace(case.unit, videos=(video,)), trial=True) for video in suspects]

    def passed(self, assignment: Assignment) -> list[Assignment]:
        """`assignment` has ended without a death; returns what to run now."""
        if not assignment.trial:
            self._cases.pop(assignment.unit.index, None)
            return []
        return self._trial_over(self._cases[assignment.unit.index])

    @staticmethod
    def _trial_over(case: _Case) -> list[Assignment]:
        case.open_trials -= 1
        if case.open_trials:
            return []
        return [Assignment(unit=replace(case.unit, crashed=frozenset(case.guilty)))]


@dataclass
class _Case:
    """Deaths of one unit: of the whole unit since the last trials, and of each video alone."""

    unit: Unit
    deaths: int = 0
    rounds: int = 0
    open_trials: int = 0
    guilty: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.alone: dict[str, int] = {}
