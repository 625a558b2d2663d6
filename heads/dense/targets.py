"""Targets of a dense head at each point of its pyramid. B items, P points, K classes, C = K or 1, E events.

A point learns of an event that it lies strictly inside of and whose farther end is in reach of its level, both ends of
the reach included. Times are in grid units (see `heads.dense.points`).

Source: Zhang et al., ECCV 2022 (ActionFormer) and its published code for one pair of offsets a point and for centre
sampling; Geng et al., CVPR 2023 (UnAV) and its published code for a pair of offsets a class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heads.dense.points import Points

# Events whose lengths differ by no more are equally short (ActionFormer), in grid units.
_AS_SHORT = 1e-3


@dataclass(frozen=True, kw_only=True)
class DenseTarget:
    """The truth at the points.

    Attributes:
        classes_BPK: float32, 1 where the point learns the class, else 0.
        offsets_BPC2: float32 from the point back to the event's start and on to its end, in strides of its level; 0
            where no event is learned.
        positive_BPC: bool, where the offsets count. C is K where each class has offsets of its own, else 1.
    """

    classes_BPK: Tensor
    offsets_BPC2: Tensor
    positive_BPC: Tensor


def dense_targets(
    points: Points,
    events_BE2: Tensor,
    labels_BE: Tensor,
    mask_BP: Tensor,
    *,
    num_classes: int,
    class_aware: bool,
    center_radius: float | None,
) -> DenseTarget:
    """The targets of a batch, on the points' device; memory grows with B x P x (E + C).

    Args:
        events_BE2: float32 starts and ends, grid units, in the order of the annotation.
        labels_BE: int64 classes; -1 where there is no event (whatever times it has).
        mask_BP: bool; other points learn nothing.
        class_aware: every (point, class) pair has its own offsets, of two events of one class those of the later one
            in the annotation; otherwise a point has those of its shortest event (the first of equals), and the classes
            of all events that are as short to 1e-3.
        center_radius: only points less than so many strides from the event's middle learn of it; None takes all.

    Raises:
        ValueError: a class outside `num_classes`, or shapes that do not belong together.
    """
    num_points = len(points.time_P)
    num_items, num_events = labels_BE.shape
    if events_BE2.shape != (num_items, num_events, 2) or mask_BP.shape != (num_items, num_points):
        raise ValueError(
            f"{num_items} items of {num_events} events at {num_points} points need events ({num_items}, {num_events}, "
            f"2) and a mask ({num_items}, {num_points}), got {tuple(events_BE2.shape)} and {tuple(mask_BP.shape)}"
        )
    if bool((labels_BE >= num_classes).any()):
        raise ValueError(f"events' classes must lie in [0, {num_classes}), got {int(labels_BE.max())}")
    width = num_classes if class_aware else 1
    blank = events_BE2.new_zeros
    target = DenseTarget(
        classes_BPK=blank((num_items, num_points, num_classes)),
        offsets_BPC2=blank((num_items, num_points, width, 2)),
        positive_BPC=blank((num_items, num_points, width), dtype=torch.bool),
    )
    if num_events == 0:
        return target
    sides_BPE2 = torch.stack(
        [points.time_P[:, None] - events_BE2[:, None, :, 0], events_BE2[:, None, :, 1] - points.time_P[:, None]], dim=-1
    )
    learns_BPE = _learns(points, events_BE2, sides_BPE2, center_radius) & (labels_BE >= 0)[:, None] & mask_BP[..., None]
    sides_BPE2 = sides_BPE2 / points.stride_P[:, None, None]
    if class_aware:
        _fill_each_class(target, learns_BPE, sides_BPE2, labels_BE)
    else:
        _fill_shortest(target, learns_BPE, sides_BPE2, labels_BE, events_BE2[..., 1] - events_BE2[..., 0])
    return target


def _fill_each_class(target: DenseTarget, learns_BPE: Tensor, sides_BPE2: Tensor, labels_BE: Tensor) -> None:
    """In place: every (point, class) pair has the offsets of its class's latest event."""
    item_N, point_N, event_N = (learns_BPE & ~_overruled(learns_BPE, labels_BE)).nonzero(as_tuple=True)
    index = (item_N, point_N, labels_BE[item_N, event_N])
    target.classes_BPK[index] = 1.0
    target.offsets_BPC2[index] = sides_BPE2[item_N, point_N, event_N]
    target.positive_BPC[index] = True


def _fill_shortest(
    target: DenseTarget, learns_BPE: Tensor, sides_BPE2: Tensor, labels_BE: Tensor, lengths_BE: Tensor
) -> None:
    """In place: every point has the offsets of its shortest event, and the classes of all that are as short."""
    lengths_BPE = lengths_BE[:, None].masked_fill(~learns_BPE, torch.inf)
    shortest_BP1, event_BP1 = lengths_BPE.amin(dim=-1, keepdim=True), lengths_BPE.argmin(dim=-1, keepdim=True)
    as_short_BPE = learns_BPE & ((lengths_BPE - shortest_BP1).abs() <= _AS_SHORT)
    item_N, point_N, event_N = as_short_BPE.nonzero(as_tuple=True)
    target.classes_BPK[item_N, point_N, labels_BE[item_N, event_N]] = 1.0
    target.positive_BPC.copy_(learns_BPE.any(dim=-1, keepdim=True))
    nearest_BP12 = sides_BPE2.gather(2, event_BP1[..., None].expand(-1, -1, -1, 2))
    target.offsets_BPC2.copy_(torch.where(target.positive_BPC[..., None], nearest_BP12, 0.0))


def _learns(points: Points, events_BE2: Tensor, sides_BPE2: Tensor, center_radius: float | None) -> Tensor:
    """(B, P, E) bool: does the point learn of the event?"""
    reach_BPE = sides_BPE2.amax(dim=-1)
    in_reach_BPE = (reach_BPE >= points.low_P[:, None]) & (reach_BPE <= points.high_P[:, None])
    inside_BPE = sides_BPE2.amin(dim=-1) > 0
    if center_radius is None:
        return in_reach_BPE & inside_BPE
    time_P1, radius_P1 = points.time_P[:, None], points.stride_P[:, None] * center_radius
    middle_B1E = (events_BE2[..., 0] + events_BE2[..., 1])[:, None] * 0.5
    near_BPE = (time_P1 - (middle_B1E - radius_P1) > 0) & ((middle_B1E + radius_P1) - time_P1 > 0)
    return in_reach_BPE & inside_BPE & near_BPE


def _overruled(learns_BPE: Tensor, labels_BE: Tensor) -> Tensor:
    """(B, P, E) bool: does the point learn of a later event of the same class?"""
    same_BEE = labels_BE[:, :, None] == labels_BE[:, None, :]
    order = torch.arange(labels_BE.shape[1], device=labels_BE.device)
    later_BEE = same_BEE & (order[:, None] > order)  # row: the later one
    return torch.bmm(learns_BPE.float(), later_BEE.float()) > 0
