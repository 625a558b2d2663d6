"""From probabilities to events: runs of segments, by hand-made cases and a slow loop."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from catalog.grid import GridRule
from heads.blocks.segment_head import SegmentHead
from heads.data.split import read_split
from heads.evaluation.predict import events, held_classes, logits, probabilities
from heads.features import FeatureBatch

SECOND = GridRule(window_s=Fraction(1), hop_s=Fraction(1))


def one_hot(labels: list[int], num: int, sure: float = 0.8) -> np.ndarray:
    table = np.full((len(labels), num), (1 - sure) / (num - 1), dtype=np.float32)
    table[np.arange(len(labels)), labels] = sure
    return table


def test_events_one_label_runs_become_events_and_background_none() -> None:
    p = one_hot([2, 0, 0, 1, 2, 0], 3)
    p[2, 0] = 0.6
    found = events("v", held_classes(p, 2, one_label=True), p, SECOND, ("a", "b"))
    assert [(e.label, e.start_s, e.end_s) for e in found] == [("a", 1, 3), ("b", 3, 4), ("a", 5, 6)]
    assert found[0].score == pytest.approx(0.7)
    assert {e.video_id for e in found} == {"v"}


def test_events_end_is_cut_to_duration() -> None:
    p = one_hot([0] * 3, 2)
    found = events("v", held_classes(p, 1, one_label=True), p, SECOND, ("a",), duration_s=2.25)
    assert [(e.start_s, e.end_s) for e in found] == [(0, 2.25)]


def test_events_several_labels_equal_slow_loop_over_classes() -> None:
    rng = np.random.default_rng(0)
    p = rng.random((30, 4)).astype(np.float32)
    wanted = set()
    for k in range(4):
        start = None
        for t in range(31):
            held = t < 30 and p[t, k] >= 0.6
            if held and start is None:
                start = t
            if not held and start is not None:
                wanted.add((k, start, t, round(float(p[start:t, k].astype(float).mean()), 9)))
                start = None
    found = events("v", held_classes(p, 4, one_label=False, threshold=0.6), p, SECOND, tuple("abcd"))
    assert {("abcd".index(e.label), int(e.start_s), int(e.end_s), round(e.score, 9)) for e in found} == wanted
    assert [e.start_s for e in found] == sorted(e.start_s for e in found)


def test_events_overlapping_windows_meet_half_way() -> None:
    grid = GridRule(window_s=Fraction(2), hop_s=Fraction(1))  # middles at 1, 2, 3, 4
    p = one_hot([0, 0, 1, 1], 3)
    found = events("v", held_classes(p, 2, one_label=True), p, grid, ("a", "b"))
    assert [(e.start_s, e.end_s) for e in found] == [(0.5, 2.5), (2.5, 4.5)]


def test_probabilities_outside_the_mask_are_background() -> None:
    scores = np.array([[[0.0, 0.0, 9.0], [9.0, 0.0, 0.0]]], dtype=np.float32)
    mask = np.array([[True, False]])
    one = probabilities(scores, mask, one_label=True)
    np.testing.assert_allclose(one[0, 0], np.exp(scores[0, 0]) / np.exp(scores[0, 0]).sum(), rtol=1e-6)
    assert one[0, 1].tolist() == [0, 0, 1]
    assert probabilities(scores, mask, one_label=False)[0, 1].tolist() == [0, 0, 0]


class Broken(SegmentHead):
    """A head that gives NaN where the sound is loud."""

    def forward(self, batch: FeatureBatch) -> Tensor:
        assert batch.audio is not None
        loud_BT1 = batch.audio.abs().amax(dim=-1, keepdim=True) > 50
        return torch.where(loud_BT1, torch.nan, torch.zeros(*batch.mask_BT.shape, 4))


def test_logits_nan_names_the_items(tmp_path: Path, planted: ModuleType) -> None:
    data = planted.dataset(items_a_class=4)
    item = data.split("test")[1]
    rows = planted.rows_of(item, planted.recipe())
    rows.audio.values[3] = 100
    store = planted.store(tmp_path / "store", data, rows={item.video_id: rows})
    split = read_split(store, "descriptors-1s", data, "test")
    with pytest.raises(ValueError, match=f"NaN or infinity for 1 items of test: {item.id}$"):
        logits(Broken(), split, batch_size=2)
