"""Levels one behind the other, and apart again."""

from __future__ import annotations

import torch

from heads.dense.level_sequence import LevelSequence


def test_levels_joined_split_and_points_are_each_others_inverse() -> None:
    torch.manual_seed(0)
    levels = [torch.randn(2, count, 3) for count in (8, 4, 2)]
    lay = LevelSequence((8, 4, 2), gap=2, device=torch.device("cpu"))
    joined = lay.joined(levels)
    assert joined.shape == (2, 18, 3)
    assert not joined[:, 8:10].any()
    assert not joined[:, 14:16].any()
    assert all(torch.equal(a, b) for a, b in zip(lay.split(joined), levels, strict=True))
    assert torch.equal(lay.points(joined), torch.cat(levels, dim=1))
