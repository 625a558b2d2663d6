"""Blocks of ActionFormer and UnAV against published outputs, and their laws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heads.blocks.conv_transformer import ConvAttention, ConvTransformerBlock

# The golden's names and ours, from the longest on.
NAMES = {
    "ln11": "norm",
    "ln12": "query_norm",
    "ln1": "norm",
    "ln2": "inner_norm",
    "mlp.0": "inner",
    "mlp.3": "outer",
    "drop_path_attn": "attention_path",
    "drop_path_mlp": "inner_path",
    **{
        f"attn.{part}{suffix}": f"attention.{part}{suffix}"
        for part in ("query", "key", "value")
        for suffix in ("_conv.conv", "_norm")
    },
    **{f"attn.{part}": f"attention.attention.{part}" for part in ("query", "key", "value")},
    "attn.proj": "attention.attention.output",
}


def golden_case(shared: Path, kind: str, case: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    folder = shared / "parity" / "heads" / "attention"
    with np.load(folder / "attention.npz", allow_pickle=False) as arrays:
        golden = {
            k.removeprefix(f"{kind}/{case}/"): torch.from_numpy(arrays[k])
            for k in arrays
            if k.startswith(f"{kind}/{case}/")
        }
    settings = {one["tag"]: one for one in json.loads((folder / "attention.json").read_text())}
    return golden, settings[case]


def ours(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published weights under our names and shapes: an axis of length 1 is left to the convolutions only."""
    state = {}
    for key, value in golden.items():
        if key.startswith("w/"):
            name, _, part = key[2:].rpartition(".")
            state[f"{NAMES[name]}.{part}"] = value if name.endswith(".conv") else value.squeeze(-1)
    return {key: value.squeeze(0) if value.ndim == 2 and len(value) == 1 else value for key, value in state.items()}


@pytest.mark.parametrize("case", ["block_w5", "block_w5_ds2", "block_global"])
def test_self_block_published_weights_equal_golden(shared: Path, case: str) -> None:
    golden, settings = golden_case(shared, "afblock", case)
    block = ConvTransformerBlock(
        golden["x"].shape[1],
        num_heads=settings["n_head"],
        stride=settings["n_ds_strides"][0],
        window=settings["win"] if settings["win"] > 0 else None,
    ).eval()
    block.published_padding = True
    block.load_state_dict(ours(golden))
    with torch.no_grad():
        got_BSC = block(golden["x"].transpose(1, 2), golden["mask"][:, 0])
    torch.testing.assert_close(got_BSC.transpose(1, 2), golden["y"], rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("case", ["cross", "cross_ds2"])
def test_cross_block_published_weights_equal_golden(shared: Path, case: str) -> None:
    golden, settings = golden_case(shared, "unavblock", case)
    block = ConvTransformerBlock(
        golden["x2_query"].shape[1],
        num_heads=settings["n_head"],
        stride=settings["n_ds_strides"][0],
        cross=True,
    ).eval()
    block.published_padding = True
    block.load_state_dict(ours(golden))
    with torch.no_grad():
        got_BSC = block(golden["x1_kv_skip"].transpose(1, 2), golden["mask"][:, 0], golden["x2_query"].transpose(1, 2))
    torch.testing.assert_close(got_BSC.transpose(1, 2), golden["y"], rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("case", ["block_w5", "block_w5_ds2", "block_global"])
def test_self_block_item_without_padding_equals_golden_without_its_padding(shared: Path, case: str) -> None:
    """Of an item that fills the sequence both forms of padding give the published numbers."""
    golden, settings = golden_case(shared, "afblock", case)
    block = ConvTransformerBlock(
        golden["x"].shape[1],
        num_heads=settings["n_head"],
        stride=settings["n_ds_strides"][0],
        window=settings["win"] if settings["win"] > 0 else None,
    ).eval()
    block.load_state_dict(ours(golden))
    full_B = golden["mask"][:, 0].all(dim=1)
    assert full_B.any()
    with torch.no_grad():
        got_BSC = block(golden["x"][full_B].transpose(1, 2), golden["mask"][full_B, 0])
    torch.testing.assert_close(got_BSC.transpose(1, 2), golden["y"][full_B], rtol=1e-4, atol=5e-5)


def seeded(**settings: Any) -> ConvTransformerBlock:
    """A block in which nothing is near its start: scales of 1e-4 would hide what a branch does wrong."""
    torch.manual_seed(0)
    block = ConvTransformerBlock(16, **settings).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return block


@pytest.mark.parametrize(("stride", "window"), [(1, None), (2, None), (1, 5), (2, 19)])
@pytest.mark.parametrize("cross", [False, True])
def test_block_padding_and_order_of_items_change_nothing(stride: int, window: int | None, cross: bool) -> None:
    block = seeded(stride=stride, window=window, cross=cross)
    mask_BT = torch.arange(44) < torch.tensor([[44], [21], [1]])
    x, other = (torch.randn(2, 3, 44, 16) * mask_BT[..., None]).unbind()
    query = other if cross else None
    with torch.no_grad():
        plain = block(x, mask_BT, query)
        longer = F.pad(other, (0, 0, 0, 20)) if cross else None
        padded = block(F.pad(x, (0, 0, 0, 20)), F.pad(mask_BT, (0, 20)), longer)
        turned = block(x.flip(0), mask_BT.flip(0), query.flip(0) if query is not None else None)
    torch.testing.assert_close(padded[:, : 44 // stride], plain, rtol=1e-5, atol=1e-5)
    assert not padded[:, 44 // stride :].any()
    assert not plain[~mask_BT[:, ::stride]].any()
    torch.testing.assert_close(turned.flip(0), plain, rtol=1e-5, atol=1e-5)


def test_block_drop_path_leaves_out_whole_items_in_training_only() -> None:
    block = seeded(drop_path=0.5)
    x, mask_BT = torch.randn(1, 6, 16).expand(64, -1, -1), torch.ones(64, 6, dtype=torch.bool)
    torch.manual_seed(4)
    with torch.no_grad():
        assert (block(x, mask_BT) == block(x, mask_BT)).all()
        trained = block.train()(x, mask_BT)
    untouched_B = (trained == x).all(dim=(1, 2))
    assert 4 <= int(untouched_B.sum()) <= 32  # both branches left out: a quarter of 64


def test_block_starts_almost_as_the_identity() -> None:
    torch.manual_seed(5)
    block = ConvTransformerBlock(16).eval()
    x, mask_BT = torch.randn(2, 8, 16), torch.ones(2, 8, dtype=torch.bool)
    torch.testing.assert_close(block(x, mask_BT), x, rtol=0, atol=2e-3)


def test_attention_reads_queries_from_one_sequence_and_the_rest_from_the_other() -> None:
    torch.manual_seed(6)
    attention = ConvAttention(8, num_heads=2).eval()
    query, memory = torch.randn(2, 1, 5, 8).unbind()
    mask_BT = torch.ones(1, 5, dtype=torch.bool)
    same_key = memory[:, :1].expand_as(memory)
    with torch.no_grad():
        # One segment of memory: whatever asks, the answer is its value.
        one = attention(query[:, :1], memory[:, :1], mask_BT[:, :1])
        other = attention(query[:, 1:2], memory[:, :1], mask_BT[:, :1])
    torch.testing.assert_close(one, other)
    with torch.no_grad():
        assert not torch.allclose(attention(query, memory, mask_BT), attention(query, same_key, mask_BT))
        assert not torch.allclose(attention(query, memory, mask_BT), attention(memory, memory, mask_BT))
