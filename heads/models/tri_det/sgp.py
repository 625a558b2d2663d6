"""TriDet's layer instead of attention: each segment beside what is near and what the whole item holds.

    n = norm(x)
    y = x + scale x (n + fc(n) relu(g(mean n)) + (near(n) + far(n)) psi(n))
    z = y + scale x W2 gelu(W1 group norm(y))

All maps but the last two work on each channel for itself. Halving blocks take the greatest of three segments around
every second one first. Blocks at full rate have no scale.

Mean and group norm are over the real segments, so that padding changes nothing; the published code takes padding, too.
Its default start of all convolutions at exactly 0 leaves each factor of both products without a gradient for ever; they
start as its config for ActivityNet says, from a normal distribution of 0.2.

B items, T segments, S = T / stride, C width, J groups of channels.

Source: Shi et al., CVPR 2023 (TriDet), equations 2 to 4, and its published code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.blocks.temporal_conv import AffineDropPath, over_time, pooled, strided

# Published: of the norm before the linear maps, and the start above.
GROUPS = 16
_SPREAD = 0.2
_EPS = 1e-5


class SgpBlock(nn.Module):
    """(B, T, C) to (B, S, C).

    Args:
        width: C, a multiple of 16.
        kernel: of psi and of what is near, odd.
        reach: how many times farther the far kernel sees.
        stride: 2 halves the length.
        hidden: of the two linear maps.
        drop_path: see `AffineDropPath`; None adds both branches as they are.
    """

    def __init__(
        self,
        width: int,
        *,
        kernel: int = 1,
        reach: float = 5.0,
        stride: int = 1,
        hidden: int = 768,
        drop_path: float | None = 0.1,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.norm = nn.LayerNorm(width)
        # One more than the near kernel, so that both are never the same; made odd.
        far = round((kernel + 1) * reach) // 2 * 2 + 1
        self.psi, self.near = _each_channel(width, kernel), _each_channel(width, kernel)
        self.far = _each_channel(width, far)
        self.fc, self.whole = _each_channel(width, 1), _each_channel(width, 1)
        self.group_scale, self.group_shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.inner, self.outer = nn.Linear(width, hidden), nn.Linear(hidden, width)
        for linear in (self.inner, self.outer):
            nn.init.zeros_(linear.bias)
        self.path: AffineDropPath | None = None
        self.inner_path: AffineDropPath | None = None
        if drop_path is not None:
            self.path, self.inner_path = AffineDropPath(width, drop_path), AffineDropPath(width, drop_path)

    def forward(self, x_BTC: Tensor, mask_BT: Tensor) -> Tensor:
        """The block's output, (B, S, C), zero outside `strided(mask_BT, stride)`.

        Args:
            x_BTC: zero outside the mask.
            mask_BT: bool, the real segments.
        """
        real_BS1 = strided(mask_BT, self.stride)[..., None]
        x_BSC = pooled(x_BTC, self.stride) * real_BS1
        n_BSC = self.norm(x_BSC) * real_BS1
        mean_B1C = n_BSC.sum(dim=1, keepdim=True) / real_BS1.sum(dim=1, keepdim=True).clamp(min=1)
        whole_B1C = F.relu(over_time(mean_B1C, self.whole))
        y_BSC = n_BSC + over_time(n_BSC, self.fc) * whole_B1C
        y_BSC = y_BSC + (over_time(n_BSC, self.near) + over_time(n_BSC, self.far)) * over_time(n_BSC, self.psi)
        y_BSC = _added(self.path, x_BSC, y_BSC) * real_BS1
        inner_BSH = F.gelu(self.inner(self._group_norm(y_BSC, real_BS1)))
        return _added(self.inner_path, y_BSC, self.outer(inner_BSH)) * real_BS1

    def _group_norm(self, y_BSC: Tensor, real_BS1: Tensor) -> Tensor:
        """Over time and the channels of a group, of what is real; what is not is zero in `y_BSC`."""
        y_BSJC = y_BSC.reshape(*y_BSC.shape[:2], GROUPS, -1)
        count_B111 = real_BS1.sum(dim=1).clamp(min=1)[:, :, None, None] * y_BSJC.shape[-1]
        mean_B1J1 = y_BSJC.sum(dim=(1, 3), keepdim=True) / count_B111
        apart_BSJC = (y_BSJC - mean_B1J1) * real_BS1[..., None]
        variance_B1J1 = apart_BSJC.square().sum(dim=(1, 3), keepdim=True) / count_B111
        normed_BSC = (apart_BSJC / (variance_B1J1 + _EPS).sqrt()).flatten(2)
        return normed_BSC * self.group_scale + self.group_shift


def _each_channel(width: int, kernel: int) -> nn.Conv1d:
    conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
    nn.init.normal_(conv.weight, std=_SPREAD)
    assert conv.bias is not None, "made with one"
    nn.init.zeros_(conv.bias)
    return conv


def _added(path: AffineDropPath | None, residual_BSC: Tensor, branch_BSC: Tensor) -> Tensor:
    if path is None:
        return residual_BSC + branch_BSC
    added_BSC: Tensor = path(residual_BSC, branch_BSC)
    return added_BSC
