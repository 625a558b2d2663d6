"""What needs no learning: the numbers that a head must beat. Decided from the training labels alone.

N items, T segments, K classes (background not included; index K is background).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def majority(train_classes: NDArray[np.integer], num_classes: int) -> int:
    """The commonest class of a training segment, background (index `num_classes`) included; the first wins a tie."""
    return int(np.argmax(_counts(train_classes, num_classes)))


def always_event(train_classes: NDArray[np.integer], num_classes: int) -> int:
    """The commonest event class of a training segment, background left out; the first wins a tie.

    Raises:
        ValueError: no training segment has an event.
    """
    counts = _counts(train_classes, num_classes)[:num_classes]
    if not counts.any():
        raise ValueError("no training segment has an event")
    return int(np.argmax(counts))


def class_known(true_NT: NDArray[np.integer], num_classes: int) -> NDArray[np.int64]:
    """(N, T) int64: every segment has its item's commonest event class, and none is background.

    Not a baseline but a mark: it knows each item's class and finds no boundary. An item without an event gets
    class 0, which is wrong everywhere. On AVE's test split it scores 0.822.
    """
    known_NT = np.zeros(true_NT.shape, dtype=np.int64)
    for known_T, true_T in zip(known_NT, true_NT, strict=True):
        known_T[:] = np.argmax(_counts(true_T, num_classes)[:num_classes])
    return known_NT


def class_shares(train_labels_SK: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(K,) float64: the share of training segments that have each class; the constant score of `majority` for
    several labels. Its average precision is the class's share of the segments scored."""
    if not len(train_labels_SK):
        raise ValueError("there is no training segment")
    return np.asarray(train_labels_SK.mean(axis=0), dtype=np.float64)


def _counts(classes: NDArray[np.integer], num_classes: int) -> NDArray[np.int64]:
    if not classes.size:
        raise ValueError("there is no segment to count classes of")
    return np.bincount(classes.ravel(), minlength=num_classes + 1)
