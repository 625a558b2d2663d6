"""Crops of videos that a dense head is trained on. B items, E events; times in grid units (`heads.dense.points`).

A crop lasts between `crop_share` of the video and all of it, or `max_segments` where that is less, and keeps at
least one event to half of its length or more, where one of 200 draws finds such a place; kept events are cut to it, the
others are left out.

Source: the published code of Zhang et al., ECCV 2022 (ActionFormer), as Geng et al., CVPR 2023 (UnAV) use it. There the
least length is rounded to the nearest, an item longer than the most is always shown in the most, and of 200 places
without an event the last is taken; here it is rounded up, drawn like any other, and the first is.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_DRAWS = 200
# Events with a lesser share of themselves in the crop are not learned there.
_KEPT_SHARE = 0.5


def draw_crops(
    rng: np.random.Generator,
    lengths_B: NDArray[np.int64],
    times_BE2: NDArray[np.float32],
    labels_BE: NDArray[np.int64],
    *,
    crop_share: float,
    max_segments: int | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A crop of each item.

    Args:
        lengths_B: segments of each item, at least 1.

    Returns:
        (B,) int64 first segments and (B,) int64 lengths.
    """
    starts_B, kept_B = np.zeros_like(lengths_B), lengths_B.copy()
    for b, length in enumerate(lengths_B.tolist()):
        most = length if max_segments is None else min(length, max_segments)
        least = min(most, max(1, math.ceil(crop_share * length)))
        kept_B[b] = rng.integers(least, most + 1)
        if kept_B[b] == length:
            continue
        draws_D = rng.integers(0, length - kept_B[b] + 1, size=_DRAWS)
        real_E = labels_BE[b] >= 0
        good_D = (_shares(times_BE2[b, real_E], draws_D, int(kept_B[b])) >= _KEPT_SHARE).any(axis=1)
        starts_B[b] = draws_D[np.argmax(good_D)]  # the first that keeps an event; the first of all where none does
    return starts_B, kept_B


def crop(
    times_BE2: NDArray[np.float32],
    labels_BE: NDArray[np.int64],
    starts_B: NDArray[np.int64],
    lengths_B: NDArray[np.int64],
    totals_B: NDArray[np.int64],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The events as they lie in the crops: times from their beginning, cut to them; -1 labels what is left out.

    Args:
        totals_B: segments of each item. Where the crop is all of it, events are left as they are: half a window of
            each video's beginning lies before point 0, and as much of its end behind the last one.
    """
    first_B1, last_B1 = starts_B[:, None].astype(np.float32), (starts_B + lengths_B)[:, None].astype(np.float32)
    start_BE, end_BE = times_BE2[..., 0], times_BE2[..., 1]
    shared_BE = np.minimum(end_BE, last_B1) - np.maximum(start_BE, first_B1)
    kept_BE = (labels_BE >= 0) & (shared_BE >= _KEPT_SHARE * (end_BE - start_BE))
    cut_BE2 = np.stack([np.maximum(start_BE, first_B1), np.minimum(end_BE, last_B1)], axis=-1) - first_B1[..., None]
    whole_B = lengths_B == totals_B
    return (
        np.where(whole_B[:, None, None], times_BE2, cut_BE2.astype(np.float32)),
        np.where(kept_BE | whole_B[:, None], labels_BE, -1),
    )


def _shares(times_E2: NDArray[np.float32], starts_D: NDArray[np.int64], length: int) -> NDArray[np.float64]:
    """(D, E): the share of each event that lies in each crop."""
    first_D1 = starts_D[:, None].astype(np.float64)
    shared_DE = np.minimum(times_E2[:, 1], first_D1 + length) - np.maximum(times_E2[:, 0], first_D1)
    found: NDArray[np.float64] = shared_DE / np.maximum(times_E2[:, 1] - times_E2[:, 0], 1e-6)
    return found
