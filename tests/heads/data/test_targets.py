"""Events to segments: AVE's published labels, and the exact rule on other grids."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog import dataset as datasets
from catalog.dataset import Dataset, Item
from catalog.event import Event
from catalog.grid import GridRule
from catalog.video import Video
from heads.data.targets import event_segments, labelled_segments, segment_classes, segment_labels, training_labels

SECOND = GridRule(window_s=Fraction(1), hop_s=Fraction(1))


def item(*events: tuple[str, str, str], id_: str = "i") -> Item:
    found = tuple(Event(start_s=Fraction(a), end_s=Fraction(b), label=label) for a, b, label in events)
    return Item(id=id_, video_id="v", split="train", events=found)


def test_segment_classes_ave_equals_published_event_labels(shared: Path) -> None:
    root = shared / "data" / "annotations" / "ave"
    ave = datasets.load("ave", root)
    by_row = sorted(ave.items, key=lambda item: int(item.id))
    classes = segment_classes(by_row, ave.classes, SECOND, 10)
    with h5py.File(root / "labels_closs.h5") as file:
        published = file["avadataset"][...]
    np.testing.assert_array_equal(classes != 28, published == 1)
    with h5py.File(root / "mil_labels.h5") as file:
        video_class = file["avadataset"][...].argmax(axis=1)
    for row, wanted in zip(classes, video_class, strict=True):
        assert set(row.tolist()) <= {wanted, 28}


def test_segment_classes_golden_labels_equal_published(shared: Path) -> None:
    golden = np.load(shared / "parity" / "heads" / "ave" / "ave.npz", allow_pickle=False)
    ave = datasets.load("ave", shared / "data" / "annotations" / "ave")
    by_id = {item.id: item for item in ave.items}
    items = [by_id[f"{row:05d}"] for row in golden["idx"]]
    np.testing.assert_array_equal(segment_classes(items, ave.classes, SECOND, 10), golden["labels"].argmax(axis=-1))


@given(
    st.fractions(min_value="1/8", max_value=3, max_denominator=100),
    st.fractions(min_value="1/8", max_value=3, max_denominator=100),
    st.fractions(min_value=0, max_value=12, max_denominator=1000),
    st.fractions(min_value="1/1000", max_value=12, max_denominator=1000),
)
def test_event_segments_any_grid_equals_test_of_each_middle(
    window_s: Fraction, hop_s: Fraction, start_s: Fraction, length_s: Fraction
) -> None:
    grid = GridRule(window_s=window_s, hop_s=hop_s)
    event = Event(start_s=start_s, end_s=start_s + length_s, label="a")
    wanted = [i for i in range(20) if start_s <= i * hop_s + window_s / 2 < start_s + length_s]
    assert list(event_segments(event, grid, 20)) == wanted


def test_event_segments_event_edge_on_a_middle_is_start_inclusive_end_exclusive() -> None:
    grid = GridRule(window_s=Fraction("0.96"), hop_s=Fraction("0.96"))
    event = Event(start_s=Fraction("0.48"), end_s=Fraction("1.44"), label="a")
    assert list(event_segments(event, grid, 10)) == [0]  # middles 0.48 and 1.44, in floats 1.44 could fall either way


def test_segment_labels_overlapping_events_hold_both() -> None:
    labels = segment_labels([item(("0", "3", "b"), ("2", "4", "a"))], ("a", "b"), SECOND, 5)
    assert labels[0].astype(int).tolist() == [[0, 1], [0, 1], [1, 1], [1, 0], [0, 0]]


def test_segment_classes_overlap_of_two_classes_raises() -> None:
    with pytest.raises(ValueError, match="item i: events of different classes share a segment"):
        segment_classes([item(("0", "3", "b"), ("2", "4", "a"))], ("a", "b"), SECOND, 5)


def test_segment_classes_unknown_label_raises() -> None:
    with pytest.raises(ValueError, match="label 'c' is not among the 2 classes"):
        segment_classes([item(("0", "3", "c"))], ("a", "b"), SECOND, 5)


def test_segment_classes_event_beyond_the_grid_is_cut() -> None:
    assert segment_classes([item(("3", "9", "a"))], ("a",), SECOND, 5).tolist() == [[1, 1, 1, 0, 0]]


def test_training_labels_without_fixed_length_count_annotated_seconds() -> None:
    videos = (Video(id="v", uri="v.mp4", duration_s=Fraction("4.5")), Video(id="w", uri="w.mp4"))
    items = (
        item(("0", "2", "a")),
        Item(id="j", video_id="w", split="train", events=(Event(start_s=Fraction(1), end_s=Fraction(3), label="b"),)),
    )
    dense = Dataset(name="dense", classes=("a", "b"), items=items, videos=videos, num_segments=None, background=None)
    assert [labelled_segments(i, dense, SECOND) for i in items] == [5, 3]
    beyond = item(("5", "8", "a"))
    assert labelled_segments(beyond, replace(dense, items=(beyond,)), SECOND) == 8, "an event after the last second"
    assert training_labels(dense, SECOND).sum(axis=0).tolist() == [2, 2]
    assert len(training_labels(dense, SECOND)) == 8


def test_training_labels_data_set_without_classes_raises() -> None:
    videos = (Video(id="v", uri="v.mp4"),)
    bare = Dataset(
        name="folder",
        classes=(),
        items=(Item(id="i", video_id="v", split="train", events=()),),
        videos=videos,
        num_segments=None,
        background=None,
    )
    with pytest.raises(ValueError, match="folder has no annotations"):
        training_labels(bare, SECOND)


def test_training_labels_planted_set_counts_every_item(planted: ModuleType) -> None:
    data = planted.dataset()
    assert training_labels(data, SECOND).shape == (30 * 10,)
