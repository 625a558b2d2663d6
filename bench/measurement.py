"""One measured figure beside its limit, and how figures are taken."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_BENCH = Path(__file__).parent
_NOT_BENCHES = {"__init__", "encoder_report", "measurement", "media", "random_weights"}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A figure.

    Attributes:
        what: what was measured, against what.
        value: the figure.
        unit: "x" for ratios.
        at_most, at_least: the limit it is held to; at most one of them.
        detail: the two sides of a ratio, sizes, counts.
    """

    what: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    detail: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the limit holds; None where there is none."""
        if self.at_most is not None:
            return self.value <= self.at_most
        if self.at_least is not None:
            return self.value >= self.at_least
        return None

    @property
    def limit(self) -> str:
        """The limit as text."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g} {self.unit}"
        return f"≥ {self.at_least:g} {self.unit}" if self.at_least is not None else ""


def names() -> list[str]:
    """The benches there are, by file name."""
    return sorted(path.stem for path in _BENCH.glob("*.py") if path.stem not in _NOT_BENCHES)


def about(name: str) -> str:
    """What the bench `name` measures."""
    return str(importlib.import_module(f"bench.{name}").ABOUT)


def run(name: str, folder: Path) -> list[Measurement]:
    """Runs the bench `name`, which may write into `folder`."""
    measured: list[Measurement] = importlib.import_module(f"bench.{name}").measure(folder)
    return measured


def taking_turns(rounds: int, *sides: Callable[[], object]) -> list[float]:
    """Median wall-clock seconds of each side over `rounds`, run alternately after one unmeasured round of each."""
    for side in sides:
        side()
    spent_s: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for times, side in zip(spent_s, sides, strict=True):
            began_s = time.perf_counter()
            side()
            times.append(time.perf_counter() - began_s)
    return [statistics.median(times) for times in spent_s]
