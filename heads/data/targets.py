"""Events to the truth of each segment. A segment has a class where its middle lies inside the event: exact rationals.

N items, T segments, E events, K classes (background not included). With 1 s segments and whole-second events this is
AVE's rule: second t has the class if start <= t < end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from catalog.dataset import Dataset, Item
from catalog.event import Event
from catalog.grid import GridRule


def has_one_label(dataset: Dataset) -> bool:
    """True where a segment has exactly one class or background (AVE, OV-AVEBench), False where several may hold."""
    return dataset.background is not None


def truth(
    dataset: Dataset, items: Sequence[Item], grid: GridRule, num_segments: int
) -> NDArray[np.int64] | NDArray[np.bool_]:
    """`segment_classes` (N, T) int64 or `segment_labels` (N, T, K) bool, whichever the data set is about.

    Raises:
        ValueError: the data set has no classes.
    """
    if not dataset.classes:
        raise ValueError(f"data set {dataset.name} has no annotations: there is nothing to train or to evaluate on")
    make = segment_classes if has_one_label(dataset) else segment_labels
    return make(items, dataset.classes, grid, num_segments)


def event_segments(event: Event, grid: GridRule, num_segments: int) -> range:
    """The segments among the first `num_segments` whose middle m has `start_s <= m < end_s`."""
    first = _first_middle_at(event.start_s, grid)
    stop = _first_middle_at(event.end_s, grid)
    return range(min(max(first, 0), num_segments), min(max(stop, 0), num_segments))


def segments_until(time_s: Fraction, grid: GridRule) -> int:
    """How many segments have their middle before `time_s`."""
    return max(0, _first_middle_at(time_s, grid))


def labelled_segments(item: Item, dataset: Dataset, grid: GridRule) -> int:
    """How many segments of an item the annotation speaks of: the data set's number where it is fixed, else those of
    the annotated duration or, without one, up to the last event; at least 1."""
    if dataset.num_segments is not None:
        return grid.grid(Fraction(dataset.num_segments)).count
    duration_s = dataset.by_id[item.video_id].duration_s
    reach = max((segments_until(event.end_s, grid) for event in item.events), default=0)
    return max(reach, grid.grid(duration_s).count if duration_s is not None else 1)


def training_labels(dataset: Dataset, grid: GridRule) -> NDArray[np.int64] | NDArray[np.bool_]:
    """The truth of every labelled segment of the training split, with or without features: (S,) or (S, K)."""
    items = dataset.split("train")
    if not items:
        raise ValueError(f"data set {dataset.name} has no training items")
    counts_N = np.array([labelled_segments(item, dataset, grid) for item in items])
    longest = int(counts_N.max())
    return truth(dataset, items, grid, longest)[np.arange(longest)[None, :] < counts_N[:, None]]


def segment_classes(
    items: Sequence[Item], classes: Sequence[str], grid: GridRule, num_segments: int
) -> NDArray[np.int64]:
    """The one class of each segment.

    Returns:
        (N, T) int64; `len(classes)` is background.

    Raises:
        ValueError: a label is not among `classes`, or two events of different classes share a segment.
    """
    class_index = _index(classes)
    background = len(classes)
    classes_NT = np.full((len(items), num_segments), background, dtype=np.int64)
    for row_T, item in zip(classes_NT, items, strict=True):
        for event in item.events:
            segments = event_segments(event, grid, num_segments)
            label = _class_of(event, class_index, item)
            view = row_T[segments.start : segments.stop]
            if ((view != background) & (view != label)).any():
                raise ValueError(
                    f"item {item.id}: events of different classes share a segment of {float(grid.window_s):g} s, "
                    "and a segment has one class here; correct the annotation or take a finer grid"
                )
            view[:] = label
    return classes_NT


def segment_labels(
    items: Sequence[Item], classes: Sequence[str], grid: GridRule, num_segments: int
) -> NDArray[np.bool_]:
    """Every class of each segment.

    Returns:
        (N, T, K) bool.

    Raises:
        ValueError: a label is not among `classes`.
    """
    class_index = _index(classes)
    labels_NTK = np.zeros((len(items), num_segments, len(classes)), dtype=bool)
    for labels_TK, item in zip(labels_NTK, items, strict=True):
        for event in item.events:
            segments = event_segments(event, grid, num_segments)
            labels_TK[segments.start : segments.stop, _class_of(event, class_index, item)] = True
    return labels_NTK


def events_on_grid(
    items: Sequence[Item], classes: Sequence[str], grid: GridRule
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The events' times in grid units, (t - window / 2) / hop, in the annotation's order; a little below 0 may occur.

    Returns:
        (N, E, 2) float32 start and end, and (N, E) int64 classes, -1 where an item has no further event; E is the
        most events of an item, at least 1.

    Raises:
        ValueError: a label is not among `classes`.
    """
    class_index = _index(classes)
    most = max((len(item.events) for item in items), default=0)
    times_NE2 = np.zeros((len(items), max(1, most), 2), dtype=np.float32)
    labels_NE = np.full((len(items), max(1, most)), -1, dtype=np.int64)
    for n, item in enumerate(items):
        for e, event in enumerate(item.events):
            times_NE2[n, e] = [
                float((time_s - grid.window_s / 2) / grid.hop_s) for time_s in (event.start_s, event.end_s)
            ]
            labels_NE[n, e] = _class_of(event, class_index, item)
    return times_NE2, labels_NE


def _first_middle_at(time_s: Fraction, grid: GridRule) -> int:
    # middle(i) = i * hop + window / 2 >= time  <=>  i >= (time - window / 2) / hop
    return math.ceil((time_s - grid.window_s / 2) / grid.hop_s)


def _index(classes: Sequence[str]) -> dict[str, int]:
    return {label: k for k, label in enumerate(classes)}


def _class_of(event: Event, class_index: Mapping[str, int], item: Item) -> int:
    try:
        return class_index[event.label]
    except KeyError:
        raise ValueError(f"item {item.id}: label {event.label!r} is not among the {len(class_index)} classes") from None
