"""Events of media: padding is never predicted, thresholds and the run filter do what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from catalog.dataset import Dataset
from heads.blocks.segment_head import SegmentHead
from heads.data.split import Split, read_split
from heads.evaluation.media_events import detected_events, has_features, segment_events
from heads.features import FeatureBatch
from tests.heads import dense_planted


class Scripted(SegmentHead):
    """Logits by the number of the segment."""

    def __init__(self, logits_TK: list[list[float]]) -> None:
        super().__init__()
        self.logits_TK = torch.tensor(logits_TK)

    def forward(self, batch: FeatureBatch) -> Tensor:
        return self.logits_TK[: batch.mask_BT.shape[1]].expand(len(batch.mask_BT), -1, -1)


@pytest.fixture
def media(planted: ModuleType, tmp_path: Path) -> tuple[Dataset, Split]:
    """Three videos; of the second six segments are real, the third has no audio features."""
    data: Dataset = planted.dataset(items_a_class=4)
    items = data.split("test")
    short = planted.rows_of(items[1], planted.recipe(), seconds=6)
    deaf = planted.without(planted.rows_of(items[2], planted.recipe()), audio=np.ones(10, dtype=bool))
    rows = {items[1].video_id: short, items[2].video_id: deaf}
    store = planted.store(tmp_path / "store", data, rows=rows)
    data = replace(data, num_segments=None, items=tuple(replace(item, events=()) for item in items))
    return data, read_split(store, "descriptors-1s", data, "test")


def spans(found: list[list[object]]) -> list[list[tuple[object, ...]]]:
    return [[(e.label, e.start_s, e.end_s) for e in events] for events in found]  # type: ignore[attr-defined]


def test_segment_events_are_of_real_segments_and_cut_to_the_video(media: tuple[Dataset, Split]) -> None:
    data, split = media
    head = Scripted([[9.0, 0.0, 0.0, 0.0]] * 10)
    found = segment_events(head, split, data, [9.5, None, None])
    assert spans(found) == [[("Bark", 0, 9.5)], [("Bark", 0, 6)], [("Bark", 0, 10)]]  # type: ignore[arg-type]


def test_segment_events_run_filter_removes_what_is_short(media: tuple[Dataset, Split]) -> None:
    data, split = media
    head = Scripted([[9.0, 0.0, 0.0, 0.0]] * 4 + [[0.0, 9.0, 0.0, 0.0]] + [[9.0, 0.0, 0.0, 0.0]] * 5)
    assert len(segment_events(head, split, data, [None] * 3)[0]) == 3
    found = segment_events(head, split, data, [None] * 3, smooth=2)
    assert spans(found)[0] == [("Bark", 0, 10)]  # type: ignore[arg-type]


def test_segment_events_of_several_labels_hold_from_the_threshold_on(media: tuple[Dataset, Split]) -> None:
    data, split = media
    data = replace(data, background=None)
    head = Scripted([[1.0, -1.0, 3.0]] * 10)  # 0.73, 0.27, 0.95
    for threshold, labels in ((None, ["Bark", "Train horn"]), (0.9, ["Train horn"]), (0.2, list(data.classes))):
        found = segment_events(head, split, data, [None] * 3, threshold=threshold)
        assert sorted(e.label for e in found[0]) == sorted(labels)


def test_detected_events_are_those_of_the_threshold_in_order_of_start() -> None:
    data = dense_planted.dataset(videos=9)
    split = dense_planted.split(data, "test")
    durations_s = [10.0] * len(split.items)
    every = detected_events(dense_planted.Told(), split, data.classes, durations_s, threshold=1e-6)
    usual = detected_events(dense_planted.Told(), split, data.classes, durations_s)
    assert [[e for e in events if e.score >= 0.1] for events in every] == usual
    for events in usual:
        assert [e.start_s for e in events] == sorted(e.start_s for e in events)
        assert all(e.end_s <= 10 for e in events)
    assert sum(map(len, usual)) > 0


def test_has_features_asks_for_what_the_head_uses(media: tuple[Dataset, Split]) -> None:
    _, split = media
    assert has_features(split, "audio").tolist() == [True, True, False]
    assert has_features(split, "both").tolist() == has_features(split, "visual").tolist() == [True, True, True]
