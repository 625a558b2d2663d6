"""AVE's protocol: accuracy = correct seconds / all seconds, arg-max over classes and background, no averaging.

N items, T segments, K classes with background as the last one.

Source: AVE-ECCV18 supervised_main.py, PSP measure.py; the two-branch decision: CMBS supv_main.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def decide(scores_NTK: NDArray[np.floating]) -> NDArray[np.int64]:
    """(N, T) int64: the class of the highest score; the first index wins a tie.

    Raises:
        ValueError: a score is NaN (arg-max would return its place as if it were the best).
    """
    if np.isnan(scores_NTK).any():
        raise ValueError(f"scores must not be NaN; {int(np.isnan(scores_NTK).any(axis=-1).sum())} segments have one")
    classes_NT: NDArray[np.int64] = np.argmax(scores_NTK, axis=-1).astype(np.int64)
    return classes_NT


def decide_two_branch(
    event_logits_NT: NDArray[np.floating], class_logits_NC: NDArray[np.floating]
) -> NDArray[np.int64]:
    """(N, T) int64: a second is event where sigmoid(logit) > 0.5 strictly, and has its video's best class; else C.

    The sigmoid is taken in the dtype given, as upstream does: a logit too small to move it off 0.5 is background.
    """
    class_N = decide(class_logits_NC)
    one = event_logits_NT.dtype.type(1)
    with np.errstate(over="ignore"):  # exp of a very negative logit's opposite is infinity, and 1 / infinity is right
        is_event_NT = one / (one + np.exp(-event_logits_NT)) > 0.5
    return np.where(is_event_NT, class_N[:, None], class_logits_NC.shape[1]).astype(np.int64)


def accuracy(
    predicted_NT: NDArray[np.integer], true_NT: NDArray[np.integer], counted_NT: NDArray[np.bool_] | None = None
) -> float:
    """The share of right segments among those counted (all, if None), in [0, 1].

    Raises:
        ValueError: shapes differ, or nothing is counted.
    """
    predicted, true = _counted(predicted_NT, true_NT, counted_NT)
    return float(np.mean(predicted == true))


def confusion(
    predicted_NT: NDArray[np.integer],
    true_NT: NDArray[np.integer],
    num_classes: int,
    counted_NT: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """(K, K) int64 counts of segments: row = true class, column = predicted class.

    Raises:
        ValueError: shapes differ, nothing is counted, or a class lies outside [0, num_classes).
    """
    predicted, true = _counted(predicted_NT, true_NT, counted_NT)
    for name, values in (("predicted", predicted), ("true", true)):
        if values.min() < 0 or values.max() >= num_classes:
            raise ValueError(f"{name} classes must lie in [0, {num_classes}), got {values.min()} to {values.max()}")
    pairs = true.astype(np.int64) * num_classes + predicted
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def _counted(
    predicted_NT: NDArray[np.integer], true_NT: NDArray[np.integer], counted_NT: NDArray[np.bool_] | None
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    if predicted_NT.shape != true_NT.shape:
        raise ValueError(f"predicted and true classes must have one shape, got {predicted_NT.shape}, {true_NT.shape}")
    if counted_NT is None:
        counted_NT = np.ones(true_NT.shape, dtype=bool)
    if counted_NT.shape != true_NT.shape:
        raise ValueError(f"counted must be of shape {true_NT.shape}, got {counted_NT.shape}")
    if not counted_NT.any():
        raise ValueError("there is no segment to count")
    return predicted_NT[counted_NT], true_NT[counted_NT]
