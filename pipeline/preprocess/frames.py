"""Frames of `Clips` on their way into a network. S segments, P frames a segment, F frames, H W pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def centre(frames_FHWC: NDArray[np.uint8 | np.float32], side_px: int) -> NDArray[np.uint8 | np.float32]:
    """The centre crop of whole frames, (F, side_px, side_px, 3); it begins at a pixel rounded down."""
    top, left = ((size - side_px) // 2 for size in frames_FHWC.shape[1:3])
    return frames_FHWC[:, top : top + side_px, left : left + side_px]


def first_held(index_SP: NDArray[np.int32]) -> NDArray[np.int32]:
    """Frame indices of segments that have a frame; slots before the first frame (-1) repeat the segment's first."""
    first_S1 = np.where(index_SP < 0, np.iinfo(np.int32).max, index_SP).min(axis=1, keepdims=True)
    return np.where(index_SP < 0, first_S1, index_SP).astype(np.int32)
