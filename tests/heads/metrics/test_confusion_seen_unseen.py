"""Confusions of seen and unseen videos against a slow loop."""

from __future__ import annotations

import numpy as np
import pytest

from heads.metrics.ave import confusion
from heads.metrics.confusion_seen_unseen import (
    PREDICTED_GROUPS,
    TRUE_GROUPS,
    confusion_seen_unseen,
    group_confusion,
)


def test_confusion_seen_unseen_random_labels_sum_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    predicted, true = rng.integers(0, 6, size=(2, 40, 10))
    seen, counted = rng.random(40) < 0.4, rng.random((40, 10)) < 0.8
    tables = confusion_seen_unseen(predicted, true, seen, 6, counted)
    np.testing.assert_array_equal(tables.seen_KK + tables.unseen_KK, confusion(predicted, true, 6, counted))
    slow = np.zeros((6, 6), dtype=int)
    for n in np.flatnonzero(seen):
        for t in np.flatnonzero(counted[n]):
            slow[true[n, t], predicted[n, t]] += 1
    np.testing.assert_array_equal(tables.seen_KK, slow)


def test_confusion_seen_unseen_group_without_videos_is_zero() -> None:
    tables = confusion_seen_unseen(np.array([[0, 2]]), np.array([[0, 1]]), np.array([True]), 3)
    assert not tables.unseen_KK.any()
    assert tables.seen_KK.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_group_confusion_random_counts_equal_slow_loop() -> None:
    rng = np.random.default_rng(2)
    table, seen = rng.integers(0, 50, size=(6, 6)), np.array([True, False, True, False, False])
    slow = {(true, said): 0 for true in TRUE_GROUPS for said in PREDICTED_GROUPS}
    for k in range(6):
        for j in range(6):
            true = "background" if k == 5 else "seen" if seen[k] else "unseen"
            said = "right" if j == k else "missed" if j == 5 else "other_seen" if seen[j] else "other_unseen"
            slow[true, said] += int(table[k, j])
    got = group_confusion(table, seen)
    assert got.tolist() == [[slow[true, said] for said in PREDICTED_GROUPS] for true in TRUE_GROUPS]


def test_group_confusion_other_size_raises() -> None:
    with pytest.raises(ValueError, match="must be 3 square"):
        group_confusion(np.zeros((2, 2), dtype=int), np.array([True, False]))


def test_confusion_seen_unseen_wrong_input_raises() -> None:
    one, two = np.array([[0]]), np.array([[0, 1]])
    with pytest.raises(ValueError, match=r"seen must be of shape \(1,\)"):
        confusion_seen_unseen(one, one, np.array([True, False]), 2)
    with pytest.raises(ValueError, match="one shape"):
        confusion_seen_unseen(one, two, np.array([True]), 2)
    with pytest.raises(ValueError, match=r"predicted classes must lie in \[0, 1\), got 0 to 1"):
        confusion_seen_unseen(two, np.zeros_like(two), np.array([True]), 1)
