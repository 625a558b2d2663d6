"""Standardisation: numpy's own mean and deviation over valid rows, whatever lies in the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from heads.blocks import standardise
from heads.blocks.standardise import Standardise, moments


@pytest.mark.parametrize("shape", [(5,), (2, 3, 5)])
def test_moments_nan_in_invalid_rows_equal_numpy_over_valid(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standardise, "_BLOCK_ROWS", 7)  # several blocks from few rows
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(6, 10, *shape)) * 3 + 1000).astype(np.float32)
    valid = rng.random((6, 10)) < 0.7
    values[~valid] = np.nan
    mean, std, rows = moments(values, valid)
    kept = values[valid].reshape(-1, 5).astype(np.float64)
    assert rows == int(valid.sum())
    np.testing.assert_allclose(mean, kept.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, kept.std(axis=0), rtol=1e-5)  # the blocks are float32 less a float64 mean


def test_standardise_invalid_segment_is_exactly_zero() -> None:
    block = Standardise(3)
    block.fit(np.array([[[1.0, 2.0, 7.0], [3.0, 6.0, 7.0]]]), np.ones((1, 2), dtype=bool))
    values = torch.tensor([[[3.0, 6.0, 7.0], [np.nan, np.inf, 1.0]]])
    got = block(values, torch.tensor([[True, False]]))
    assert got.tolist() == [[[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]  # the third channel is constant: std counts as 1


def test_standardise_no_valid_row_stays_identity() -> None:
    block = Standardise(2)
    block.fit(np.full((1, 4, 2), np.nan, dtype=np.float32), np.zeros((1, 4), dtype=bool))
    assert block.mean_D.tolist() == [0, 0]
    assert block.std_D.tolist() == [1, 1]
