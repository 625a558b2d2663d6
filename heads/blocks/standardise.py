"""Standardisation of features by what the training split holds, kept in the head so that it travels with it.

B batch, T segments, D feature width, N items.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# A channel that hardly moves in training must not be blown up by a value that differs a little later.
MIN_STD = 1e-6
_BLOCK_ROWS = 8192


class Standardise(nn.Module):
    """`(x - mean) / std` a channel, zero where a feature is not valid.

    Attributes:
        mean_D, std_D: float32 buffers; 0 and 1 until `fit`.
    """

    mean_D: Tensor
    std_D: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean_D", torch.zeros(width))
        self.register_buffer("std_D", torch.ones(width))

    def fit(self, values: NDArray[np.floating], valid: NDArray[np.bool_]) -> None:
        """Take mean and standard deviation over the valid rows.

        Args:
            values: (N, T, ..., D); what is not valid may hold anything, NaN too.
            valid: (N, T) bool. With no valid row at all the buffers stay 0 and 1.
        """
        mean_D, std_D, count = moments(values, valid)
        if count:
            self.mean_D.copy_(torch.from_numpy(mean_D))
            self.std_D.copy_(torch.from_numpy(np.where(std_D > MIN_STD, std_D, 1.0)))

    def forward(self, values: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, ..., D) float to the same shape; exactly 0 where `valid_BT` is False, whatever lay there."""
        valid = valid_BT.reshape(*valid_BT.shape, *([1] * (values.ndim - 2)))
        # where, not a product: NaN * 0 is NaN.
        return torch.where(valid, (values - self.mean_D) / self.std_D, 0.0)


def moments(
    values: NDArray[np.floating], valid: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Mean (D,), population standard deviation (D,) in float64 and the number of valid rows.

    Two passes over blocks of rows: exact enough for channels far from zero, and no float64 copy of the whole split.
    """
    width = values.shape[-1]
    flat = values.reshape(-1, *values.shape[valid.ndim :])
    rows = np.flatnonzero(valid.ravel())
    total_D, squares_D, count = np.zeros(width), np.zeros(width), 0
    for first in range(0, len(rows), _BLOCK_ROWS):
        block = flat[rows[first : first + _BLOCK_ROWS]].reshape(-1, width)
        total_D += block.sum(axis=0, dtype=np.float64)
        count += len(block)
    mean_D = total_D / max(count, 1)
    for first in range(0, len(rows), _BLOCK_ROWS):
        block = flat[rows[first : first + _BLOCK_ROWS]].reshape(-1, width)
        squares_D += np.square(block - mean_D).sum(axis=0)
    return mean_D, np.sqrt(squares_D / max(count, 1)), len(rows)
