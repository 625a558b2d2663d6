"""The trivial baselines: known counts, and AVE's published shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from catalog import dataset as datasets
from catalog.grid import GridRule
from catalog.grid import exact_seconds as seconds
from heads.data.targets import segment_classes
from heads.evaluation.baselines import always_event, class_known, class_shares, majority
from heads.metrics.ave import accuracy


def test_majority_and_always_event_count_training_segments() -> None:
    train = np.array([[0, 2, 2, 2, 1, 1]])
    assert majority(train, 2) == 2
    assert always_event(train, 2) == 1


def test_majority_equal_counts_first_wins() -> None:
    assert majority(np.array([1, 0, 1, 0]), 2) == 0


def test_always_event_background_only_raises() -> None:
    with pytest.raises(ValueError, match="no training segment has an event"):
        always_event(np.array([2, 2]), 2)


def test_class_shares_of_no_segment_raises() -> None:
    with pytest.raises(ValueError, match="no training segment"):
        class_shares(np.zeros((0, 3), dtype=bool))
    assert class_shares(np.array([[True, False], [True, True]])).tolist() == [1.0, 0.5]


def test_baselines_on_ave_test_split_equal_counted_shares(shared: Path) -> None:
    ave = datasets.load("ave", shared / "data" / "annotations" / "ave")
    grid = GridRule(window_s=seconds(1), hop_s=seconds(1))
    train = segment_classes(ave.split("train"), ave.classes, grid, 10)
    test = segment_classes(ave.split("test"), ave.classes, grid, 10)
    assert majority(train, 28) == 28
    # Background is 17.8 % of the test seconds, counted in the annotation files (facts about AVE, section 1.1).
    assert round(accuracy(np.full_like(test, 28), test), 3) == 0.178
    assert round(accuracy(class_known(test, 28), test), 3) == 0.822
