"""TriDet's layer against a slow loop over its formula, and its laws."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.models.tri_det.sgp import GROUPS, SgpBlock


def seeded(stride: int, drop_path: float | None = None, kernel: int = 1) -> SgpBlock:
    torch.manual_seed(0)
    block = SgpBlock(32, stride=stride, hidden=24, drop_path=drop_path, kernel=kernel).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return block


def slow(block: SgpBlock, x_TC: Tensor) -> Tensor:
    """One item without padding, channel by channel as the paper has it; torch's own group norm."""
    if block.stride == 2:
        x_TC = torch.stack([x_TC[max(0, t - 1) : t + 2].amax(dim=0) for t in range(0, len(x_TC), 2)])
    n_TC = F.layer_norm(x_TC, (32,), block.norm.weight, block.norm.bias)

    def conv(layer: nn.Conv1d, values_TC: Tensor) -> Tensor:
        return F.conv1d(values_TC.T[None], layer.weight, layer.bias, padding=layer.padding, groups=32)[0].T

    whole_1C = conv(block.whole, n_TC.mean(dim=0, keepdim=True)).relu()
    y_TC = conv(block.fc, n_TC) * whole_1C + (conv(block.near, n_TC) + conv(block.far, n_TC)) * conv(block.psi, n_TC)
    scales = [1.0 if path is None else path.scale for path in (block.path, block.inner_path)]
    y_TC = x_TC + scales[0] * (y_TC + n_TC)
    g_TC = F.group_norm(y_TC.T[None], GROUPS, block.group_scale, block.group_shift)[0].T
    out_TC: Tensor = y_TC + scales[1] * block.outer(F.gelu(block.inner(g_TC)))
    return out_TC


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("drop_path", [None, 0.1])
def test_block_padded_equals_slow_loop_of_each_item(stride: int, drop_path: float | None) -> None:
    block = seeded(stride, drop_path)
    lengths = (16, 10, 2)
    mask_BT = torch.arange(16) < torch.tensor(lengths)[:, None]
    x_BTC = torch.randn(3, 16, 32).abs() * mask_BT[..., None]  # >= 0: pooling sees zeros behind the end
    with torch.no_grad():
        got = block(x_BTC, mask_BT)
        for b, length in enumerate(lengths):
            want = slow(block, x_BTC[b, :length])
            torch.testing.assert_close(got[b, : len(want)], want, rtol=1e-4, atol=1e-4)
            assert not got[b, len(want) :].any()


def test_far_kernel_is_published() -> None:
    assert SgpBlock(32).far.kernel_size == (11,)  # kernel 1, reach 5: round(2 x 5) made odd
    assert SgpBlock(32, kernel=15, reach=1.3).far.kernel_size == (21,)
    assert SgpBlock(32, kernel=3, reach=1.25).far.kernel_size == (5,)


def test_block_every_factor_gets_a_gradient_at_the_start() -> None:
    """At the published start of zeros none of these would."""
    torch.manual_seed(1)
    block = SgpBlock(32, drop_path=None)
    x, mask = torch.randn(2, 8, 32), torch.ones(2, 8, dtype=torch.bool)
    block(x, mask).square().sum().backward()
    for layer in (block.psi, block.near, block.far, block.fc, block.whole):
        assert layer.weight.grad is not None
        assert layer.weight.grad.abs().sum() > 0


def test_block_item_without_any_real_segment_is_zero() -> None:
    block = seeded(1)
    out = block(torch.zeros(1, 4, 32), torch.zeros(1, 4, dtype=torch.bool))
    assert not out.any()
