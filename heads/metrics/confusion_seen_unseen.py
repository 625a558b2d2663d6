"""Where an open-vocabulary head goes wrong: class confusions of videos of seen and of unseen classes, in counts.

N videos, T segments, K classes with background as the last one, C = K - 1 event classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heads.metrics import ave

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
        ValueError: shapes differ, a group with videos has no counted segment, or a class lies outside [0, K).
    """
    if seen_N.shape != true_NT.shape[:1]:
        raise ValueError(f"seen must be of shape {true_NT.shape[:1]}, got {seen_N.shape}")
    tables = []
    for group_N in (seen_N, ~seen_N):
        table_KK = np.zeros((num_classes, num_classes), dtype=np.int64)
        if group_N.any():
            counted = None if counted_NT is None else counted_NT[group_N]
            table_KK = ave.confusion(predicted_NT[group_N], true_NT[group_N], num_classes, counted)
        tables.append(table_KK)
    return SeenUnseenConfusion(seen_KK=tables[0], unseen_KK=tables[1])


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
