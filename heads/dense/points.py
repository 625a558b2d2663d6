"""The points of a temporal pyramid, and which lengths of events each level is for (Zhang et al., ECCV 2022).

Grid units: g = (t - window / 2) / hop seconds, so that point i of the finest level is the middle of segment i. Level l
has a point every 2^l grid units, from 0 on, without half a stride's offset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS = 6

# What the finest level is for ends here; each further level's range is twice as far, the last one's has no
# end (published: 10,000, an hour of such segments).
_FIRST_REACH = 4


@dataclass(frozen=True, kw_only=True)
class Points:
    """P points, level after level, the finest first.

    Attributes:
        time_P: float32 grid units.
        low_P, high_P: float32 grid units: the longer side of an event that the point is for, both ends included.
        stride_P: float32 grid units between the points of its level.
        counts: points of each level.
    """

    time_P: Tensor
    low_P: Tensor
    high_P: Tensor
    stride_P: Tensor
    counts: tuple[int, ...]


def divisor(levels: int) -> int:
    """What the number of segments must be a multiple of."""
    return int(2 ** (levels - 1))


def points(num_segments: int, levels: int = LEVELS, *, device: str | torch.device = "cpu") -> Points:
    """The points of `num_segments` segments.

    Raises:
        ValueError: `num_segments` is no multiple of 2^(levels - 1), or below 1.
    """
    if levels < 1 or num_segments < 1 or num_segments % divisor(levels):
        raise ValueError(f"{levels} levels need segments in a multiple of {divisor(levels)}, got {num_segments}")
    counts = tuple(num_segments // 2**level for level in range(levels))
    times: list[Tensor] = []
    lows: list[Tensor] = []
    highs: list[Tensor] = []
    strides: list[Tensor] = []
    for level, count in enumerate(counts):
        stride = 2**level
        times.append(torch.arange(count, dtype=torch.float32, device=device) * stride)
        low = 0.0 if level == 0 else float(_FIRST_REACH * stride / 2)
        high = math.inf if level == levels - 1 else float(_FIRST_REACH * stride)
        for values, value in ((lows, low), (highs, high), (strides, float(stride))):
            values.append(torch.full((count,), value, device=device))
    return Points(
        time_P=torch.cat(times),
        low_P=torch.cat(lows),
        high_P=torch.cat(highs),
        stride_P=torch.cat(strides),
        counts=counts,
    )
