"""Evaluation: every counted segment counts, whatever became of its video."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from catalog.dataset import Dataset
from catalog.event import Event
from heads.evaluate import baselines, evaluate
from heads.read import read_split


class Constant(nn.Module):
    """A head that always says the same."""

    def __init__(self, logits_K: list[float]) -> None:
        super().__init__()
        self.logits_K = torch.tensor(logits_K)

    def forward(self, visual: Tensor, audio: Tensor, mask: Tensor, visual_valid: Tensor, audio_valid: Tensor) -> Tensor:
        return self.logits_K.expand(*mask.shape, -1)


def test_evaluate_videos_without_features_count_as_background(tmp_path: Path, planted: ModuleType) -> None:
    data = planted.dataset(items_a_class=8)
    gone = {"video-003": "quarantined", "video-007": "missing"}
    store = planted.store(tmp_path / "store", data, quarantined=["video-003"], missing=["video-007"])
    split = read_split(store, "descriptors-1s", data, "test")
    found = evaluate(Constant([5.0, 0.0, 0.0, 0.0]), split, data)  # class 0, always

    right = total = 0
    for item in data.items:
        if item.split == "test":
            for t in range(10):
                inside = item.events[0].start_s <= t < item.events[0].end_s
                true = data.class_index(item.events[0].label) if inside else 3
                right += true == (3 if item.video_id in gone else 0)
                total += 1
    assert total == found.metrics["segments"] == 60
    assert found.metrics["accuracy"] == right / total
    assert found.metrics["items_without_features"] == 2
    assert found.metrics["segments_without_features"] == 20
    assert found.confusion is not None
    assert found.confusion.sum() == 60
    assert found.rows[0]["labels_pred"] == [3] * 10
    assert found.rows[0]["score"] == [0.0] * 10
    assert found.rows[0]["mask"] == [False] * 10
    assert found.rows[2]["labels_pred"] == [0] * 10
    p = float(np.exp(5) / (np.exp(5) + 3))
    np.testing.assert_allclose(found.rows[2]["score"], p, atol=1e-6)  # rounded to six places


def test_evaluate_seen_and_unseen_are_told_apart(tmp_path: Path, planted: ModuleType) -> None:
    data = planted.dataset(items_a_class=4)
    items = tuple(replace(item, seen=item.category != "Train horn") for item in data.items)
    data = replace(data, items=items)
    store = planted.store(tmp_path / "store", data)
    split = read_split(store, "descriptors-1s", data, "test")
    metrics = evaluate(Constant([5.0, 0.0, 0.0, 0.0]), split, data).metrics
    bark = next(item for item in data.split("test") if item.category == "Bark").events[0]
    assert metrics["accuracy_unseen"] == 0
    assert metrics["accuracy_seen"] == float(bark.end_s - bark.start_s) / 20
    assert metrics["accuracy"] == float(bark.end_s - bark.start_s) / 30


def test_evaluate_several_labels_constant_scores_have_the_prevalence(tmp_path: Path, planted: ModuleType) -> None:
    data = several(planted.dataset(items_a_class=4))
    store = planted.store(tmp_path / "store", data, missing=["video-003"])
    split = read_split(store, "descriptors-1s", data, "test")
    found = evaluate(Constant([0.0, 0.0, 0.0]), split, data)
    labels = np.zeros((3, 10, 3), dtype=bool)
    for n, item in enumerate(data.split("test")):
        for event in item.events:
            labels[n, int(event.start_s) : int(event.end_s), data.class_index(event.label)] = True
    # The missing video's segments score 0 and come after all others, which score 1/2: two steps of precision.
    shown, counted = labels[1:].reshape(20, 3), split.counted_NT.sum()
    precisions = []
    for k in range(3):
        total = labels[..., k].sum()
        if total:
            hits = shown[:, k].sum()
            precisions.append(hits / 20 * hits / total + total / counted * (1 - hits / total))
    np.testing.assert_allclose(found.metrics["segment_map"], np.mean(precisions), rtol=1e-12)
    assert found.rows[1]["labels_pred"] == [[0, 1, 2]] * 10  # sigmoid(0) is 0.5, the threshold itself
    assert found.rows[1]["score"] == [[0.5, 0.5, 0.5]] * 10
    assert found.rows[0]["labels_pred"][0] == []
    assert found.confusion is None
    assert set(baselines(split, data)) == {"majority"}


def several(data: Dataset) -> Dataset:
    """The same items with a second, overlapping event each; no background and no fixed length."""
    items = []
    for item in data.items:
        label = data.classes[(data.class_index(item.events[0].label) + 1) % 3]
        second = Event(start_s=Fraction(1), end_s=Fraction(4), label=label)
        items.append(replace(item, events=(*item.events, second), category=None))
    return replace(data, items=tuple(items), num_segments=None, background=None)
