"""Finished units into the store: appended in the plan's order, in whatever order they finish, and committed in time.

Rows of the store are in append order, so two runs give equal arrays only if they append in one order. A unit that
finishes early is held back; how much may be held is bounded, and what is not appended is not lost to the store: it
was never in it, and the next run does it again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from catalog.errors import AvelError
from catalog.recipe import Recipe
from catalog.store.writer import StoreWriter
from pipeline.plan import Plan
from pipeline.run_summary import RunSummary
from pipeline.unit import UnitResult
from pipeline.write import unit_rows

# How far submitting may run ahead of appending: units a worker, and bytes of features held back.
UNITS_AHEAD_A_WORKER = 4
MAX_HELD_BYTES = 256 * 2**20


class EncoderFailsEverywhere(AvelError):
    """Every video of the run's first unit was refused by the encoder: that is the encoder's fault, not the media's."""


class Ledger:
    """Takes finished units, appends in order, commits.

    Args:
        plan: what is to be done; recipes: those it names, by name.
        writer: the store's one writer.
        summary: counts go in here.
        workers: how many units run at once.
        commit_every_s: the longest time that appended rows stay uncommitted while units keep finishing.
        max_held_bytes: features of finished units that wait for their turn, beyond which no unit starts ahead of turn.
    """

    def __init__(
        self,
        plan: Plan,
        recipes: Mapping[str, Recipe],
        writer: StoreWriter,
        summary: RunSummary,
        *,
        workers: int,
        commit_every_s: float,
        max_held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self._plan = plan
        self._recipes = recipes
        self._writer = writer
        self._summary = summary
        self._ahead = UNITS_AHEAD_A_WORKER * workers
        self._commit_every_s = commit_every_s
        self._max_held_bytes = max_held_bytes
        self._held: dict[int, UnitResult] = {}
        self._held_bytes = 0
        self._next = 0  # the unit that is appended next
        self._uncommitted = 0  # videos
        self._committed_at_s = time.monotonic()

    @property
    def finished(self) -> bool:
        """Every unit of the plan has been appended."""
        return self._next == len(self._plan.units)

    def may_submit(self, index: int) -> bool:
        """Whether unit `index` may be started now. The unit that is due next always may."""
        return index == self._next or (index < self._next + self._ahead and self._held_bytes < self._max_held_bytes)

    def take(self, result: UnitResult) -> None:
        """Takes a finished unit; appends it and those that waited for it where their turn has come."""
        index = result.unit.index
        assert index not in self._held, f"unit {index} was finished twice"
        assert index >= self._next, f"unit {index} is in the store already"
        self._held[index] = result
        self._held_bytes += result.nbytes
        self._summary.decode_s += result.decode_s
        self._summary.encode_s += result.encode_s
        while self._next in self._held:
            due = self._held.pop(self._next)
            self._held_bytes -= due.nbytes
            self._append(due)
            self._next += 1

    def commit_if_due(self) -> None:
        """Commits what is appended where the last commit is `commit_every_s` ago."""
        if time.monotonic() - self._committed_at_s >= self._commit_every_s:
            self.commit()

    def commit(self) -> None:
        """Commits what is appended, if anything is."""
        began_s = time.monotonic()
        if self._uncommitted:
            names = sorted({name for unit in self._plan.units for name in unit.recipes})
            self._writer.commit(f"extract {', '.join(names)}: {self._uncommitted} videos")
            self._summary.commits += 1
            self._uncommitted = 0
        self._committed_at_s = time.monotonic()
        self._summary.write_s += self._committed_at_s - began_s

    def _append(self, result: UnitResult) -> None:
        began_s = time.monotonic()
        rows = unit_rows(result, self._recipes)
        refused = [row.outcome for row in rows if row.outcome.status == "quarantined"]
        refused = [outcome for outcome in refused if outcome.reason == "encoder_failed"]
        if len(refused) > 1 and len(refused) == len(rows) and not self._summary.statuses:
            raise EncoderFailsEverywhere(
                f"the encoder refused all {len(rows)} videos of the first unit, so it is the encoder that is broken; "
                f"nothing was stored; it said: {refused[0].detail}"
            )
        self._writer.append(rows, result.unit.recipes, replace=result.unit.replace)
        for row in rows:
            num_rows = sum(len(made.start_s) for made in row.features.values())
            self._summary.add_video(row.outcome, row.duration_s, num_rows)
        self._uncommitted += len(rows)
        self._summary.write_s += time.monotonic() - began_s
