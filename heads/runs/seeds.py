"""Runs that differ in their seed alone: each metric's values, mean and standard deviation."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heads.runs.record import Numbers

# Numbers of `metrics` that are no measures: equal in every run.
COUNTS = ("items", "items_without_features", "segments", "segments_without_features")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A metric over seeds.

    Attributes:
        values: one a seed, in their order.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a spread needs at least one value")

    @property
    def mean(self) -> float:
        """The arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """The sample's standard deviation (n - 1); None with one value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def spreads(runs: Sequence[Mapping[str, Numbers]]) -> dict[str, dict[str, Spread]]:
    """Split to metric to its spread.

    Args:
        runs: split to metric to number, one a seed.

    Raises:
        ValueError: the runs do not have the same splits and metrics.
    """
    found: dict[str, dict[str, Spread]] = {}
    for split, first in runs[0].items():
        for run in runs:
            if run.keys() != runs[0].keys() or run[split].keys() != first.keys():
                raise ValueError("runs of several seeds must have the same splits and metrics")
        found[split] = {
            name: Spread(values=tuple(float(run[split][name]) for run in runs)) for name in first if name not in COUNTS
        }
    return found
