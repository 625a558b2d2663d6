"""What is computed of real segments alone equals what is computed of all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from heads.blocks.real_segments import of_real


@pytest.mark.parametrize("lengths", [(9, 3, 0), (9, 9, 9), (0, 0, 0)])
def test_of_real_computes_real_segments_and_their_gradients(lengths: tuple[int, ...]) -> None:
    torch.manual_seed(7)
    linear = torch.nn.Linear(4, 6)
    x, mask_BT = torch.randn(3, 9, 4, requires_grad=True), torch.arange(9) < torch.tensor(lengths)[:, None]
    seen = []

    def each(rows: Tensor) -> Tensor:
        seen.append(rows.numel() // 4)
        return linear(rows)  # type: ignore[no-any-return]  # a tensor

    got, want = of_real(each, x, mask_BT), linear(x)
    assert seen == [sum(lengths)]
    torch.testing.assert_close(got * mask_BT[..., None], want * mask_BT[..., None])
    for one, other in zip(
        torch.autograd.grad((got.square() * mask_BT[..., None]).sum(), (x, linear.weight)),
        torch.autograd.grad((want.square() * mask_BT[..., None]).sum(), (x, linear.weight)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
