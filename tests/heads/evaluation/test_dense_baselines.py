"""Events predicted without features, by hand and on real annotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from catalog.dataset import Dataset
from catalog.datasets import unav100
from heads.evaluation.dense_baselines import mean_length, whole_video
from heads.metrics.unav100 import EventTable, detection_score


def table(*rows: tuple[int, float, float, int]) -> EventTable:
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return EventTable(
        item_N=columns[0].astype(np.int64), start_N=columns[1], end_N=columns[2], label_N=columns[3].astype(np.int64)
    )


TRAIN = table((0, 0.0, 4.0, 2), (0, 1.0, 3.0, 2), (1, 0.0, 30.0, 5), (2, 5.0, 11.0, 2))


def rows_of(found: EventTable) -> list[tuple[float, ...]]:
    assert found.score_N is not None
    return [*zip(found.item_N, found.start_N, found.end_N, found.label_N, found.score_N, strict=True)]


def test_whole_video_has_every_class_by_its_share() -> None:
    found = whole_video(TRAIN, np.array([7, 9]), np.array([20.0, 12.5]))
    assert rows_of(found) == [(7, 0, 20, 2, 0.75), (7, 0, 20, 5, 0.25), (9, 0, 12.5, 2, 0.75), (9, 0, 12.5, 5, 0.25)]


def test_mean_length_lies_in_the_middle_and_inside() -> None:
    found = mean_length(TRAIN, np.array([7, 9]), np.array([20.0, 50.0]))
    assert rows_of(found) == [(7, 8, 12, 2, 0.75), (7, 0, 20, 5, 0.25), (9, 23, 27, 2, 0.75), (9, 10, 40, 5, 0.25)]


def test_baselines_without_training_events_or_durations_raise() -> None:
    with pytest.raises(ValueError, match="no training event"):
        whole_video(table(), np.array([0]), np.array([1.0]))
    with pytest.raises(ValueError, match="1 videos need as many durations above 0 s"):
        mean_length(TRAIN, np.array([0]), np.array([0.0]))


def test_baselines_on_the_real_test_split_find_little(shared: Path) -> None:
    dataset = unav100.load(shared / "data" / "annotations" / "unav100")
    train, test = (events_of(dataset, split) for split in ("train", "test"))
    items = dataset.split("test")
    durations = np.array([float(dataset.by_id[item.video_id].duration_s or 0) for item in items])
    whole = detection_score(test, whole_video(train, np.arange(len(items)), durations))
    mean = detection_score(test, mean_length(train, np.arange(len(items)), durations))
    # All classes have one score each: order is chance, precision is about a class's share of the videos.
    assert 0.001 < mean.average < whole.average < 0.01


def events_of(dataset: Dataset, split: str) -> EventTable:
    return table(
        *(
            (number, float(event.start_s), float(event.end_s), dataset.class_index(event.label))
            for number, item in enumerate(dataset.split(split))
            for event in item.events
        )
    )
