"""AVE's metric against the goldens of the published code and a slow loop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from heads.metrics.ave import accuracy, confusion, decide, decide_two_branch


def test_accuracy_published_logits_equals_golden(shared: Path) -> None:
    folder = shared / "parity" / "heads" / "ave"
    golden = np.load(folder / "ave.npz", allow_pickle=False)
    wanted = json.loads((folder / "ave.json").read_text())
    true = golden["labels"].argmax(axis=-1)
    assert accuracy(decide(golden["logits29"]), true) == wanted["acc29"]


def test_decide_two_branch_published_logits_equals_golden(shared: Path) -> None:
    folder = shared / "parity" / "heads" / "ave"
    golden = np.load(folder / "ave.npz", allow_pickle=False)
    wanted = json.loads((folder / "ave.json").read_text())
    predicted = decide_two_branch(golden["is_event"], golden["event_class"])
    np.testing.assert_array_equal(predicted, golden["two_branch_pred"])
    # Upstream averages batches; the total is the plain mean but for the last bits.
    assert accuracy(predicted, golden["labels"].argmax(axis=-1)) == pytest.approx(wanted["acc_two_branch"], abs=1e-12)


def test_decide_equal_scores_first_index_wins() -> None:
    scores = np.array([[[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]])
    assert decide(scores).tolist() == [[1, 0]]


def test_decide_nan_score_raises() -> None:
    with pytest.raises(ValueError, match="1 segments have one"):
        decide(np.array([[[0.0, np.nan], [0.0, 1.0]]]))


def test_decide_two_branch_logit_of_zero_is_background() -> None:
    predicted = decide_two_branch(np.array([[0.0, 1e-3, -200.0]], dtype=np.float32), np.array([[0.0, 5.0]]))
    assert predicted.tolist() == [[2, 1, 2]]


def test_accuracy_and_confusion_random_labels_equal_slow_loop() -> None:
    rng = np.random.default_rng(3)
    predicted, true = rng.integers(0, 5, size=(2, 40, 7))
    counted = rng.random((40, 7)) < 0.6
    right = total = 0
    table = [[0] * 5 for _ in range(5)]
    for n in range(40):
        for t in range(7):
            if counted[n, t]:
                total += 1
                right += predicted[n, t] == true[n, t]
                table[true[n, t]][predicted[n, t]] += 1
    assert accuracy(predicted, true, counted) == right / total
    assert confusion(predicted, true, 5, counted).tolist() == table


def test_accuracy_nothing_counted_raises() -> None:
    with pytest.raises(ValueError, match="no segment to count"):
        accuracy(np.zeros((1, 2), dtype=int), np.zeros((1, 2), dtype=int), np.zeros((1, 2), dtype=bool))


def test_accuracy_other_shape_raises() -> None:
    with pytest.raises(ValueError, match="one shape"):
        accuracy(np.zeros((1, 2), dtype=int), np.zeros((2, 1), dtype=int))


def test_confusion_class_out_of_range_raises() -> None:
    with pytest.raises(ValueError, match=r"predicted classes must lie in \[0, 3\)"):
        confusion(np.array([[3]]), np.array([[0]]), 3)
