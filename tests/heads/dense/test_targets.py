"""Targets of dense heads against the goldens of the published code, a slow loop, and laws of batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from heads.dense.points import Points, points
from heads.dense.targets import DenseTarget, dense_targets

MODES: dict[str, dict[str, Any]] = {
    "class_aware": {"class_aware": True, "center_radius": None},
    "class_agnostic": {"class_aware": False, "center_radius": None},
    "center_radius": {"class_aware": False, "center_radius": 1.5},
}


def targets_of(where: Points, events: Tensor, labels: Tensor, mode: str, num_classes: int = 100) -> DenseTarget:
    """Of one item."""
    mask_BP = torch.ones(1, len(where.time_P), dtype=torch.bool)
    return dense_targets(where, events[None], labels[None], mask_BP, num_classes=num_classes, **MODES[mode])


@pytest.mark.parametrize("mode", MODES)
def test_targets_of_real_and_awkward_videos_equal_goldens(shared: Path, mode: str) -> None:
    folder = shared / "parity" / "heads" / "targets"
    golden = np.load(folder / "targets.npz", allow_pickle=False)
    told = json.loads((folder / "targets.json").read_text())
    for name in told["names"]:
        for grid in told["grids"]:
            key = f"{name}/{grid}"
            where = points(told["grids"][grid]["T"])
            events, labels = (torch.from_numpy(golden[f"{key}/{part}"]) for part in ("segments_grid", "labels"))
            found = targets_of(where, events, labels, mode)
            np.testing.assert_array_equal(found.classes_BPK[0].nonzero(), golden[f"{key}/{mode}/cls_idx"], key)
            wanted = golden[f"{key}/{mode}/reg_idx"]
            positive = found.positive_BPC[0] if mode == "class_aware" else found.positive_BPC[0, :, 0]
            np.testing.assert_array_equal(positive.nonzero(), wanted.reshape(len(wanted), -1), key)
            # Float32 differences of numbers up to 256.
            np.testing.assert_allclose(
                found.offsets_BPC2[found.positive_BPC], golden[f"{key}/{mode}/reg_val"], rtol=0, atol=1e-4
            )
            assert not found.offsets_BPC2[~found.positive_BPC].any()


def random_events(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Many of one class, on halves of grid units so that ends of ranges, equal lengths and bare touches occur."""
    rng = torch.Generator().manual_seed(seed)
    start_E = torch.randint(-2, 100, (count,), generator=rng) / 2
    length_E = torch.randint(1, 80, (count,), generator=rng) / 2
    return torch.stack([start_E, start_E + length_E], dim=1), torch.randint(0, 4, (count,), generator=rng)


def slow(where: Points, events: Tensor, labels: Tensor, num_classes: int, mode: str) -> tuple[Tensor, Tensor]:
    """Classes (P, K) and offsets (P, C, 2), NaN where nothing is said."""
    class_aware, radius = MODES[mode]["class_aware"], MODES[mode]["center_radius"]
    count = len(where.time_P)
    classes = torch.zeros(count, num_classes)
    offsets = torch.full((count, num_classes if class_aware else 1, 2), torch.nan)
    for p in range(count):
        t, low, high, stride = (float(v[p]) for v in (where.time_P, where.low_P, where.high_P, where.stride_P))
        told = []
        for (start, end), label in zip(events.tolist(), labels.tolist(), strict=True):
            near = radius is None or abs(t - (start + end) / 2) < radius * stride
            if start < t < end and low <= max(t - start, end - t) <= high and near:
                told.append((end - start, label, torch.tensor([t - start, end - t]) / stride))
        if class_aware:
            for _, label, sides in told:
                classes[p, label], offsets[p, label] = 1, sides
        elif told:
            shortest = min(told, key=lambda one: one[0])
            offsets[p, 0] = shortest[2]
            for length, label, _ in told:
                if length - shortest[0] <= 1e-3:
                    classes[p, label] = 1
    return classes, offsets


@pytest.mark.parametrize("mode", MODES)
def test_targets_of_random_events_equal_slow_loop(mode: str) -> None:
    where = points(64, 5)
    for seed in range(6):
        events, labels = random_events(14, seed)
        found = targets_of(where, events, labels, mode, num_classes=4)
        classes, offsets = slow(where, events, labels, 4, mode)
        torch.testing.assert_close(found.classes_BPK[0], classes, rtol=0, atol=0)
        torch.testing.assert_close(found.positive_BPC[0], ~offsets.isnan().any(dim=-1))
        torch.testing.assert_close(found.offsets_BPC2[0], offsets.nan_to_num(), rtol=0, atol=0)
        assert found.positive_BPC.any()


@pytest.mark.parametrize("mode", MODES)
def test_targets_of_a_batch_are_those_of_its_items_alone(mode: str) -> None:
    where = points(64, 5)
    held = [random_events(count, count) for count in (3, 0, 7)]
    events_BE2 = torch.full((3, 9, 2), torch.nan)
    events_BE2[:, -1] = torch.tensor([1.0, 30.0])  # padded: whatever times it has
    labels_BE = torch.full((3, 9), -1)
    for b, (events, labels) in enumerate(held):
        events_BE2[b, : len(events)], labels_BE[b, : len(events)] = events, labels
    mask_BP = torch.ones(3, len(where.time_P), dtype=torch.bool)
    mask_BP[2] = where.time_P < 40
    batch = dense_targets(where, events_BE2, labels_BE, mask_BP, num_classes=4, **MODES[mode])
    for b, (events, labels) in enumerate(held):
        alone = targets_of(where, events, labels, mode, num_classes=4)
        for name in ("classes_BPK", "offsets_BPC2", "positive_BPC"):
            one = getattr(alone, name)[0]
            one[~mask_BP[b]] = 0
            torch.testing.assert_close(getattr(batch, name)[b], one, rtol=0, atol=0)
    assert not batch.positive_BPC[1].any()
    assert batch.positive_BPC[2].any()


def test_targets_without_any_event_are_empty() -> None:
    where = points(32)
    none = dense_targets(
        where,
        torch.zeros(2, 0, 2),
        torch.zeros(2, 0, dtype=torch.int64),
        torch.ones(2, len(where.time_P), dtype=torch.bool),
        num_classes=3,
        class_aware=False,
        center_radius=None,
    )
    assert none.classes_BPK.shape == (2, 63, 3)
    assert not none.positive_BPC.any()


def test_targets_of_a_class_too_many_or_a_wrong_mask_raise() -> None:
    where = points(32)
    events, labels = torch.tensor([[1.0, 9.0]]), torch.tensor([3])
    with pytest.raises(ValueError, match=r"must lie in \[0, 3\), got 3"):
        targets_of(where, events, labels, "class_aware", num_classes=3)
    with pytest.raises(ValueError, match=r"a mask \(1, 63\), got \(1, 1, 2\) and \(1, 32\)"):
        dense_targets(
            where,
            events[None],
            labels[None],
            torch.ones(1, 32, dtype=torch.bool),
            num_classes=4,
            class_aware=True,
            center_radius=None,
        )
