"""Resizing as torch's `interpolate` without antialiasing: floats, each output from its 2 or 4 neighbours alone an axis.

Published transforms that make a tensor of a frame first resize so. In numpy, because decoding children load no torch.

Shape suffixes: H W pixels, C channels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# torch's cubic convolution coefficient (Pillow's is -0.5).
_A = -0.75


def tensor_resize(
    frame_HWC: NDArray[np.uint8], box: tuple[float, float, float, float], *, height_px: int, width_px: int, kind: str
) -> NDArray[np.float32]:
    """The box of a frame at another size; neighbours beyond the frame are its edge (align_corners=False).

    Args:
        frame_HWC: uint8.
        box: left, top, right, bottom in the frame's pixels; need not be whole numbers.
        kind: "bilinear" or "bicubic".

    Returns:
        (height_px, width_px, C) float32 in the frame's units; bicubic may pass them.

    Raises:
        ValueError: another kind.
    """
    if kind not in ("bilinear", "bicubic"):
        raise ValueError(f"a tensor is resized bilinear or bicubic, got {kind!r}")
    left, top, right, bottom = box
    rows_HN, row_weights_HN = _taps(top, bottom, height_px, frame_HWC.shape[0], kind)
    columns_WN, column_weights_WN = _taps(left, right, width_px, frame_HWC.shape[1], kind)
    # Only the columns that are looked at, or a panorama would grow as tall as the output along its whole length.
    first = int(columns_WN.min())
    seen_HWC = frame_HWC[:, first : int(columns_WN.max()) + 1]
    # Rows first: they are whole in memory, and the frame is smaller afterwards.
    tall = sum(seen_HWC[rows_HN[:, tap]] * row_weights_HN[:, tap, None, None] for tap in range(rows_HN.shape[1]))
    assert isinstance(tall, np.ndarray)
    out = sum(
        tall[:, columns_WN[:, tap] - first] * column_weights_WN[:, tap, None] for tap in range(columns_WN.shape[1])
    )
    return np.asarray(out, np.float32)


def _taps(low: float, high: float, count: int, size: int, kind: str) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """For each of `count` outputs between `low` and `high`: the neighbours among `size`, and their weights."""
    centre = low + (np.arange(count) + 0.5) * ((high - low) / count) - 0.5
    if kind == "bilinear":
        centre = np.maximum(centre, 0.0)
    first = np.floor(centre)
    share = centre - first
    if kind == "bilinear":
        offsets, weights = np.array([0, 1]), np.stack([1 - share, share], axis=1)
    else:
        offsets = np.array([-1, 0, 1, 2])
        weights = np.stack([_far(share + 1), _near(share), _near(1 - share), _far(2 - share)], axis=1)
    indices = np.clip(first[:, None].astype(np.intp) + offsets, 0, size - 1)
    return indices, weights.astype(np.float32)


def _near(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic kernel within 1."""
    return ((_A + 2) * x - (_A + 3)) * x * x + 1


def _far(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic kernel between 1 and 2."""
    return ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A
