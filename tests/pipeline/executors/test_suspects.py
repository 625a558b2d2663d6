"""Deaths of workers in, verdicts out: played against workers that die of known videos, and of nothing but bad luck."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.executors.suspects import (
    DEATHS_ALONE,
    DEATHS_OF_A_UNIT,
    MAX_ROUNDS,
    Assignment,
    Suspects,
    WorkersKeepDying,
)
from pipeline.plan import Unit
from tests.pipeline import made_units


def play(unit: Unit, deadly: set[str]) -> list[Assignment]:
    """Runs a unit on workers that die of the `deadly` videos, until it has passed; the tasks in the order they ran."""
    suspects, todo, ran = Suspects(), [Assignment(unit=unit)], list[Assignment]()
    while todo:
        task = todo.pop(0)
        ran.append(task)
        assert len(ran) < 100, "it never ends"
        opened = {video.id for video in task.unit.videos} - task.unit.crashed
        todo = (suspects.died(task) if opened & deadly else suspects.passed(task)) + todo
    return ran


@given(count=st.integers(1, 8), data=st.data())
def test_suspects_guilty_are_those_that_kill_and_no_other(count: int, data: st.DataObject) -> None:
    unit = made_units.unit(count)
    ids = [video.id for video in unit.videos]
    deadly = set(data.draw(st.lists(st.sampled_from(ids), unique=True)))
    ran = play(unit, deadly)
    last = ran[-1]
    assert not last.trial
    assert last.unit.crashed == deadly
    # The rest is encoded together, as in an undisturbed run: the unit keeps its videos.
    assert last.unit.videos == unit.videos
    for video in unit.videos:
        alone = sum(task.trial and task.unit.videos == (video,) for task in ran)
        assert alone == (0 if not deadly else DEATHS_ALONE if video.id in deadly else 1)
    assert sum(not task.trial for task in ran) == (DEATHS_OF_A_UNIT + 1 if deadly else 1)


def test_suspects_one_death_from_outside_runs_the_same_task_again() -> None:
    suspects, whole = Suspects(), Assignment(unit=made_units.unit(3))
    assert suspects.died(whole) == [whole]
    assert suspects.passed(whole) == []
    # What is forgiven is forgotten: another run of the unit begins its account anew.
    assert suspects.died(whole) == [whole]


def test_suspects_trial_killed_once_from_outside_makes_nobody_guilty() -> None:
    suspects, whole = Suspects(), Assignment(unit=made_units.unit(3))
    suspects.died(whole)
    trials = suspects.died(whole)
    assert [task.trial for task in trials] == [True] * 3
    assert suspects.died(trials[1]) == [trials[1]]
    follows = [after for task in trials for after in suspects.passed(task)]
    assert follows == [whole]


def test_suspects_units_have_accounts_of_their_own() -> None:
    suspects = Suspects()
    one, two = (Assignment(unit=made_units.unit(2, index=index)) for index in (0, 1))
    assert suspects.died(one) == [one]
    assert suspects.died(two) == [two]


def test_suspects_deadly_only_together_ends_the_job_after_some_rounds() -> None:
    rounds = 0

    def run_all(suspects: Suspects, todo: list[Assignment]) -> None:
        nonlocal rounds
        while todo:
            task = todo.pop(0)
            rounds += not task.trial
            todo[:0] = suspects.passed(task) if task.trial else suspects.died(task)

    with pytest.raises(WorkersKeepDying, match=r"none of its videos does so alone.*--workers"):
        run_all(Suspects(), [Assignment(unit=made_units.unit(3))])
    assert rounds == DEATHS_OF_A_UNIT * (MAX_ROUNDS + 1)


def second_round(suspects: Suspects, unit: Unit) -> list[Assignment]:
    """The trials after a first round in which v00 was found guilty and v01 died once, of something else."""
    whole = Assignment(unit=unit)
    suspects.died(whole)
    guilty, other, *rest = suspects.died(whole)
    assert suspects.died(other) == [other]
    assert suspects.died(guilty) == [guilty]
    assert suspects.died(guilty) == []
    follows = [after for task in (other, *rest) for after in suspects.passed(task)]
    (again,) = follows
    assert again.unit.crashed == {"v00"}
    assert suspects.died(again) == [again]
    return suspects.died(again)


def test_suspects_a_second_round_leaves_the_guilty_in_peace() -> None:
    trials = second_round(Suspects(), made_units.unit(3))
    assert [video.id for task in trials for video in task.unit.videos] == ["v01", "v02"]


def test_suspects_a_second_round_counts_deaths_alone_anew() -> None:
    suspects = Suspects()
    suspicious, rest = second_round(suspects, made_units.unit(3))
    assert suspects.died(suspicious) == [suspicious], "its one death in the first round was forgiven when it passed"
    follows = [after for task in (suspicious, rest) for after in suspects.passed(task)]
    assert [task.unit.crashed for task in follows] == [{"v00"}]


def test_suspects_a_second_guilty_joins_the_first() -> None:
    suspects = Suspects()
    suspicious, rest = second_round(suspects, made_units.unit(3))
    assert suspects.passed(rest) == []
    assert suspects.died(suspicious) == [suspicious]
    (last,) = suspects.died(suspicious)
    assert (last.trial, last.unit.crashed, len(last.unit.videos)) == (False, frozenset({"v00", "v01"}), 3)
