"""Scored events of one item as columns: what a dense head finds, before and after suppression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """N events.

    Attributes:
        segments_N2: float64 start and end: grid units (see `heads.dense.points`), or seconds after
            `heads.dense.detect.in_seconds`.
        scores_N: float32 in [0, 1].
        labels_N: int64 classes.
    """

    segments_N2: NDArray[np.float64]
    scores_N: NDArray[np.float32]
    labels_N: NDArray[np.int64]

    def __post_init__(self) -> None:
        count = len(self.scores_N)
        if self.segments_N2.shape != (count, 2) or self.labels_N.shape != (count,):
            raise ValueError(
                f"candidates need columns of one length, got segments {self.segments_N2.shape}, scores "
                f"{self.scores_N.shape}, labels {self.labels_N.shape}"
            )

    def __len__(self) -> int:
        return len(self.scores_N)
