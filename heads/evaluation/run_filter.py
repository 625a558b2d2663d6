"""The run filter: predictions of fewer than W equal neighbours are taken for mistakes.

An item's labels are split into runs. While there is more than one, the shortest (the leftmost of equals) is looked at:
if it has W labels or more, the item is done; else it takes the label of the longer of its neighbour runs (the left one
of equals) and runs are formed anew. All labels are alike: background may be overwritten and may overwrite, and true
events shorter than W are lost. W = 1 changes nothing.

The paper says only that W is the least number of consecutive predictions and that what does not match is set to "the
prevailing one"; the steps above are the reading under which its best W is 3 on AVE, where no event lasts 1 s.

N items, T segments.

Source: Mahmud and Marculescu, WACV 2023 (AVE-CLIP), section 3.7 and table 7.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# The best of the paper's table 7, in segments of 1 s.
PUBLISHED_MINIMUM = 3


def filter_runs(
    classes_NT: NDArray[np.integer], *, minimum: int, mask_NT: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Labels in which no run is shorter than `minimum`, unless an item is one run.

    Args:
        classes_NT: any integers.
        minimum: W, in segments.
        mask_NT: bool, True where real; None means all. What is not real is left as it is and parts no run: real
            segments around it are neighbours.

    Returns:
        (N, T) int64.

    Raises:
        ValueError: `minimum` is below 1, or the shapes are not (N, T).
    """
    if minimum < 1:
        raise ValueError(f"the shortest run to keep has at least 1 segment, got {minimum}")
    if classes_NT.ndim != 2 or (mask_NT is not None and mask_NT.shape != classes_NT.shape):
        masks = "none" if mask_NT is None else mask_NT.shape
        raise ValueError(f"needs labels (N, T) and a mask of the same shape, got {classes_NT.shape} and {masks}")
    filtered_NT = classes_NT.astype(np.int64)
    if minimum == 1 or not classes_NT.size:
        return filtered_NT
    if mask_NT is None:
        mask_NT = np.ones(classes_NT.shape, dtype=bool)
    # Real segments to the front, in their order.
    order_NT = np.argsort(~mask_NT, axis=1, kind="stable")
    front_NT = np.take_along_axis(filtered_NT, order_NT, axis=1)
    _filter_fronts(front_NT, mask_NT.sum(axis=1), minimum)
    np.put_along_axis(filtered_NT, order_NT, front_NT, axis=1)
    return filtered_NT


def _filter_fronts(labels_NT: NDArray[np.int64], counts_N: NDArray[np.int64], minimum: int) -> None:
    """In place, of the first `counts_N` labels: one run of every unfinished item a round."""
    times_T = np.arange(labels_NT.shape[1])
    open_M = np.flatnonzero(counts_N > 0)
    while len(open_M):
        labels_MT, inside_MT = labels_NT[open_M], times_T < counts_N[open_M, None]
        begins_MT = inside_MT.copy()
        begins_MT[:, 1:] &= labels_MT[:, 1:] != labels_MT[:, :-1]
        run_MT = np.cumsum(begins_MT, axis=1) - 1
        # Lengths by number of the run; 0 beyond the last one.
        rows_M = np.arange(len(open_M))
        length_MT = np.zeros(labels_MT.shape, dtype=np.int64)
        np.add.at(length_MT, (np.broadcast_to(rows_M[:, None], run_MT.shape)[inside_MT], run_MT[inside_MT]), 1)
        shortest_M = np.where(length_MT > 0, length_MT, labels_MT.shape[1] + 1).argmin(axis=1)
        more_M = (run_MT[:, -1] > 0) & (length_MT[rows_M, shortest_M] < minimum)

        open_M, rows_M, shortest_M = open_M[more_M], rows_M[more_M], shortest_M[more_M]
        left_M = np.where(shortest_M > 0, length_MT[rows_M, shortest_M - 1], 0)
        right_M = length_MT[rows_M, np.minimum(shortest_M + 1, labels_MT.shape[1] - 1)]
        from_M = shortest_M + np.where(left_M >= right_M, -1, 1)
        # A run's label is that of its first segment.
        source_M = (run_MT[rows_M] == from_M[:, None]).argmax(axis=1)
        overwritten_MT = (run_MT[rows_M] == shortest_M[:, None]) & inside_MT[rows_M]
        labels_NT[open_M] = np.where(overwritten_MT, labels_MT[rows_M, source_M][:, None], labels_MT[rows_M])
