"""RAFT's all-pairs correlation volume, against reading it point by point."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.networks.raft_correlation import look_up, pyramid


def test_look_up_equals_bilinear_reading_point_by_point() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 2, 6, 8, 9, generator=generator)
    # Between positions, on them, across every edge and far outside.
    at = 30 * torch.rand(2, 2, 8, 9, generator=generator) - 10
    at[0, :, 0, :4] = torch.tensor([[3.0, 0.0, 8.0, -7e5], [2.0, 7.0, -1.0, 1e6]])
    levels = pyramid(first, second)
    assert [tuple(level.shape) for level in levels] == [(144, 8, 9), (144, 4, 4), (144, 2, 2), (144, 1, 1)]
    # One level's value is the likeness with a mean of the second's features.
    small = F.avg_pool2d(second, 4)
    want = (first[1, :, 5, 7] * small[1, :, 1, 0]).sum() / 6**0.5
    torch.testing.assert_close(levels[2].view(2, 8, 9, 2, 2)[1, 5, 7, 1, 0], want)
    made = look_up(levels, at)
    assert made.shape == (2, 324, 8, 9)
    for batch, y, x in ((0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 3), (0, 3, 4), (1, 7, 8), (1, 2, 0), (1, 6, 5)):
        level_hw = [level.view(2, 8, 9, *level.shape[1:])[batch, y, x] for level in levels]
        px, py = at[batch, :, y, x].tolist()
        want = torch.tensor(
            [
                bilinear(level, px / 2**k + right, py / 2**k + down)
                for k, level in enumerate(level_hw)
                for right in range(-4, 5)
                for down in range(-4, 5)
            ]
        )
        torch.testing.assert_close(made[batch, :, y, x], want, rtol=0, atol=1e-5)


def bilinear(level: Tensor, x: float, y: float) -> float:
    total = 0.0
    for row in range(level.shape[0]):
        for column in range(level.shape[1]):
            total += max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row)) * float(level[row, column])
    return total
