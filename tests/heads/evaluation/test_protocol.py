"""Which protocol scores a data set: by what it declares."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from catalog.dataset import Dataset, Item, load
from catalog.event import Event
from catalog.video import Video
from heads.evaluation.protocol import (
    class_metrics,
    headline,
    seen_classes,
    seen_items,
    tells_seen,
    without_unseen_training,
)
from heads.metrics import ave, ovavebench
from tests.heads import planted_texts as texts


def test_protocol_is_told_from_what_the_data_set_declares(planted: ModuleType) -> None:
    ave_like, ov = planted.dataset(items_a_class=4), texts.dataset()
    assert (headline(ave_like), headline(ov)) == ("accuracy", "mean")
    assert headline(replace(ov, name="anything")) == "mean"
    assert headline(replace(ov, background=None)) == "segment_map"
    assert not tells_seen(ave_like)
    some = replace(ov, items=(replace(ov.items[0], seen=None), *ov.items[1:]))
    assert not tells_seen(some)
    assert seen_items(some.items) is None
    assert seen_items(()) is None


def test_seen_classes_are_those_of_seen_items() -> None:
    ov = texts.dataset()
    assert [c for c, seen in zip(ov.classes, seen_classes(ov), strict=True) if seen] == list(texts.SEEN)
    # A class without any item is not unseen: nothing says so.
    lacking = replace(ov, classes=(*ov.classes, "zipping"))
    assert seen_classes(lacking).tolist() == [*seen_classes(ov).tolist(), True]
    # An item without an event has its category's class.
    silent = replace(ov, items=tuple(replace(item, events=()) for item in ov.items))
    assert seen_classes(silent).tolist() == seen_classes(ov).tolist()
    odd = replace(ov.items[0], id="x", video_id=ov.items[1].video_id, seen=False)
    with pytest.raises(ValueError, match="'barking' is the class of seen and of unseen items"):
        seen_classes(replace(ov, items=(*ov.items, odd)))


def test_items_of_unseen_classes_are_left_out_of_training_only() -> None:
    ov = texts.dataset()
    assert without_unseen_training(ov) is ov
    leaking = replace(ov, items=tuple(replace(i, split="train") if i.id == "purring-00" else i for i in ov.items))
    kept = without_unseen_training(leaking)
    assert {item.id for item in leaking.items} - {item.id for item in kept.items} == {"purring-00"}
    assert len(kept.split("test")) == len(ov.split("test"))


def test_unseen_classes_that_leave_nothing_to_train_on_are_refused() -> None:
    ov = texts.dataset()
    nothing = replace(ov, items=tuple(replace(i, seen=False) if i.split == "train" else i for i in ov.items))
    with pytest.raises(ValueError, match=r"each of the \d+ training items has an unseen class.* hold out fewer"):
        without_unseen_training(nothing)


def test_class_metrics_without_seen_are_aves_accuracy_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    predicted, true = rng.integers(0, 5, (2, 37, 10))
    counted = rng.random((37, 10)) < 0.9
    found = class_metrics(predicted, true, counted, background=4)
    assert found == {"accuracy": ave.accuracy(predicted, true, counted)}
    seen = rng.random(37) < 0.5
    scores = ovavebench.video_scores(predicted, true, background=4, counted_NT=counted)
    assert class_metrics(predicted, true, counted, background=4, seen_N=seen) == ovavebench.summary(scores, seen)


def test_protocol_of_the_real_annotations(shared: Path) -> None:
    place = shared / "data" / "annotations"
    ov = load("ovavebench", place / "ovavel")
    assert headline(ov) == "mean"
    assert int(seen_classes(ov).sum()) == 46
    assert len(ov.classes) == 67
    assert without_unseen_training(ov) is ov
    assert headline(load("ave", place / "ave")) == "accuracy"
    assert headline(load("unav100", place / "unav100")) == "segment_map"


def test_a_video_with_an_unseen_class_is_not_trained_on() -> None:
    def item(name: str, split: str, *labels: str) -> Item:
        events = tuple(Event(start_s=Fraction(0), end_s=Fraction(1), label=label) for label in labels)
        return Item(id=name, video_id=name, split=split, events=events)

    items = (item("a", "train", "dog", "cat"), item("b", "train", "cat"), item("c", "test", "dog"))
    whole = Dataset(
        name="dense",
        classes=("cat", "dog"),
        items=items,
        videos=tuple(Video(id=one.video_id, uri=one.video_id) for one in items),
        num_segments=None,
        background=None,
        unseen=("dog",),
    )
    assert [one.id for one in without_unseen_training(whole).items] == ["b", "c"]
    assert seen_classes(whole).tolist() == [True, False]
