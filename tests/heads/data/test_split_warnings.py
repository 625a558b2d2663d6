"""What is said of splits: why features are missing, events after the end of the features, another grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

from catalog.dataset import Dataset
from heads.data.split import read_split
from heads.data.split_warnings import split_warnings


def test_missing_features_are_counted_by_reason_and_say_what_becomes_of_the_items(
    planted: ModuleType, tmp_path: Path
) -> None:
    data: Dataset = planted.dataset(items_a_class=4)
    ids = [item.video_id for item in data.split("train")]
    store = planted.store(tmp_path / "store", data, missing=ids[:2], quarantined=ids[2:3])
    split = read_split(store, "descriptors-1s", data, "train")
    reasons = "(not in the store 2, quarantined: empty_file 1)"
    for training, fate in ((True, "left out of training"), (False, "counted as background")):
        found = split_warnings(data, {"train": split}, training=training)
        assert found == [f"train: 3 of 6 items without features, {fate} {reasons}"]


def test_events_that_begin_after_the_features_are_named(planted: ModuleType, tmp_path: Path) -> None:
    data: Dataset = planted.dataset(items_a_class=4)
    late = [item for item in data.split("test") if item.events[0].start_s >= 2]
    rows = {item.video_id: planted.rows_of(item, planted.recipe(), seconds=2) for item in late}
    free = replace(data, num_segments=None)
    split = read_split(planted.store(tmp_path / "store", data, rows=rows), "descriptors-1s", free, "test")
    (found,) = split_warnings(free, {"test": split}, training=False)
    assert found.startswith(f"test: {len(late)} events of {len(late)} items begin after the features of their videos")
    assert f"such as {late[0].id}: an event at {float(late[0].events[0].start_s):g} s, features until 2 s" in found


def test_grid_that_is_not_the_protocols_is_said_once(planted: ModuleType, tmp_path: Path) -> None:
    data: Dataset = planted.dataset(items_a_class=4)
    half = planted.recipe("half", window_s="1/2", hop_s="1/2")
    store = planted.store(tmp_path / "store", data, half)
    read = {name: read_split(store, "half", data, name) for name in ("train", "val")}
    (found,) = split_warnings(data, read, training=True)
    assert "segments last 0.5 s every 0.5 s" in found
