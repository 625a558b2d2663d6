"""An attention in slices of the batch equals the attention of the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from heads.blocks import item_slices
from heads.blocks.agva import AudioGuidedAttention


@pytest.mark.parametrize(("slice_bytes", "calls"), [(1, 5), (4 * 6 * 2 * 3 * 2, 3), (2**20, 1)])
def test_in_item_slices_equals_the_whole_batch(monkeypatch: pytest.MonkeyPatch, slice_bytes: int, calls: int) -> None:
    monkeypatch.setattr(item_slices, "_SLICE_BYTES", slice_bytes)
    torch.manual_seed(0)
    attention = AudioGuidedAttention(7, 4, hidden=6)
    visual, audio = torch.randn(5, 2, 3, 7), torch.randn(5, 2, 4)
    sizes: list[int] = []

    def counted(visual: Tensor, audio: Tensor) -> Tensor:
        sizes.append(len(visual))
        out: Tensor = attention(visual, audio)
        return out

    gradients = []
    outputs = [item_slices.in_item_slices(counted, visual, audio, width=6), attention(visual, audio)]
    for output in outputs:
        attention.zero_grad()
        torch.autograd.backward(output.square().sum())
        gradients.append([p.grad.clone() for p in attention.parameters() if p.grad is not None])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-5)
    assert (len(sizes), sum(sizes)) == (calls, 5)
