"""Convolution over time, sinusoid and residual branches against published outputs, slow loops and their laws."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.blocks.temporal_conv import INITIAL_SCALE, AffineDropPath, ConvStack, MaskedConv, pooled, sinusoid, strided


def golden(shared: Path, name: str) -> Tensor:
    with np.load(shared / "parity" / "heads" / "attention" / "attention.npz", allow_pickle=False) as arrays:
        return torch.from_numpy(arrays[name])


def test_layer_norm_of_channels_last_equals_golden(shared: Path) -> None:
    norm = nn.LayerNorm(16)
    norm.load_state_dict({part: golden(shared, f"ln/w/{part}").flatten() for part in ("weight", "bias")})
    got = norm(golden(shared, "ln/x").transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(got, golden(shared, "ln/y"), rtol=1e-4, atol=5e-5)


def test_sinusoid_equals_golden(shared: Path) -> None:
    published_CT = golden(shared, "posenc/T24_C16")[0]
    torch.testing.assert_close(sinusoid(24, 16).T, published_CT / 16**0.5, rtol=1e-5, atol=1e-6)


def test_sinusoid_odd_width_and_far_places_equal_formula() -> None:
    got = sinusoid(3000, 7)
    assert got[2999, 4].item() == pytest.approx(math.sin(2999 / 10000 ** (4 / 7)) / 7**0.5, abs=1e-6)
    assert got[2999, 5].item() == pytest.approx(math.cos(2999 / 10000 ** (4 / 7)) / 7**0.5, abs=1e-6)
    assert torch.equal(sinusoid(50, 7), got[:50])


@pytest.mark.parametrize(("kernel", "stride", "groups"), [(3, 1, 1), (1, 1, 1), (5, 2, 1), (3, 2, 4), (3, 1, 4)])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_masked_conv_equals_slow_loop(kernel: int, stride: int, groups: int, count: int) -> None:
    torch.manual_seed(0)
    conv = MaskedConv(4, 8, kernel, stride=stride, groups=groups)
    nn.init.normal_(conv.conv.bias)  # type: ignore[arg-type]  # there is one
    mask_BT = torch.rand(2, count) < 0.8
    x_BTC = torch.randn(2, count, 4) * mask_BT[..., None]
    with torch.no_grad():
        got = conv(x_BTC, mask_BT)
        weight_OIK, bias_O = conv.conv.weight, conv.conv.bias
        assert bias_O is not None
        for b in range(2):
            for i, t in enumerate(range(0, count, stride)):
                for o in range(8):
                    first = o // (8 // groups) * (4 // groups)
                    want = bias_O[o].clone()
                    for k in range(kernel):
                        s = t + k - kernel // 2
                        if 0 <= s < count:
                            want += weight_OIK[o, :, k] @ x_BTC[b, s, first : first + 4 // groups]
                    want = want * mask_BT[b, t]
                    torch.testing.assert_close(got[b, i, o], want, rtol=1e-4, atol=1e-5)
    assert got.shape[1] == strided(mask_BT, stride).shape[1]


def test_masked_conv_padding_changes_nothing() -> None:
    torch.manual_seed(1)
    conv = MaskedConv(4, 6)
    nn.init.ones_(conv.conv.bias)  # type: ignore[arg-type]  # there is one
    x, mask_BT = torch.randn(2, 8, 4), torch.ones(2, 8, dtype=torch.bool)
    padded = conv(F.pad(x, (0, 0, 0, 5)), F.pad(mask_BT, (0, 5)))
    torch.testing.assert_close(padded[:, :8], conv(x, mask_BT), rtol=1e-6, atol=1e-6)
    assert not padded[:, 8:].any()


@pytest.mark.parametrize("bad", [{"kernel": 2}, {"stride": 0}, {"kernel": -1}])
def test_masked_conv_bad_sizes_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="an odd kernel"):
        MaskedConv(4, 4, **bad)  # type: ignore[arg-type]  # bad on purpose


def test_conv_stack_padding_changes_nothing_whatever_the_norms_bias() -> None:
    torch.manual_seed(4)
    stack = ConvStack(4, 6, layers=3)
    for norm in stack.norms:
        nn.init.normal_(norm.bias)  # type: ignore[arg-type]  # a norm has one
    x, mask_BT = torch.randn(2, 8, 4), torch.ones(2, 8, dtype=torch.bool)
    padded = stack(F.pad(x, (0, 0, 0, 5)), F.pad(mask_BT, (0, 5)))
    torch.testing.assert_close(padded[:, :8], stack(x, mask_BT), rtol=1e-5, atol=1e-6)
    assert not padded[:, 8:].any()


def test_pooled_equals_slow_loop() -> None:
    torch.manual_seed(2)
    x = torch.randn(2, 10, 3)
    got = pooled(x, 2)
    for i in range(5):
        torch.testing.assert_close(got[:, i], x[:, max(0, 2 * i - 1) : 2 * i + 2].amax(dim=1))
    assert pooled(x, 1) is x


def test_affine_drop_path_in_evaluation_adds_the_scaled_branch() -> None:
    path = AffineDropPath(3).eval()
    x, y = torch.randn(2, 2, 5, 3).unbind()
    torch.testing.assert_close(path(x, y), x + INITIAL_SCALE * y)


def test_affine_drop_path_in_training_leaves_out_items_and_keeps_the_mean() -> None:
    torch.manual_seed(3)
    path = AffineDropPath(1, 0.25)
    nn.init.ones_(path.scale)
    got_B = path(torch.zeros(4000, 2, 1), torch.ones(4000, 2, 1))
    assert torch.equal(got_B[:, 0], got_B[:, 1])
    assert sorted(set(got_B.flatten().tolist())) == pytest.approx([0, 4 / 3])
    # Four standard deviations of the mean of 4000 draws.
    assert got_B.mean().item() == pytest.approx(1, abs=4 * (1 / 3 / 4000) ** 0.5)


def test_affine_drop_path_bad_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"drop in \[0, 1\)"):
        AffineDropPath(3, 1.0)
