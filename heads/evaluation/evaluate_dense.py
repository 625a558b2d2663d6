"""A dense head's numbers on a split by UnAV-100's protocol, and those of baselines that look at nothing.

N items, E events, K classes. Items without features stay: all their events are missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.dataset import Dataset, Item
from heads.data.split import Split
from heads.dense.candidates import Candidates
from heads.dense.detect import Detection, detect, in_seconds, reach_s
from heads.dense.head import DenseHead
from heads.evaluation import dense_baselines
from heads.metrics.unav100 import DetectionScore, EventTable, detection_score
from heads.runs.record import Numbers

# The metric that counts.
HEADLINE = "average_map"


def evaluate_dense(
    head: DenseHead, split: Split, dataset: Dataset, *, device: str = "cpu", detection: Detection | None = None
) -> tuple[Numbers, list[dict[str, Any]]]:
    """Metrics, and one row an item for `predictions_{split}.json`.

    Metrics are counts and, where the split has an event, `average_map` (tIoU 0.1 to 0.9), `average_map_strict` (0.5 to
    0.9), `map_0.1` ... `map_0.9` (with `_seen` and `_unseen` where the data set has unseen classes). A row has "item",
    "video", "duration_s", "events_true" and "events_pred": lists of [start_s, end_s, class] and [start_s, end_s, class,
    score].
    """
    found = detect(head, split, device=device, detection=detection)
    found_s = _found_in_seconds(found, split, dataset)
    true = truth_table(split.items, dataset)
    metrics = _metrics(detection_score(true, _table(found_s)), dataset) if len(true) else {}
    counts: Numbers = {
        "items": len(split.items),
        "items_without_features": len(split.absent),
        "events": len(true),
    }
    return metrics | counts, _rows(found_s, split, dataset)


def judge_dense(found: Sequence[Candidates], split: Split, dataset: Dataset) -> Numbers:
    """The number that chooses an epoch, by its name; empty where the split has no such event.

    Where classes are held out it is that of the others: what is held out may decide nothing.

    Args:
        found: of each item, in grid units.
    """
    true = truth_table(split.items, dataset)
    if not len(true):
        return {}
    metrics = _metrics(detection_score(true, _table(_found_in_seconds(found, split, dataset))), dataset)
    name = f"{HEADLINE}_seen" if dataset.unseen else HEADLINE
    return {name: metrics[name]} if name in metrics else {}


def trivial_numbers(split: Split, dataset: Dataset) -> dict[str, Numbers]:
    """Metrics of the trivial baselines, which follow from the training split's events alone; empty without an event."""
    true, train = truth_table(split.items, dataset), truth_table(dataset.split("train"), dataset)
    if not len(true):
        return {}
    lengths = [_end_s(split, dataset, n) for n in range(len(split.items))]
    known_V = np.array([n for n, length_s in enumerate(lengths) if length_s], dtype=np.int64)
    seconds_V = np.array([length_s for length_s in lengths if length_s])
    guesses = {
        "whole_video": dense_baselines.whole_video(train, known_V, seconds_V),
        "mean_length": dense_baselines.mean_length(train, known_V, seconds_V),
    }
    return {name: _metrics(detection_score(true, guess), dataset) for name, guess in guesses.items()}


def truth_table(items: Sequence[Item], dataset: Dataset) -> EventTable:
    """All events of some items in seconds; items by their number."""
    return EventTable.of_items(
        [np.array([(float(e.start_s), float(e.end_s)) for e in item.events]).reshape(-1, 2) for item in items],
        [np.array([dataset.class_index(e.label) for e in item.events], dtype=np.int64) for item in items],
    )


def _found_in_seconds(found: Sequence[Candidates], split: Split, dataset: Dataset) -> list[Candidates]:
    return [in_seconds(one, split.recipe.grid, _end_s(split, dataset, n)) for n, one in enumerate(found)]


def _end_s(split: Split, dataset: Dataset, item: int) -> float | None:
    return reach_s(split, item, dataset.by_id[split.items[item].video_id].duration_s)


def _table(found_s: Sequence[Candidates]) -> EventTable:
    return EventTable.of_items(
        [one.segments_N2 for one in found_s], [one.labels_N for one in found_s], [one.scores_N for one in found_s]
    )


def _metrics(score: DetectionScore, dataset: Dataset) -> Numbers:
    groups: dict[str, NDArray[np.bool_]] = {"": np.ones(len(score.label_K), dtype=bool)}
    if dataset.unseen:
        unseen_K = np.isin(score.label_K, [dataset.class_index(label) for label in dataset.unseen])
        groups |= {"_seen": ~unseen_K, "_unseen": unseen_K}
    metrics: Numbers = {}
    for suffix, of_K in groups.items():
        if not of_K.any():
            continue
        group = score.of_classes(of_K)
        metrics[f"average_map{suffix}"] = group.average
        metrics[f"average_map_strict{suffix}"] = group.average_from_half
        for threshold, value in zip(group.tious_T.tolist(), group.map_T.tolist(), strict=True):
            metrics[f"map_{threshold:.1f}{suffix}"] = value
    return metrics


def _rows(found_s: Sequence[Candidates], split: Split, dataset: Dataset) -> list[dict[str, Any]]:
    rows = []
    for n, (item, one) in enumerate(zip(split.items, found_s, strict=True)):
        rows.append(
            {
                "item": item.id,
                "video": item.video_id,
                "duration_s": _end_s(split, dataset, n),
                "events_true": [
                    [float(event.start_s), float(event.end_s), dataset.class_index(event.label)]
                    for event in item.events
                ],
                "events_pred": [
                    [round(start, 6), round(end, 6), label, round(score, 6)]
                    for (start, end), label, score in zip(
                        one.segments_N2.tolist(), one.labels_N.tolist(), one.scores_N.tolist(), strict=True
                    )
                    if round(start, 6) < round(end, 6)
                ],
            }
        )
    return rows
