"""Audio-visual pair similarity against published targets and losses, and its laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from heads.models.psp.pair_similarity import pair_similarity, pair_similarity_loss, pair_target


def test_pair_similarity_loss_equals_golden(shared: Path) -> None:
    with np.load(shared / "parity" / "heads" / "losses" / "losses.npz", allow_pickle=False) as arrays:
        similarity, target = (torch.from_numpy(arrays[f"avps/{name}"]) for name in ("sim", "soft"))
        wanted = float(arrays["avps/loss"])
    sums, counts = pair_similarity_loss(similarity, target, torch.ones(similarity.shape, dtype=torch.bool))
    assert float(sums.sum() / counts.sum()) == pytest.approx(wanted, rel=2e-5)


def test_pair_target_equals_golden_of_a_cleared_buffer(shared: Path) -> None:
    with np.load(shared / "parity" / "heads" / "ave" / "ave.npz", allow_pickle=False) as arrays:
        event = torch.from_numpy(arrays["labels"]).argmax(dim=-1) != 28
        wanted = torch.from_numpy(arrays["psp/avps_gt"])
    assert not event.all()
    torch.testing.assert_close(pair_target(event), wanted, rtol=0, atol=1e-7)


def test_pair_target_without_event_is_zero() -> None:
    assert not pair_target(torch.zeros(2, 4, dtype=torch.bool)).any()


def test_padding_changes_neither_loss_nor_gradient() -> None:
    torch.manual_seed(0)
    short = torch.randn(1, 6).requires_grad_()
    event = torch.tensor([[True, True, False, True, False, False]])
    mask = torch.ones(1, 6, dtype=torch.bool)
    sums, counts = pair_similarity_loss(short, pair_target(event), mask)
    padded = torch.cat([short.detach(), torch.full((1, 3), 5.0)], dim=1).requires_grad_()
    no = torch.zeros(1, 3, dtype=torch.bool)
    target = torch.cat([pair_target(event), torch.ones(1, 3)], dim=1)
    padded_sums, padded_counts = pair_similarity_loss(padded, target, torch.cat([mask, no], dim=1))
    assert torch.equal(sums, padded_sums)
    assert counts.tolist() == padded_counts.tolist() == [6]
    torch.autograd.backward([sums.sum(), padded_sums.sum()])
    assert padded.grad is not None
    assert short.grad is not None
    assert torch.equal(padded.grad[:, :6], short.grad)
    assert not padded.grad[:, 6:].any()


def test_item_without_positive_similarity_is_finite() -> None:
    similarity = torch.full((1, 4), -0.5, requires_grad=True)
    event = torch.tensor([[True, False, False, False]])
    sums, _ = pair_similarity_loss(similarity, pair_target(event), torch.ones(1, 4, dtype=torch.bool))
    assert sums.item() == 1.0  # all of the one event second's share is missing
    torch.autograd.backward(sums.sum())
    assert similarity.grad is not None
    assert bool(torch.isfinite(similarity.grad).all())


def test_pair_similarity_is_the_cosine() -> None:
    visual, audio = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]]), torch.tensor([[[6.0, 8.0], [0.0, 2.0]]])
    torch.testing.assert_close(pair_similarity(visual, audio), torch.tensor([[1.0, 0.0]]))
