"""From a dense head's outputs to events in seconds."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from catalog.dataset import Item
from catalog.event import Event
from catalog.video import Video
from heads.data.device import DeviceSplit
from heads.dense.candidates import Candidates
from heads.dense.detect import detect, in_seconds, outputs, predictions, reach_s
from heads.evaluation.media_events import detected_events
from tests.heads import dense_planted as told


def test_events_are_found_where_they_are_to_the_exact_second() -> None:
    data = told.dataset(videos=30)
    split = told.split(data, "test")
    found = detect(told.Told(), split)
    for n, (item, one) in enumerate(zip(split.items, found, strict=True)):
        duration_s = data.by_id[item.video_id].duration_s
        assert duration_s is not None
        best = in_seconds(one, split.recipe.grid, float(duration_s))
        # Events without a segment's middle in them cannot be said; here all last a second or more.
        assert len(best) >= len(item.events)
        assert (np.diff(best.scores_N) <= 0).all()
        true = sorted((data.class_index(e.label), float(e.start_s), float(e.end_s)) for e in item.events)
        chosen = sorted(
            (int(k), *best.segments_N2[best.labels_N == k][0].tolist()) for k in sorted({k for k, *_ in true})
        )
        np.testing.assert_allclose(np.array(chosen), np.array(true), atol=1e-4)
        assert reach_s(split, n, duration_s) == float(duration_s)


def test_items_come_back_in_their_order_however_they_were_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    data = told.dataset(videos=18, seed=3)
    split = told.split(data, "test", absent=("v5",))
    whole = detect(told.Told(), split)
    monkeypatch.setattr("heads.dense.detect.BATCH_SEGMENTS", 80)
    for one, other in zip(whole, detect(told.Told(), split), strict=True):
        np.testing.assert_array_equal(one.segments_N2, other.segments_N2)
        np.testing.assert_array_equal(one.labels_N, other.labels_N)
    assert [len(one) == 0 for one in whole] == [item.id == "v5" for item in split.items]


@pytest.mark.parametrize("length", [64, 65, 100, 161, 250])
def test_windows_give_what_one_pass_gives_as_far_as_the_head_looks(length: int) -> None:
    rng = np.random.default_rng(length)
    data = told.dataset(videos=3)
    split = told.split(data, "train")
    rows_NT = np.arange(length)[None, :]
    values = rng.normal(size=(length, 9)).astype(np.float32)
    assert split.visual is not None
    rows = type(split.visual)(values=values, valid=np.ones(length, dtype=bool))
    long = type(split)(
        **{**vars(split), "items": split.items[:1], "visual": rows, "rows_NT": rows_NT, "counted_NT": rows_NT >= 0}
    )
    device_split = DeviceSplit(long, None, "cpu")
    args = (device_split, np.array([0]), np.array([length]), "cpu")
    for reach, is_equal in ((8, True), (20, False)):
        head = told.Smoothed(reach)
        whole = outputs(head, *args, window=10**6, margin=8)
        parts = outputs(head, *args, window=64, margin=8)
        assert whole.counts == parts.counts
        torch.testing.assert_close(whole.mask_BP, parts.mask_BP)
        same = torch.allclose(whole.logits_BPK, parts.logits_BPK, atol=1e-5) and torch.allclose(
            whole.offsets_BPC2, parts.offsets_BPC2, atol=1e-5
        )
        assert same == (is_equal or length <= 64)


def test_an_hour_may_have_more_events_than_a_minute() -> None:
    minutes, every_s = 4, 2
    events = tuple(
        Event(start_s=Fraction(s), end_s=Fraction(s + 1), label=told.CLASSES[0])
        for s in range(0, 60 * minutes, every_s)
    )
    data = replace(
        told.dataset(videos=3),
        items=(Item(id="long", video_id="long", split="test", events=events),),
        videos=(Video(id="long", uri="long.mp4", duration_s=Fraction(60 * minutes)),),
    )
    split = told.split(data, "test")
    sure = [int((one.scores_N > 0.9).sum()) for one in detect(told.Told(), split)]
    assert sure == [100]  # as published
    found = detected_events(told.Told(), split, told.CLASSES, [240.0], threshold=0.9)[0]
    np.testing.assert_allclose(
        [(one.start_s, one.end_s) for one in found], [(float(e.start_s), float(e.end_s)) for e in events], atol=1e-3
    )


def test_seconds_are_cut_to_the_video_and_what_is_nothing_then_is_gone() -> None:
    found = Candidates(
        segments_N2=np.array([[-9.0, 3.0], [2.0, 90.0], [-8.0, -3.0], [50.0, 70.0]]),
        scores_N=np.array([0.9, 0.8, 0.7, 0.6], dtype=np.float32),
        labels_N=np.array([0, 1, 2, 0]),
    )
    cut = in_seconds(found, told.GRID, 10.0)
    # g / 4 + 1 / 2 seconds
    assert cut.segments_N2.tolist() == [[0.0, 1.25], [1.0, 10.0]]
    assert in_seconds(found, told.GRID, None).segments_N2.tolist()[1] == [1.0, 23.0]
    made = predictions("clip", cut, told.CLASSES)
    assert [(one.label, one.start_s, one.end_s) for one in made] == [("bark", 0.0, 1.25), ("horn", 1.0, 10.0)]


def test_an_item_of_unknown_length_ends_with_its_last_window() -> None:
    split = told.split(told.dataset(videos=6), "train", absent=("v3",))
    count = int(split.mask_NT[0].sum())
    assert reach_s(split, 0, None) == (count - 1) / 4 + 1
    assert reach_s(split, 1, None) is None
    assert reach_s(split, 1, Fraction(7, 2)) == 3.5


def test_outputs_that_are_no_numbers_name_the_item() -> None:
    split = told.split(told.dataset(videos=6), "train")
    assert split.visual is not None
    split.visual.values[-1, 0] = np.nan
    head = told.Told().train()
    with pytest.raises(ValueError, match="NaN or infinity for 1 items of train: v3"):
        detect(head, split)
    assert head.training
