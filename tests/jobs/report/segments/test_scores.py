from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from jobs.report.reported_run import Judged
from jobs.report.segments.scores import class_scores, confusion, row_shares, top_mistakes


def _judged(true_T: list[int], predicted_T: list[int], num_classes: int) -> Judged:
    eye = np.eye(num_classes, dtype=bool)
    return Judged(
        item_id="i",
        video_id="v",
        true_TK=eye[true_T],
        predicted_TK=eye[predicted_T],
        score_TK=np.full((len(true_T), num_classes), np.nan),
        features_T=np.ones(len(true_T), dtype=bool),
    )


def test_confusion_of_two_items_equals_a_slow_count() -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 5, 10).tolist(), rng.integers(0, 5, 10).tolist()) for _ in range(2)]
    slow = [[0] * 5 for _ in range(5)]
    for true_T, predicted_T in pairs:
        for t, p in zip(true_T, predicted_T, strict=True):
            slow[t][p] += 1
    assert confusion([_judged(t, p, 5) for t, p in pairs], 5).tolist() == slow


def test_confusion_of_nothing_is_all_zero() -> None:
    assert confusion([], 3).tolist() == [[0, 0, 0]] * 3


def test_row_shares_of_a_class_without_truth_are_nan() -> None:
    shares_KK = row_shares(np.array([[3, 1], [0, 0]]))
    assert shares_KK[0].tolist() == [0.75, 0.25]
    assert np.isnan(shares_KK[1]).all()


def test_class_scores_equal_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    true_T, predicted_T = rng.integers(0, 6, 200).tolist(), rng.integers(0, 6, 200).tolist()
    precision_K, recall_K, _, support_K = precision_recall_fscore_support(true_T, predicted_T, labels=range(6))
    scores = class_scores(
        [_judged(true_T[:80], predicted_T[:80], 6), _judged(true_T[80:], predicted_T[80:], 6)], "abcdef"
    )
    assert [s.support for s in scores] == support_K.tolist()
    assert [s.recall for s in scores] == pytest.approx(recall_K.tolist())
    assert [s.precision for s in scores] == pytest.approx(precision_K.tolist())


def test_class_scores_of_absent_and_never_predicted_classes_are_nan() -> None:
    absent, never = class_scores([_judged([1, 1], [0, 0], 2)], ["absent", "never"])
    assert math.isnan(absent.recall)
    assert absent.precision == 0
    assert never.recall == 0
    assert math.isnan(never.precision)


def test_top_mistakes_are_by_count_then_class_order() -> None:
    counts_KK = np.array([[5, 2, 0], [3, 1, 2], [0, 0, 9]])
    found = top_mistakes(counts_KK, ["a", "b", "c"], 3)
    assert [(m.true, m.predicted, m.count) for m in found] == [("b", "a", 3), ("a", "b", 2), ("b", "c", 2)]
    assert found[0].share == pytest.approx(3 / 6)
