"""Features padded so that they halve, and the masks of the levels, against slow loops."""

from __future__ import annotations

import pytest
import torch

from heads.dense.pyramid_input import halvable, level_masks


@pytest.mark.parametrize(("length", "levels", "wanted"), [(5, 3, 8), (8, 3, 8), (1, 4, 8), (7, 1, 7)])
@pytest.mark.parametrize("shape", [(), (3,), (3, 2)])
def test_halvable_adds_zeros_behind_alone(length: int, levels: int, wanted: int, shape: tuple[int, ...]) -> None:
    x = torch.randn(2, length, *shape, generator=torch.Generator().manual_seed(0))
    padded = halvable(x, levels)
    assert padded.shape == (2, wanted, *shape)
    assert torch.equal(padded[:, :length], x)
    assert not padded[:, length:].any()


def test_level_masks_are_of_the_segments_that_points_stand_on() -> None:
    mask_BT = torch.tensor([[True] * 5 + [False] * 3, [True] * 8])
    found = [level.tolist() for level in level_masks(mask_BT, 3)]
    assert found == [[[bool(mask_BT[b, t]) for t in range(0, 8, 2**level)] for b in range(2)] for level in range(3)]
