"""A pyramid of blocks that halve, against its levels by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heads.dense.halving_pyramid import HalvingPyramid


class Every(nn.Module):
    """Takes every `stride`-th segment and adds a number."""

    def __init__(self, stride: int, more: float) -> None:
        super().__init__()
        self.stride, self.more = stride, more

    def forward(self, x_BTC: Tensor, mask_BT: Tensor) -> Tensor:
        assert mask_BT.shape == x_BTC.shape[:2]
        return (x_BTC + self.more * mask_BT[..., None])[:, :: self.stride]


def test_levels_are_those_by_hand() -> None:
    torch.manual_seed(0)
    pyramid = HalvingPyramid(4, blocks=[Every(1, 1.0), Every(1, 2.0)], halving=[Every(2, 4.0), Every(2, 8.0)])
    mask = torch.arange(8) < torch.tensor([[8], [3]])
    x = torch.randn(2, 8, 4) * mask[..., None]
    levels, masks = pyramid(x, mask)
    assert [one.sum(dim=1).tolist() for one in masks] == [[8, 3], [4, 2], [2, 1]]
    for level, (stride, more) in enumerate(((1, 3.0), (2, 7.0), (4, 15.0))):
        want = torch.zeros(2, 8 // stride, 4)
        for b in range(2):
            for t in range(0, 8, stride):
                if mask[b, t]:
                    row = x[b, t] + more
                    want[b, t // stride] = (row - row.mean()) / (row.var(correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(levels[level], want, rtol=1e-4, atol=1e-5)
