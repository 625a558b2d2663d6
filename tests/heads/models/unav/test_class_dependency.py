"""The block over time and classes against its parts one by one, and its laws."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heads.models.unav import class_dependency
from heads.models.unav.class_dependency import ClassDependency

COUNTS = (8, 4, 2)


def seeded() -> ClassDependency:
    torch.manual_seed(0)
    block = ClassDependency(6, 3, class_width=4).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return block


def pyramid(lengths: tuple[int, ...] = (8, 5, 1)) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(1)
    masks = [torch.arange(count) * 2**level < torch.tensor(lengths)[:, None] for level, count in enumerate(COUNTS)]
    return [torch.randn(*mask.shape, 6, generator=generator) * mask[..., None] for mask in masks], masks


def slow(block: ClassDependency, x_TC: Tensor) -> Tensor:
    """One item of one level without padding: each class over time, each segment over classes, one after the other."""
    e_TE = F.conv1d(x_TC.T[None], block.expand.conv.weight, padding=1)[0].T.relu()
    e_TKD = e_TE.reshape(len(e_TE), 3, 4)
    every_T, every_K = torch.ones(1, len(e_TE), dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool)
    out_TKD = torch.zeros_like(e_TKD)
    for k in range(3):
        out_TKD[:, k] += block.over_time(e_TKD[None, :, k], every_T)[0]
    for t in range(len(e_TKD)):
        out_TKD[t] += block.over_classes(e_TKD[None, t], every_K)[0]
    return F.conv1d(out_TKD.flatten(1).T[None], block.squeeze.conv.weight, padding=1)[0].T


def test_dependency_equals_its_parts_one_by_one() -> None:
    block = seeded()
    levels, masks = pyramid()
    with torch.no_grad():
        for got, x, mask in zip(block(levels, masks), levels, masks, strict=True):
            for b, length in enumerate(mask.sum(dim=1).tolist()):
                torch.testing.assert_close(got[b, :length], slow(block, x[b, :length]), rtol=1e-4, atol=1e-5)
                assert not got[b, length:].any()


def test_dependency_some_rows_at_a_time_and_again_in_backward_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    block = seeded().double()
    levels, masks = pyramid()
    levels = [x.double() for x in levels]

    def gradients(vectors: int) -> tuple[Tensor, ...]:
        monkeypatch.setattr(class_dependency, "_VECTORS", vectors)
        loss = torch.stack([out.square().sum() for out in block(levels, masks)]).sum()
        return torch.autograd.grad(loss, list(block.parameters()))

    for few, many in zip(gradients(1), gradients(10**6), strict=True):
        torch.testing.assert_close(few, many, rtol=1e-9, atol=1e-12)


def test_dependency_state_has_the_usual_shapes_and_survives_loading() -> None:
    block = seeded()
    assert block.expand.conv.weight.shape == (12, 6, 3)
    assert block.squeeze.conv.weight.shape == (6, 12, 3)
    other = ClassDependency(6, 3, class_width=4).eval()
    other.load_state_dict({key: value.clone().contiguous() for key, value in block.state_dict().items()})
    levels, masks = pyramid()
    with torch.no_grad():
        for one, two in zip(block(levels, masks), other(levels, masks), strict=True):
            assert torch.equal(one, two)


def test_dependency_items_do_not_see_each_other() -> None:
    """The published code masks the items of a batch crosswise in the block over time."""
    block = seeded()
    levels, masks = pyramid()
    with torch.no_grad():
        whole = block(levels, masks)
        turned = block([x.flip(0) for x in levels], [mask.flip(0) for mask in masks])
    for one, other in zip(whole, turned, strict=True):
        torch.testing.assert_close(one, other.flip(0), rtol=1e-5, atol=1e-6)
