"""Expected distances to starts and ends against a slow loop over the bins."""

from __future__ import annotations

import torch
from torch import Tensor

from heads.dense.level_sequence import LevelSequence
from heads.models.tri_det.trident import TridentRegression

COUNTS, BINS = (8, 4, 2), 3


def seeded() -> tuple[TridentRegression, list[Tensor], list[Tensor]]:
    torch.manual_seed(0)
    trident = TridentRegression(6, 2, levels=3, bins=BINS, hidden=5)
    with torch.no_grad():
        for parameter in trident.parameters():
            parameter.copy_(torch.randn_like(parameter))
    masks = [torch.arange(count) * 2**level < torch.tensor([[8], [5]]) for level, count in enumerate(COUNTS)]
    return trident, [torch.randn(*mask.shape, 6) * mask[..., None] for mask in masks], masks


def test_offsets_equal_slow_loop_over_levels_points_and_bins() -> None:
    trident, levels, masks = seeded()
    lay = LevelSequence(COUNTS, gap=BINS, device=torch.device("cpu"))
    with torch.no_grad():
        got_BPK2 = trident(lay.joined(levels), lay.joined(masks), lay)
        first = 0
        for level, (x, mask) in enumerate(zip(levels, masks, strict=True)):
            count = x.shape[1]
            start, end = trident.start(x, mask), trident.end(x, mask)
            center = (trident.center(x, mask) * trident.scale_L[level]).relu().reshape(2, count, 2, BINS + 1)
            for b in range(2):
                for t in range(count):
                    for k in range(2):
                        before = [start[b, t - j, k] if t - j >= 0 else torch.tensor(0.0) for j in range(BINS, -1, -1)]
                        after = [end[b, t + j, k] if t + j < count else torch.tensor(0.0) for j in range(BINS + 1)]
                        left = (torch.stack(before) + center[b, t, 0]).softmax(0) @ torch.tensor([3.0, 2.0, 1.0, 0.0])
                        right = (torch.stack(after) + center[b, t, 1]).softmax(0) @ torch.tensor([0.0, 1.0, 2.0, 3.0])
                        want = torch.stack((left, right)) * mask[b, t]
                        torch.testing.assert_close(got_BPK2[b, first + t, k], want, rtol=1e-5, atol=1e-5)
            first += count
    assert bool((got_BPK2 >= 0).all())
    assert bool((got_BPK2 <= BINS).all())


def test_starts_and_ends_pass_no_gradient_to_the_pyramid() -> None:
    trident, levels, masks = seeded()
    lay = LevelSequence(COUNTS, gap=BINS, device=torch.device("cpu"))
    x_BGC = lay.joined(levels).requires_grad_()
    with torch.no_grad():
        for parameter in trident.center.parameters():
            parameter.zero_()
    offsets = trident(x_BGC, lay.joined(masks), lay)
    (gradient,) = torch.autograd.grad(offsets.sum(), x_BGC)
    assert not gradient.any()
