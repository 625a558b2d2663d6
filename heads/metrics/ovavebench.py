"""OV-AVEBench's protocol: accuracy, segment F1 and event F1 of each video; means over seen, unseen and all videos.

Background is a class like any other: it has a row in both F1 measures. A video's F1 is the mean over the classes that
are predicted or true in it. Events are maximal runs of one class; a predicted run is right where a true run of the
class has tIoU >= 0.5 with it, and a true run is missed where no predicted one has.

The published script averages the videos of a batch of 32 and then the batches, so a smaller last batch weighs more: on
300 real videos segment F1 is 0.5427 that way and 0.5354 by the video. Here the plain mean is the default, the other one
`batch_size=32`.

N videos, T segments, K classes with background as the last one, S segments of all videos, P and Q runs.

Source: the evaluation scripts of github.com/jasongief/OV-AVEL (Zhou et al., CVPR 2025).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PUBLISHED_BATCH_SIZE = 32
# A segment in no row of the F1 measures.
_NO_ROW = -1


@dataclass(frozen=True, kw_only=True)
class VideoScores:
    """The three measures of each video, float64 (N,), in [0, 1]."""

    accuracy_N: NDArray[np.float64]
    segment_f1_N: NDArray[np.float64]
    event_f1_N: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not self.accuracy_N.shape == self.segment_f1_N.shape == self.event_f1_N.shape or self.accuracy_N.ndim != 1:
            raise ValueError("the three measures must have one number a video")


def video_scores(
    predicted_NT: NDArray[np.integer],
    true_NT: NDArray[np.integer],
    *,
    background: int,
    counted_NT: NDArray[np.bool_] | None = None,
    flagged_NT: NDArray[np.bool_] | None = None,
) -> VideoScores:
    """Accuracy, segment F1 and event F1 of each video.

    Args:
        predicted_NT, true_NT: classes in [0, background].
        background: the last class: 67 at test, 46 among the classes of training.
        counted_NT: bool, the segments that count; the rest is in no measure and ends a run. None counts all.
        flagged_NT: bool, the segments predicted as events; None flags those whose class is not background. Only the
            published training-free script needs it: it flags seconds on whose background ("other") both modalities
            agree. They are right in accuracy where the truth is background, and are in **no** row of the F1 measures.
            A segment that is not flagged counts as background in F1.

    Raises:
        ValueError: shapes differ, a class is out of range, or a video has no segment that counts.
    """
    if counted_NT is None:
        counted_NT = np.ones(true_NT.shape, dtype=bool)
    if flagged_NT is None:
        flagged_NT = predicted_NT != background
    _check(predicted_NT, true_NT, counted_NT, flagged_NT, background)

    predicted_row_NT = np.where(flagged_NT, predicted_NT, background).astype(np.int64)
    predicted_row_NT[flagged_NT & (predicted_NT == background)] = _NO_ROW
    predicted_row_NT[~counted_NT] = _NO_ROW
    true_row_NT = np.where(counted_NT, true_NT, _NO_ROW).astype(np.int64)
    right_N = ((predicted_NT == true_NT) & counted_NT).sum(axis=1)
    return VideoScores(
        accuracy_N=right_N / counted_NT.sum(axis=1),
        segment_f1_N=_segment_f1(predicted_row_NT, true_row_NT, background + 1),
        event_f1_N=_event_f1(predicted_row_NT, true_row_NT, background + 1),
    )


def summary(
    scores: VideoScores, seen_N: NDArray[np.bool_] | None = None, *, batch_size: int | None = None
) -> dict[str, float]:
    """`accuracy`, `segment_f1`, `event_f1` and `mean` of the three, and each with `_seen` and `_unseen`.

    Args:
        seen_N: bool, videos of seen ("close") classes. A group without videos has no numbers. None gives totals only.
        batch_size: None for the mean over videos; `PUBLISHED_BATCH_SIZE` for the mean over batches of the mean over
            their videos, in the order given and each group batched alone, as the published script runs it. Accuracy
            is the mean over videos either way.

    Raises:
        ValueError: there is no video, `seen_N` is of another shape, or `batch_size` is not positive.
    """
    everyone_N = np.ones(len(scores.accuracy_N), dtype=bool)
    if not len(everyone_N):
        raise ValueError("there is no video to average over")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be above 0, got {batch_size}")
    groups = {"": everyone_N}
    if seen_N is not None:
        if seen_N.shape != everyone_N.shape:
            raise ValueError(f"seen must be of shape {everyone_N.shape}, got {seen_N.shape}")
        groups |= {"_seen": seen_N, "_unseen": ~seen_N}
    numbers = {}
    for suffix, group_N in groups.items():
        if not group_N.any():
            continue
        accuracy = float(scores.accuracy_N[group_N].mean())
        segment_f1 = _mean(scores.segment_f1_N[group_N], batch_size)
        event_f1 = _mean(scores.event_f1_N[group_N], batch_size)
        numbers[f"accuracy{suffix}"] = accuracy
        numbers[f"segment_f1{suffix}"] = segment_f1
        numbers[f"event_f1{suffix}"] = event_f1
        numbers[f"mean{suffix}"] = (accuracy + segment_f1 + event_f1) / 3
    return numbers


def _check(
    predicted_NT: NDArray[np.integer],
    true_NT: NDArray[np.integer],
    counted_NT: NDArray[np.bool_],
    flagged_NT: NDArray[np.bool_],
    background: int,
) -> None:
    if true_NT.ndim != 2 or not predicted_NT.shape == true_NT.shape == counted_NT.shape == flagged_NT.shape:
        raise ValueError(
            f"predicted, true, counted and flagged must have one shape (videos, segments), got {predicted_NT.shape}, "
            f"{true_NT.shape}, {counted_NT.shape}, {flagged_NT.shape}"
        )
    if not counted_NT.any(axis=1).all():
        raise ValueError(f"video {int(np.argmin(counted_NT.any(axis=1)))} has no segment to count")
    for name, values in (("predicted", predicted_NT[counted_NT]), ("true", true_NT[counted_NT])):
        if values.size and (values.min() < 0 or values.max() > background):
            raise ValueError(f"{name} classes must lie in [0, {background}], got {values.min()} to {values.max()}")


def _segment_f1(predicted_NT: NDArray[np.int64], true_NT: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    first_row_N1 = np.arange(len(true_NT))[:, None] * num_classes
    hits_NT = (predicted_NT == true_NT) & (true_NT != _NO_ROW)
    size = len(true_NT) * num_classes
    hits = np.bincount((first_row_N1 + true_NT)[hits_NT], minlength=size)
    total = np.bincount((first_row_N1 + true_NT)[true_NT != _NO_ROW], minlength=size)
    total += np.bincount((first_row_N1 + predicted_NT)[predicted_NT != _NO_ROW], minlength=size)
    return _mean_over_rows(2 * hits, total, num_classes)


def _event_f1(predicted_NT: NDArray[np.int64], true_NT: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    predicted_run_NT, predicted_length_P, predicted_row_P = _runs(predicted_NT, num_classes)
    true_run_NT, true_length_Q, true_row_Q = _runs(true_NT, num_classes)
    # Runs with tIoU >= 0.5 share a segment, so the pairs to look at are those that stand in one segment together.
    shared_NT = (predicted_NT == true_NT) & (true_NT != _NO_ROW)
    pairs = predicted_run_NT[shared_NT] * max(1, len(true_length_Q)) + true_run_NT[shared_NT]
    pair, overlap = np.unique(pairs, return_counts=True)
    p, q = np.divmod(pair, max(1, len(true_length_Q)))
    # overlap / union >= 1/2 in whole numbers; union = both lengths - overlap.
    match = 3 * overlap >= predicted_length_P[p] + true_length_Q[q]
    right_P, found_Q = np.zeros(len(predicted_length_P), dtype=bool), np.zeros(len(true_length_Q), dtype=bool)
    right_P[p[match]] = True
    found_Q[q[match]] = True
    size = len(true_NT) * num_classes
    right = np.bincount(predicted_row_P[right_P], minlength=size)
    wrong = np.bincount(predicted_row_P[~right_P], minlength=size)
    missed = np.bincount(true_row_Q[~found_Q], minlength=size)
    return _mean_over_rows(2 * right, 2 * right + wrong + missed, num_classes)


def _runs(
    classes_NT: NDArray[np.int64], num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Each segment's run (undefined where it is in no row), and each run's length and its row (video, class)."""
    starts_NT = classes_NT != _NO_ROW
    starts_NT[:, 1:] &= classes_NT[:, 1:] != classes_NT[:, :-1]
    run_NT = (np.cumsum(starts_NT.ravel()) - 1).reshape(classes_NT.shape)
    length_P = np.bincount(run_NT[classes_NT != _NO_ROW], minlength=int(starts_NT.sum()))
    row_P = (np.arange(len(classes_NT))[:, None] * num_classes + classes_NT)[starts_NT]
    return run_NT, length_P, row_P


def _mean_over_rows(
    twice_hits: NDArray[np.integer], total: NDArray[np.integer], num_classes: int
) -> NDArray[np.float64]:
    """(N,) the mean of `twice_hits / total` over a video's classes with a total: at least those that are true in it."""
    total_NK = total.reshape(-1, num_classes)
    f1_NK = twice_hits.reshape(-1, num_classes) / np.maximum(total_NK, 1)
    mean_N: NDArray[np.float64] = f1_NK.sum(axis=1) / (total_NK > 0).sum(axis=1)
    return mean_N


def _mean(values_N: NDArray[np.float64], batch_size: int | None) -> float:
    if batch_size is None:
        return float(values_N.mean())
    first = np.arange(0, len(values_N), batch_size)
    sizes = np.diff(np.append(first, len(values_N)))
    return float((np.add.reduceat(values_N, first) / sizes).mean())
