"""What needs no features: the events that a head must beat. Decided from the training events alone. Times in seconds.

N training events, V videos to predict for; every class that has training events is predicted once a video, scored with
its share of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heads.metrics.unav100 import EventTable


def whole_video(train: EventTable, item_V: NDArray[np.int64], duration_V: NDArray[np.float64]) -> EventTable:
    """Each class, all the time.

    Args:
        item_V, duration_V: the videos' numbers, and their seconds.

    Raises:
        ValueError: there is no training event, or a video without length.
    """
    class_K, share_K = _shares(train)
    length_VK = np.broadcast_to(duration_V[:, None], (len(duration_V), len(class_K)))
    return _centred(item_V, duration_V, length_VK, class_K, share_K)


def mean_length(train: EventTable, item_V: NDArray[np.int64], duration_V: NDArray[np.float64]) -> EventTable:
    """Each class in the middle of the video, as long as its training events are on average (at most all the time).

    Args, Raises: as `whole_video`.
    """
    class_K, share_K = _shares(train)
    seconds_K = np.bincount(train.label_N, weights=train.end_N - train.start_N)[class_K]
    mean_K = seconds_K / np.bincount(train.label_N)[class_K]
    return _centred(item_V, duration_V, np.minimum(mean_K, duration_V[:, None]), class_K, share_K)


def _shares(train: EventTable) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    if not len(train):
        raise ValueError("there is no training event")
    class_K, count_K = np.unique(train.label_N, return_counts=True)
    return class_K, count_K / len(train)


def _centred(
    item_V: NDArray[np.int64],
    duration_V: NDArray[np.float64],
    length_VK: NDArray[np.float64],
    class_K: NDArray[np.int64],
    share_K: NDArray[np.float64],
) -> EventTable:
    if item_V.shape != duration_V.shape or not (duration_V > 0).all():
        raise ValueError(f"{len(item_V)} videos need as many durations above 0 s, got {duration_V}")
    start_VK = (duration_V[:, None] - length_VK) / 2
    return EventTable(
        item_N=np.repeat(item_V, len(class_K)),
        start_N=start_VK.ravel(),
        end_N=(start_VK + length_VK).ravel(),
        label_N=np.tile(class_K, len(item_V)),
        score_N=np.tile(share_K, len(item_V)),
    )
