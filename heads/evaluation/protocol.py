"""The protocol by which a data set is scored: follows from what it declares, never from its name.

    no background (several labels a segment)                segment mAP and F1; segment mAP counts
    a background (one label)                                AVE's accuracy
    a background, and items that say whether they are seen  OV-AVEBench's accuracy, segment F1, event F1 and their mean,
                                                            for all, seen and unseen; the mean counts
    any, and a head that finds events                       UnAV-100's mAP at tIoU 0.1 to 0.9; their mean counts

N items, T segments, C classes (background not included; index C is background).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalog.dataset import Dataset, Item
from heads.data.targets import has_one_label
from heads.metrics import ave, ovavebench
from heads.runs.record import Numbers


def tells_seen(dataset: Dataset) -> bool:
    """Are there seen and unseen classes, as in OV-AVEBench? True where every item says which its class is."""
    return has_one_label(dataset) and seen_items(dataset.items) is not None


def seen_items(items: Sequence[Item]) -> NDArray[np.bool_] | None:
    """(N,) bool, True where the item's class is a seen one; None where an item does not say, or there is none."""
    if not items or any(item.seen is None for item in items):
        return None
    return np.array([item.seen is True for item in items])


def seen_classes(dataset: Dataset) -> NDArray[np.bool_]:
    """(C,) bool, the classes that may be trained on: all, unless the data set has unseen ones.

    A class is unseen where the data set says so, or an item of its category does.

    Raises:
        ValueError: a class has seen and unseen items.
    """
    if dataset.unseen:
        return np.array([label not in dataset.unseen for label in dataset.classes])
    if not tells_seen(dataset):
        return np.ones(len(dataset.classes), dtype=bool)
    named = {
        said: {label for item in dataset.items if item.seen is said for label in _labels(item)}
        for said in (True, False)
    }
    both = sorted(named[True] & named[False])
    if both:
        raise ValueError(f"{dataset.name}: {both[0]!r} is the class of seen and of unseen items; correct the list")
    return np.array([label not in named[False] for label in dataset.classes])


def unseen_labels(dataset: Dataset) -> tuple[str, ...]:
    """The classes that may not be trained on, in the data set's order.

    Raises:
        ValueError: as `seen_classes`.
    """
    return tuple(label for label, seen in zip(dataset.classes, seen_classes(dataset), strict=True) if not seen)


def without_unseen_training(dataset: Dataset) -> Dataset:
    """The data set whose training split has no item of an unseen class; the very one where it has none anyway.

    A video with several classes is left out where one of them is unseen: its event would be taught as background.

    Raises:
        ValueError: no item is left to train on.
    """
    unseen = set(dataset.unseen)
    kept = tuple(
        item
        for item in dataset.items
        if item.split != "train" or (item.seen is not False and not unseen & _labels(item))
    )
    if len(kept) == len(dataset.items):
        return dataset
    left = dataclasses.replace(dataset, items=kept)
    if not left.split("train"):
        raise ValueError(
            f"{dataset.name}: each of the {len(dataset.split('train'))} training items has an unseen class, so that "
            "none is left to train on; hold out fewer classes"
        )
    return left


def headline(dataset: Dataset) -> str:
    """The metric that counts for heads that score segments: it chooses the epoch (`heads.evaluation.evaluate.judge`)
    and stands for the baselines."""
    if tells_seen(dataset):
        return "mean"
    return "accuracy" if has_one_label(dataset) else "segment_map"


def class_metrics(
    predicted_NT: NDArray[np.int64],
    true_NT: NDArray[np.int64],
    counted_NT: NDArray[np.bool_],
    *,
    background: int,
    seen_N: NDArray[np.bool_] | None = None,
    flagged_NT: NDArray[np.bool_] | None = None,
) -> Numbers:
    """`accuracy` alone or, where `seen_N` is given, what `heads.metrics.ovavebench.summary` gives.

    Args:
        predicted_NT, true_NT: classes in [0, background].
        counted_NT: the segments that count.
        flagged_NT: see `heads.metrics.ovavebench.video_scores`; not asked without `seen_N`.

    Raises:
        ValueError: nothing is counted, or a class is out of range.
    """
    if seen_N is None:
        return {"accuracy": ave.accuracy(predicted_NT, true_NT, counted_NT)}
    scores = ovavebench.video_scores(
        predicted_NT, true_NT, background=background, counted_NT=counted_NT, flagged_NT=flagged_NT
    )
    return ovavebench.summary(scores, seen_N)


def _labels(item: Item) -> set[str]:
    return {event.label for event in item.events} | ({item.category} if item.category is not None else set())
