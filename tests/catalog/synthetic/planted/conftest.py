"""Annotations to plant signals in: made-up ones in each layout, and the real ones where they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog import dataset as registry
from catalog.dataset import Dataset
from catalog.datasets import synthetic

REAL = {"ave": "ave", "ovavebench": "ovavel", "unav100": "unav100"}  # layout to folder


@pytest.fixture(scope="session")
def within() -> Callable[[int, int, float], bool]:
    """Whether a count of trials lies within four standard deviations of a binomial one (1 of 16,000 does not)."""

    def holds(count: int, trials: int, share: float) -> bool:
        return abs(count - trials * share) <= 4 * math.sqrt(trials * share * (1 - share))

    return holds


@pytest.fixture(scope="session")
def made_up() -> Callable[[str], Dataset]:
    """A layout's data set of 300 made-up videos, as its own reader would give it."""
    found: dict[str, Dataset] = {}

    def of(layout: str) -> Dataset:
        if layout not in found:
            settings = synthetic.Settings(layout=layout, videos=300, seed=3)
            found[layout] = synthetic.plan(settings, "nowhere").dataset
        return found[layout]

    return of


@pytest.fixture(scope="session")
def real(shared: Path) -> Callable[[str], Dataset]:
    """A layout's official annotations."""
    found: dict[str, Dataset] = {}

    def of(layout: str) -> Dataset:
        if layout not in found:
            found[layout] = registry.load(layout, shared / "data" / "annotations" / REAL[layout])
        return found[layout]

    return of
