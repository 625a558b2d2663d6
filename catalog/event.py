"""Events (the truth) and predictions: half-open intervals in seconds with a class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from catalog.grid import need_exact


@dataclass(frozen=True, kw_only=True)
class Event:
    """A true interval `[start_s, end_s)` of class `label`."""

    start_s: Fraction
    end_s: Fraction
    label: str

    def __post_init__(self) -> None:
        need_exact(self, "start_s", "end_s")
        if not 0 <= self.start_s < self.end_s:
            raise ValueError(f"an event needs 0 <= start_s < end_s, got {self}")
        if not self.label:
            raise ValueError(f"an event needs a label, got {self}")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A predicted interval `[start_s, end_s)` of class `label` with its score (higher is surer)."""

    video_id: str
    start_s: float
    end_s: float
    label: str
    score: float

    def __post_init__(self) -> None:
        # A zero-length prediction counts as a hit anywhere under the official UnAV-100 scorer (0/0), so none exist.
        if not all(map(math.isfinite, (self.start_s, self.end_s, self.score))) or not self.start_s < self.end_s:
            raise ValueError(f"a prediction needs finite start_s < end_s and a finite score, got {self}")
