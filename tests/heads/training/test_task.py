"""Both tasks keep one contract; a head's spec chooses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from catalog.dataset import Dataset
from heads.data.split import read_split
from heads.registry import names, spec
from heads.training.event_task import EventTask
from heads.training.segment_task import SegmentTask
from heads.training.settings import Settings
from heads.training.task import make_task
from tests.heads import dense_planted


@pytest.mark.parametrize("name", names())
def test_make_task_is_that_of_the_heads_spec(name: str) -> None:
    task = make_task(name, dense_planted.dataset(), Settings())
    assert isinstance(task, EventTask if spec(name).task == "events" else SegmentTask)


def test_options_that_apply_follow_from_head_and_data_set(planted: ModuleType) -> None:
    one: Dataset = planted.dataset()
    several = replace(one, num_segments=None, background=None)

    def applies(head: str, data: Dataset) -> tuple[str, bool, bool]:
        task = make_task(head, data, Settings())
        return task.headline, task.uses_threshold, task.uses_run_filter

    assert applies("linear", one) == ("accuracy", False, True)
    assert applies("linear", several) == ("segment_map", True, False)
    assert applies("loco", one) == applies("loco", several) == ("average_map", True, False)


def test_outputs_have_a_background_only_where_segments_are_scored() -> None:
    assert spec("linear").num_outputs(3, background=True) == 4
    assert spec("linear").num_outputs(3, background=False) == 3
    assert spec("loco").num_outputs(3, background=True) == spec("loco").num_outputs(3, background=False) == 3


def test_headline_is_a_number_of_every_baseline_and_size_counts_what_is_scored(
    planted: ModuleType, tmp_path: Path
) -> None:
    data: Dataset = planted.dataset(items_a_class=4)
    split = read_split(planted.store(tmp_path / "store", data), "descriptors-1s", data, "test")
    task = make_task("linear", data, Settings())
    assert all(task.headline in numbers for numbers in task.baselines(split).values())
    assert task.size({"segments": 30, "items": 3}) == "30 segments"
    dense = dense_planted.dataset(videos=9)
    events = make_task("loco", dense, Settings())
    assert all(events.headline in numbers for numbers in events.baselines(dense_planted.split(dense, "test")).values())
    assert events.size({"events": 7}) == "7 events"


def test_events_have_no_run_filter() -> None:
    data = dense_planted.dataset(videos=9)
    with pytest.raises(ValueError, match="the run filter is for heads that score segments"):
        EventTask(data, Settings()).evaluate(dense_planted.Told(), dense_planted.split(data, "test"), smooth=2)
