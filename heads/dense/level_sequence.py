"""The levels of a pyramid one behind the other, so that one convolution serves all: one matrix product for all of them.

B items, T points of a level, G places of all levels with the gaps, P points of all levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class LevelSequence:
    """Levels of a pyramid as one sequence, with `gap` zeros between them.

    Args:
        counts: points of each level, the finest first.
        gap: what the kernels over the sequence reach: half of the widest.
    """

    def __init__(self, counts: Sequence[int], gap: int, device: torch.device) -> None:
        self.counts, self.gap = tuple(counts), gap
        starts = [sum(self.counts[:level]) + gap * level for level in range(len(self.counts))]
        # P indices into G.
        self.places_P = torch.cat(
            [torch.arange(start, start + count, device=device) for start, count in zip(starts, counts, strict=True)]
        )

    def joined(self, values: Sequence[Tensor]) -> Tensor:
        """One (B, T, ...) a level to (B, G, ...)."""
        last = len(values) - 1
        return torch.cat(
            [F.pad(x, (0, 0) * (x.ndim - 2) + (0, self.gap if i < last else 0)) for i, x in enumerate(values)], dim=1
        )

    def split(self, x_BGC: Tensor) -> list[Tensor]:
        """(B, G, ...) to one (B, T, ...) a level, without the gaps."""
        last = len(self.counts) - 1
        sizes = [count + (self.gap if i < last else 0) for i, count in enumerate(self.counts)]
        return [x[:, :count] for x, count in zip(torch.split(x_BGC, sizes, dim=1), self.counts, strict=True)]

    def points(self, x_BGC: Tensor) -> Tensor:
        """(B, G, ...) to (B, P, ...)."""
        return x_BGC.index_select(1, self.places_P)
