"""Committed ids against wanted ids: what is left to do, cut into units.

A unit is `UNIT_VIDEOS` consecutive wanted videos. It is cut once, when its videos are first wanted, and its number is
kept in the store's `videos/unit`. Encoder batches never reach over a unit's end, units are committed whole and in
order, so a value depends on the plan alone: not on timing, not on how many workers there were, not on what a killed
run had already done. A recipe added later goes over the same units; videos added later make new ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.video import REASONS, Outcome, Video

UNIT_VIDEOS = 8

FINAL = frozenset({"extracted", "partial", "quarantined"})
ALL_REASONS = "all"


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Videos that are decoded, encoded and committed together.

    Attributes:
        index: position in this run's plan, from 0: the order of the commits.
        number: the unit's number in the store; -1 for videos that came from elsewhere without one.
        videos: 1 to `UNIT_VIDEOS`.
        recipes: names of the recipes that each of these videos needs.
        replace: these videos are in the store already and are tried again.
        crashed: ids of those of its videos that were found to kill their worker; they are not opened again.
    """

    index: int
    number: int
    videos: tuple[Video, ...]
    recipes: tuple[str, ...]
    replace: bool = False
    crashed: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Committed:
    """What the store holds: V videos in append order.

    Attributes:
        ids: (V,) distinct.
        unit: (V,) int, each video's unit number.
        outcomes: recipe name -> (V,); a recipe that the store does not have is left out.
    """

    ids: Sequence[str]
    unit: NDArray[np.integer]
    outcomes: Mapping[str, Sequence[Outcome]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The work of one run.

    Attributes:
        units: in the order in which they are committed.
        done: how many wanted videos need nothing.
    """

    units: tuple[Unit, ...]
    done: int

    @property
    def num_videos(self) -> int:
        """How many videos are to be worked on."""
        return sum(len(unit.videos) for unit in self.units)


NOTHING_COMMITTED = Committed(ids=(), unit=np.zeros(0, np.int32), outcomes={})


def plan_units(
    videos: Sequence[Video],
    recipes: Sequence[str],
    committed: Committed = NOTHING_COMMITTED,
    retry_reasons: Collection[str] = (),
) -> Plan:
    """The units that are left to do.

    Args:
        videos: the wanted ones, in the data set's order.
        recipes: names of the wanted recipes.
        committed: what the store holds now.
        retry_reasons: partial and quarantined videos of these reasons are tried again; "all" means every reason.

    Raises:
        ValueError: two videos have one id, or a reason that does not exist.
    """
    check_reasons(retry_reasons)
    row_of = {video_id: row for row, video_id in enumerate(committed.ids)}
    new: list[Video] = []
    # (unit, block, replace, recipes needed) -> (row in the store, video)
    known: dict[tuple[int, int, bool, tuple[str, ...]], list[tuple[int, Video]]] = {}
    seen: set[str] = set()
    done = 0
    for video in videos:
        if video.id in seen:
            raise ValueError(f"video id {video.id!r} is wanted twice; ids must be distinct")
        seen.add(video.id)
        row = row_of.get(video.id)
        if row is None:
            new.append(video)
            continue
        outcomes = {name: held[row] for name in recipes if (held := committed.outcomes.get(name)) is not None}
        pending = tuple(name for name in recipes if name not in outcomes or outcomes[name].status not in FINAL)
        again = tuple(name for name, outcome in outcomes.items() if _is_retried(outcome, retry_reasons))
        if not pending and not again:
            done += 1
        for needed, replace in ((pending, False), (again, True)):
            if needed:
                number = int(committed.unit[row])
                # Rows without a unit are cut by their row in the store, which never changes.
                block = row // UNIT_VIDEOS if number < 0 else 0
                known.setdefault((number, block, replace, needed), []).append((row, video))

    units: list[Unit] = []
    for (number, _, replace, needed), members in sorted(known.items()):
        members.sort(key=lambda member: member[0])
        of_unit = tuple(video for _, video in members)
        units.append(Unit(index=len(units), number=number, videos=of_unit, recipes=needed, replace=replace))
    next_number = int(committed.unit.max(initial=-1)) + 1
    for first in range(0, len(new), UNIT_VIDEOS):
        of_unit = tuple(new[first : first + UNIT_VIDEOS])
        units.append(Unit(index=len(units), number=next_number, videos=of_unit, recipes=tuple(recipes)))
        next_number += 1
    return Plan(units=tuple(units), done=done)


def check_reasons(reasons: Collection[str]) -> None:
    """Refuses reasons that do not exist.

    Raises:
        ValueError: names the reason and lists those there are.
    """
    for reason in reasons:
        if reason != ALL_REASONS and reason not in REASONS:
            raise ValueError(
                f"no reason is called {reason!r}; there are {', '.join(sorted(REASONS))} and {ALL_REASONS}"
            )


def _is_retried(outcome: Outcome, reasons: Collection[str]) -> bool:
    return outcome.status in ("partial", "quarantined") and (ALL_REASONS in reasons or outcome.reason in reasons)
