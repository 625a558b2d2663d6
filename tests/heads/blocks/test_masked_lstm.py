"""The masked LSTM against published outputs, against each item alone, and against a cell stepped by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from heads.blocks.masked_lstm import MaskedLSTM


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_forward_published_weights_equal_golden(shared: Path, modality: str) -> None:
    with np.load(shared / "parity" / "heads" / "agva" / "agva_psp.npz", allow_pickle=False) as arrays:
        prefix = f"bilstm/w/lstm_{modality}."
        state = {f"lstm.{k.removeprefix(prefix)}": torch.from_numpy(arrays[k]) for k in arrays if k.startswith(prefix)}
        x, wanted = (torch.from_numpy(arrays[f"bilstm/{name}"]) for name in (modality, f"out_{modality[0]}"))
    block = MaskedLSTM(8, 8)
    block.load_state_dict(state)
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    torch.testing.assert_close(block(x, mask), wanted, rtol=1e-4, atol=5e-5)
    padded = torch.cat([x, torch.full((3, 4, 8), float("nan"))], dim=1)
    got = block(padded, torch.arange(14).expand(3, 14) < 10)
    torch.testing.assert_close(got[:, :10], wanted, rtol=1e-4, atol=5e-5)


def slow_direction(block: MaskedLSTM, x: Tensor, suffix: str) -> Tensor:
    """One item, one direction, one segment at a time; gates lie in the order input, forget, cell, output."""
    weights = {name: getattr(block.lstm, f"{name}_l0{suffix}") for name in ("weight_ih", "weight_hh")}
    bias = getattr(block.lstm, f"bias_ih_l0{suffix}") + getattr(block.lstm, f"bias_hh_l0{suffix}")
    state, cell, states = torch.zeros(3), torch.zeros(3), []
    for t in range(len(x)):
        gates = weights["weight_ih"] @ x[t] + weights["weight_hh"] @ state + bias
        cell = gates[3:6].sigmoid() * cell + gates[:3].sigmoid() * gates[6:9].tanh()
        state = gates[9:].sigmoid() * cell.tanh()
        states.append(state)
    return torch.stack(states)


MASKS = {
    "full": [[1, 1, 1, 1, 1]] * 3,
    "equal": [[1, 1, 1, 0, 0]] * 3,
    "ragged": [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0]],
    "empty item": [[1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 0]],
    "gaps": [[0, 1, 1, 0, 1], [1, 0, 0, 0, 1], [0, 0, 1, 1, 1]],
    "nothing": [[0, 0, 0, 0, 0]] * 3,
}


@pytest.mark.parametrize("case", MASKS)
def test_forward_any_mask_equals_each_item_stepped_alone(case: str) -> None:
    torch.manual_seed(0)
    block = MaskedLSTM(4, 3)
    mask = torch.tensor(MASKS[case], dtype=torch.bool)
    x = torch.randn(3, 5, 4).masked_fill(~mask[..., None], float("nan"))
    got = block(x, mask)
    for b in range(3):
        wanted = torch.zeros(5, 6)
        if mask[b].any():
            real = x[b][mask[b]]
            ahead, back = slow_direction(block, real, ""), slow_direction(block, real.flip(0), "_reverse").flip(0)
            wanted[mask[b]] = torch.cat([ahead, back], dim=-1)
        torch.testing.assert_close(got[b], wanted, rtol=0, atol=1e-6)
    if got.requires_grad:  # not where there was no step to take
        torch.autograd.backward(got.sum())
    assert got.requires_grad == (case != "nothing")
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in block.parameters())


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_forward_no_item_or_no_segment_is_empty(shape: tuple[int, int]) -> None:
    got = MaskedLSTM(4, 3)(torch.zeros(*shape, 4), torch.ones(shape, dtype=torch.bool))
    assert got.shape == (*shape, 6)


def test_init_width_of_zero_raises() -> None:
    with pytest.raises(ValueError, match="widths of at least 1, got width 4, hidden 0"):
        MaskedLSTM(4, 0)
