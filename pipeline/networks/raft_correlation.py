"""All-pairs correlation volume at four scales, and its lookup around a moving position.

Shape suffixes: B pairs, C channels, h w positions, N = B h w positions of the first frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS, RADIUS = 4, 4


def pyramid(first_BChw: Tensor, second_BChw: Tensor) -> list[Tensor]:
    """Dot products of the features at all positions of the first and the second frames, over the root of their number.

    Returns:
        Four float32 (N, h / 2^k, w / 2^k), rounded down: level k holds means of 2^k x 2^k positions of the second.
    """
    batch, channels, height, width = first_BChw.shape
    first_BCN, second_BCN = first_BChw.float().flatten(2), second_BChw.float().flatten(2)
    with torch.autocast(first_BChw.device.type, enabled=False):
        products = first_BCN.transpose(1, 2) @ second_BCN / math.sqrt(channels)
        level = products.view(batch * height * width, 1, height, width)
        levels = [level]
        for _ in range(LEVELS - 1):
            level = F.avg_pool2d(level, 2)
            levels.append(level)
    return [level[:, 0] for level in levels]


def look_up(levels: Sequence[Tensor], at_B2hw: Tensor) -> Tensor:
    """The 9 x 9 values around each position's current partner, at each level: (B, 324, h, w).

    Channels count levels, then x - 4 .. x + 4, then y - 4 .. y + 4. Between positions values are bilinear, outside 0.

    Args:
        levels: of `pyramid`.
        at_B2hw: x and y of the partner in positions, float32 (B, 2, h, w).
    """
    batch, _, height, width = at_B2hw.shape
    at_N2 = at_B2hw.permute(0, 2, 3, 1).reshape(-1, 2)
    windows = [_window(level, at_N2 / 2**number) for number, level in enumerate(levels)]
    side = 2 * RADIUS + 1
    return torch.stack(windows, dim=1).view(batch, height, width, LEVELS * side * side).permute(0, 3, 1, 2)


def _window(level_Nhw: Tensor, at_N2: Tensor) -> Tensor:
    """(N, 9, 9), x then y: offsets are whole, so a position's 81 points have one fraction and share 10 x 10 values."""
    count, height, width = level_Nhw.shape
    # Where all 100 values lie outside, how far outside does not matter.
    limit = at_N2.new_tensor([width + RADIUS + 1, height + RADIUS + 1])
    low_N2 = at_N2.floor()
    share_N2 = at_N2 - low_N2
    low_N2 = torch.minimum(low_N2.clamp(min=-RADIUS - 2), limit).long()
    offsets = torch.arange(-RADIUS, RADIUS + 2, device=at_N2.device)
    x_NX, y_NY = (low_N2[:, axis, None] + offsets for axis in (0, 1))
    inside_x, inside_y = (x_NX >= 0) & (x_NX < width), (y_NY >= 0) & (y_NY < height)
    index = y_NY.clamp(0, height - 1)[:, None, :] * width + x_NX.clamp(0, width - 1)[:, :, None]
    values = level_Nhw.reshape(count, -1).gather(1, index.flatten(1)).view_as(index)
    values = values * (inside_x[:, :, None] & inside_y[:, None, :])
    x_share, y_share = share_N2[:, 0, None, None], share_N2[:, 1, None, None]
    values = values[:, :-1] * (1 - x_share) + values[:, 1:] * x_share
    return values[:, :, :-1] * (1 - y_share) + values[:, :, 1:] * y_share
