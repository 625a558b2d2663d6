"""Attention over neighbours against published outputs, a slow loop of its formula, and its laws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heads.blocks.window_attention import WindowAttention, window_attention

CASES = ("w4_even", "w5", "w7", "w9", "w19", "w5_ds2", "w7_relpe")


def golden_case(shared: Path, case: str) -> tuple[dict[str, Tensor], dict[str, int]]:
    folder = shared / "parity" / "heads" / "attention"
    with np.load(folder / "attention.npz", allow_pickle=False) as arrays:
        golden = {k.removeprefix(f"local/{case}/"): torch.from_numpy(arrays[k]) for k in arrays if f"/{case}/" in k}
    settings = {one["tag"]: one for one in json.loads((folder / "attention.json").read_text())}
    return golden, settings[case]


@pytest.mark.parametrize("case", CASES)
def test_window_attention_published_weights_equal_golden(shared: Path, case: str) -> None:
    """The golden's module convolves and normalises its input first; that is done here in the published layout."""
    golden, settings = golden_case(shared, case)
    stride, width = settings.get("n_qx_stride", 1), golden["x"].shape[1]
    mask_BT = golden["mask"][:, 0, ::stride]

    def before(name: str) -> Tensor:
        weight = golden[f"w/{name}_conv.conv.weight"]
        x_BCT = F.conv1d(golden["x"], weight, stride=stride, padding=1, groups=width) * mask_BT[:, None]
        scale, shift = (golden[f"w/{name}_norm.{part}"].flatten() for part in ("weight", "bias"))
        return F.layer_norm(x_BCT.transpose(1, 2), (width,), scale, shift)

    relative = "w/rel_pe" in golden
    block = WindowAttention(
        width, num_heads=settings["n_head"], window=settings["window_size"], relative=relative
    ).requires_grad_(False)
    weights = {
        f"{ours}.{part}": golden[f"w/{theirs}.{part}"].flatten(1 if part == "weight" else 0)
        for ours, theirs in (("query", "query"), ("key", "key"), ("value", "value"), ("output", "proj"))
        for part in ("weight", "bias")
    }
    if relative:
        weights["bias_HW"] = golden["w/rel_pe"][0, 0]
    block.load_state_dict(weights)
    got_BTC = block(before("query"), before("key"), before("value"), mask_BT)
    torch.testing.assert_close(got_BTC.transpose(1, 2), golden["y"], rtol=1e-4, atol=5e-5)
    assert torch.equal(mask_BT, golden["out_mask"][:, 0])


def attend(qkv: Tensor, mask_BT: Tensor, **settings: Any) -> Tensor:
    query_BTE, key_BTE, value_BTE = qkv
    return window_attention(query_BTE, key_BTE, value_BTE, mask_BT, **settings)


def slow(qkv: Tensor, mask_BT: Tensor, heads: int, reach: int, bias_HW: Tensor) -> Tensor:
    query_BTE, key_BTE, value_BTE = qkv
    out = torch.zeros_like(query_BTE)
    batch, count, width = query_BTE.shape
    size = width // heads
    for b in range(batch):
        for t in range(count):
            near = [s for s in range(count) if abs(s - t) <= reach and mask_BT[b, s]]
            if not mask_BT[b, t]:
                continue
            for h in range(heads):
                part = slice(h * size, (h + 1) * size)
                logits = torch.stack(
                    [query_BTE[b, t, part] @ key_BTE[b, s, part] / size**0.5 + bias_HW[h, s - t + reach] for s in near]
                )
                out[b, t, part] = torch.einsum("s,sd->d", logits.softmax(0), value_BTE[b, near][:, part])
    return out


@pytest.mark.parametrize(("count", "window"), [(1, 5), (5, 19), (33, 4), (64, 1), (97, 9), (70, 36), (65, 64)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_window_attention_equals_slow_loop(count: int, window: int, with_bias: bool) -> None:
    torch.manual_seed(0)
    reach = window // 2
    x = torch.randn(3, 2, count, 8, dtype=torch.float64)
    mask_BT = torch.rand(2, count) < 0.7
    bias_HW = torch.randn(2, 2 * reach + 1, dtype=torch.float64) * with_bias
    got = attend(x, mask_BT, num_heads=2, window=window, bias_HW=bias_HW if with_bias else None)
    torch.testing.assert_close(got, slow(x, mask_BT, 2, reach, bias_HW))


def test_window_attention_without_window_equals_window_over_all() -> None:
    torch.manual_seed(1)
    x, mask_BT = torch.randn(3, 2, 90, 8), torch.rand(2, 90) < 0.7
    torch.testing.assert_close(
        attend(x, mask_BT, num_heads=2, window=None), attend(x, mask_BT, num_heads=2, window=180)
    )


@pytest.mark.parametrize("window", [None, 4, 19])
def test_window_attention_padding_and_order_of_items_change_nothing(window: int | None) -> None:
    torch.manual_seed(2)
    x, mask_BT = torch.randn(3, 3, 45, 8), torch.arange(45) < torch.tensor([[45], [20], [1]])
    plain = attend(x, mask_BT, num_heads=2, window=window)
    longer = F.pad(x, (0, 0, 0, 50), value=7.0)
    padded = attend(longer, F.pad(mask_BT, (0, 50)), num_heads=2, window=window)
    torch.testing.assert_close(padded[:, :45], plain, rtol=1e-5, atol=1e-6)
    assert not padded[:, 45:].any()
    turned = attend(x.flip(1), mask_BT.flip(0), num_heads=2, window=window)
    torch.testing.assert_close(turned.flip(0), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", [None, 9])
def test_window_attention_gradients_pass_the_mask_only(window: int | None) -> None:
    torch.manual_seed(3)
    x = torch.randn(3, 2, 70, 4, dtype=torch.float64, requires_grad=True)
    mask_BT = torch.arange(70) < torch.tensor([[70], [0]])  # the second item has nothing real at all
    out = attend(x, mask_BT, num_heads=2, window=window)
    assert torch.isfinite(out).all()
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    assert torch.isfinite(gradient).all()
    assert gradient[:, 0].abs().sum() > 0
    assert not gradient[:, 1].any()


def test_window_attention_never_makes_a_square_of_the_length() -> None:
    """2000 times the length of a video: a T x T matrix would take 160 GB."""
    x, mask_BT = torch.randn(3, 1, 200_000, 4), torch.ones(1, 200_000, dtype=torch.bool)
    assert attend(x, mask_BT, num_heads=1, window=5).shape == (1, 200_000, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": 3, "window": 5}, "multiple of num_heads"),
        ({"num_heads": 2, "window": 0}, "at least 1"),
        ({"num_heads": 2, "window": None, "bias_HW": torch.zeros(2, 5)}, "a bias needs a window"),
        ({"num_heads": 2, "window": 7, "bias_HW": torch.zeros(2, 5)}, r"got \(2, 5\)"),
    ],
)
def test_window_attention_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attend(torch.zeros(3, 1, 6, 8), torch.ones(1, 6, dtype=torch.bool), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"num_heads": 3}, "multiple"), ({"num_heads": 2, "relative": True}, "needs a window")],
)
def test_window_attention_module_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowAttention(8, **settings)
