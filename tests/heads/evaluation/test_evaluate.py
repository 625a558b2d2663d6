"""Evaluation: every counted segment counts, whatever became of its video."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from catalog.dataset import Dataset
from catalog.event import Event
from heads.blocks.segment_head import SegmentHead
from heads.data.split import read_split
from heads.data.targets import truth
from heads.evaluation.evaluate import baselines, evaluate, judge, mean_loss
from heads.evaluation.predict import logits
from heads.features import FeatureBatch


class Constant(SegmentHead):
    """A head that always says the same."""

    def __init__(self, logits_K: list[float]) -> None:
        super().__init__()
        self.logits_K = torch.tensor(logits_K)

    def forward(self, batch: FeatureBatch) -> Tensor:
        return self.logits_K.expand(*batch.mask_BT.shape, -1)


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


def test_judge_is_the_evaluations_number_also_where_features_are_missing(tmp_path: Path, planted: ModuleType) -> None:
    data = planted.dataset(items_a_class=8)
    store = planted.store(tmp_path / "store", data, quarantined=["video-003"], missing=["video-007"])
    split = read_split(store, "descriptors-1s", data, "test")
    head = Constant([5.0, 0.0, 0.0, 0.0])
    true_NT = np.asarray(truth(data, split.items, split.recipe.grid, 10), dtype=np.int64)
    found = judge(logits(head, split), true_NT, split, data)
    assert found == {"accuracy": evaluate(head, split, data).metrics["accuracy"]}


def test_mean_loss_weighs_every_real_segment_alike() -> None:
    rng = np.random.default_rng(0)
    logits_NTK = rng.normal(size=(3, 4, 5)).astype(np.float32)
    true_NT = rng.integers(0, 5, (3, 4))
    mask_NT = np.arange(4) < np.array([4, 1, 0])[:, None]
    told = [
        float(np.log(np.exp(logits_NTK[n, t]).sum()) - logits_NTK[n, t, true_NT[n, t]])
        for n in range(3)
        for t in range(4)
        if mask_NT[n, t]
    ]
    found = mean_loss(logits_NTK, true_NT, mask_NT)
    assert found is not None
    np.testing.assert_allclose(found, np.mean(told), rtol=1e-5)  # float32 sums
    assert mean_loss(logits_NTK, true_NT, np.zeros_like(mask_NT)) is None


class Blip(SegmentHead):
    """A head that says class 1 in the last two seconds of five, class 0 before and background after."""

    def forward(self, batch: FeatureBatch) -> Tensor:
        classes_T = torch.tensor([0, 0, 0, 1, 1, 3, 3, 3, 3, 3])
        return 9.0 * torch.nn.functional.one_hot(classes_T, 4).float().expand(len(batch.mask_BT), -1, -1)


def test_evaluate_smoothed_leaves_seconds_without_features_out_of_the_runs(tmp_path: Path, planted: ModuleType) -> None:
    data = planted.dataset(items_a_class=4)
    rows = {
        item.video_id: planted.rows_of(item, planted.recipe(), seconds=5) for item in data.items if item.split == "test"
    }
    store = planted.store(tmp_path / "store", data, rows=rows)
    split = read_split(store, "descriptors-1s", data, "test")
    found = evaluate(Blip(), split, data, smooth=3)
    true_NT = np.asarray(truth(data, split.items, split.recipe.grid, 10))
    # A run of two is a mistake of the run before it; what comes after is not real and no neighbour.
    assert found.smoothed == {"accuracy": float((true_NT == np.array([0] * 5 + [3] * 5)).mean())}
    assert found.metrics["accuracy"] == float((true_NT == np.array([0] * 3 + [1] * 2 + [3] * 5)).mean())


def test_baselines_are_decided_on_training_and_scored_on_the_split(tmp_path: Path, planted: ModuleType) -> None:
    data = planted.dataset(items_a_class=8)
    # In training "Train horn" alone is on all the time; elsewhere it never is.
    items = tuple(
        replace(
            item,
            events=()
            if item.category != "Train horn"
            else (Event(start_s=Fraction(0), end_s=Fraction(10), label="Train horn"),),
        )
        if item.split == "train"
        else item
        for item in data.items
    )
    data = replace(data, items=items)
    split = read_split(planted.store(tmp_path / "store", data), "descriptors-1s", data, "test")
    true_NT = np.asarray(truth(data, split.items, split.recipe.grid, 10))
    found = baselines(split, data)
    assert found["majority"] == {"accuracy": float((true_NT == 3).mean())}
    assert found["always_event"] == {"accuracy": float((true_NT == 2).mean())}
    assert found["class_known"] == {"accuracy": float((true_NT != 3).mean())}


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


def test_several_labels_without_any_in_the_split_have_no_precision(tmp_path: Path, planted: ModuleType) -> None:
    data = several(planted.dataset(items_a_class=4))
    store = planted.store(tmp_path / "store", data)
    data = replace(data, items=tuple(i if i.split == "train" else replace(i, events=()) for i in data.items))
    split = read_split(store, "descriptors-1s", data, "test")
    found = evaluate(Constant([0.0, 0.0, 0.0]), split, data)
    assert found.metrics["segment_micro_f1"] == 0
    assert "segment_map" not in found.metrics
    assert set(baselines(split, data)["majority"]) == {"segment_micro_f1"}
    logits_NTK = np.zeros((3, 10, 3), np.float32)
    assert judge(logits_NTK, np.zeros((3, 10, 3), bool), split, data) == {}


def several(data: Dataset) -> Dataset:
    """The same items with a second, overlapping event each; no background and no fixed length."""
    items = []
    for item in data.items:
        label = data.classes[(data.class_index(item.events[0].label) + 1) % 3]
        second = Event(start_s=Fraction(1), end_s=Fraction(4), label=label)
        items.append(replace(item, events=(*item.events, second), category=None))
    return replace(data, items=tuple(items), num_segments=None, background=None)
