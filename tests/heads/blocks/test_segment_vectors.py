"""Clean vectors out of maps with gaps."""

from __future__ import annotations

import pytest
import torch

from heads.blocks.segment_vectors import segment_vectors


@pytest.mark.parametrize("shape", [(3,), (1, 3), (5, 3), (2, 2, 3)])
def test_segment_vectors_gaps_are_zero_and_places_averaged(shape: tuple[int, ...]) -> None:
    values = torch.randn(2, 4, *shape)
    valid = torch.tensor([[True, True, False, True], [False, True, True, True]])
    wanted = values.reshape(2, 4, -1, 3).mean(dim=2) * valid[..., None]
    values[~valid] = float("nan")
    torch.testing.assert_close(segment_vectors("visual", values, valid, 3), wanted)


@pytest.mark.parametrize("values", [None, torch.zeros(1, 2, 4), torch.zeros(1, 3, 3), torch.zeros(2, 3)])
def test_segment_vectors_wrong_input_raises(values: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match="needs audio features"):
        segment_vectors("audio", values, torch.ones(1, 2, dtype=torch.bool), 3)
