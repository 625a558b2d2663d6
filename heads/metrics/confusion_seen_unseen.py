"""Where an open-vocabulary head goes wrong: class confusions of videos of seen and of unseen classes, in counts.

N videos, T segments, K classes with background as the last one, C = K - 1 event classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRUE_GROUPS = ("seen", "unseen", "background")
PREDICTED_GROUPS = ("right", "other_seen", "other_unseen", "missed")


@dataclass(frozen=True, kw_only=True)
class SeenUnseenConfusion:
    """Counts of segments; their sum is the confusion of all videos.

    Attributes:
        seen_KK, unseen_KK: int64, row = true class, column = predicted; of the videos of seen and unseen classes. The
            background of a video is counted with its video.
    """

    seen_KK: NDArray[np.int64]
    unseen_KK: NDArray[np.int64]


def confusion_seen_unseen(
    predicted_NT: NDArray[np.integer],
    true_NT: NDArray[np.integer],
    seen_N: NDArray[np.bool_],
    num_classes: int,
    counted_NT: NDArray[np.bool_] | None = None,
) -> SeenUnseenConfusion:
    """The confusions of both groups of videos; all zero for a group without videos.

    Args:
        seen_N: bool, videos of seen ("close") classes.
        num_classes: K, background included.
        counted_NT: bool; None counts every segment.

    Raises:
        ValueError: shapes differ, or a class lies outside [0, K).
    """
    if counted_NT is None:
        counted_NT = np.ones(true_NT.shape, dtype=bool)
    if true_NT.ndim != 2 or not predicted_NT.shape == true_NT.shape == counted_NT.shape:
        raise ValueError(
            f"predicted, true and counted must have one shape (videos, segments), got {predicted_NT.shape}, "
            f"{true_NT.shape}, {counted_NT.shape}"
        )
    if seen_N.shape != true_NT.shape[:1]:
        raise ValueError(f"seen must be of shape {true_NT.shape[:1]}, got {seen_N.shape}")
    predicted, true = predicted_NT[counted_NT].astype(np.int64), true_NT[counted_NT].astype(np.int64)
    for name, values in (("predicted", predicted), ("true", true)):
        if values.size and (values.min() < 0 or values.max() >= num_classes):
            raise ValueError(f"{name} classes must lie in [0, {num_classes}), got {values.min()} to {values.max()}")
    unseen = np.broadcast_to(~seen_N[:, None], true_NT.shape)[counted_NT]
    counts = np.bincount((unseen * num_classes + true) * num_classes + predicted, minlength=2 * num_classes**2)
    seen_KK, unseen_KK = counts.reshape(2, num_classes, num_classes)
    return SeenUnseenConfusion(seen_KK=seen_KK, unseen_KK=unseen_KK)


def group_confusion(confusion_KK: NDArray[np.integer], seen_C: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(3, 4) int64: a confusion's counts, true groups (`TRUE_GROUPS`) by what was said (`PREDICTED_GROUPS`).

    "right" is the very class (for background: background); "other_seen" and "other_unseen" are wrong event classes of
    that kind; "missed" is background said of an event. A head that leans to the classes it was trained on shows it in
    the unseen row's "other_seen".

    Raises:
        ValueError: the table is not square with one class more than `seen_C`.
    """
    num_classes = len(seen_C) + 1
    if confusion_KK.shape != (num_classes, num_classes):
        raise ValueError(
            f"the confusion of {len(seen_C)} classes and background must be {num_classes} square, "
            f"got {confusion_KK.shape}"
        )
    group_K = np.append(np.where(seen_C, 0, 1), 2)
    said_KK = np.where(np.eye(num_classes, dtype=bool), 0, group_K[None, :] + 1)
    cell_KK = group_K[:, None] * len(PREDICTED_GROUPS) + said_KK
    size = len(TRUE_GROUPS) * len(PREDICTED_GROUPS)
    # bincount's weights are float64: exact for counts below 2^53.
    counts = np.bincount(cell_KK.ravel(), weights=confusion_KK.ravel(), minlength=size)
    return counts.astype(np.int64).reshape(len(TRUE_GROUPS), len(PREDICTED_GROUPS))
