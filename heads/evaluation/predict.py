"""A trained head on a split: logits, probabilities, decisions, and the events they make.

N items, T segments, K outputs. With one label a segment the last output is background and softmax decides; with
several, sigmoid does, each class alone. A segment without features is background (no class), with score 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.event import Prediction
from catalog.grid import GridRule
from heads.blocks.segment_head import SegmentHead
from heads.data.split import Batch, Split
from heads.features import FeatureBatch
from heads.metrics.ave import decide
from heads.spec import Head, inference

BATCH_SIZE = 256
THRESHOLD = 0.5


def forward(head: Head, batch: Batch, device: str = "cpu") -> Tensor:
    """Logits (B, T, K) of a batch."""
    logits_BTK: Tensor = head(_on_device(batch, device))
    return logits_BTK


def logits(head: Head, split: Split, *, batch_size: int = BATCH_SIZE, device: str = "cpu") -> NDArray[np.float32]:
    """(N, T, K) float32 of the whole split, in evaluation mode; the head's mode is restored.

    Raises:
        ValueError: a logit of a real segment is not finite; names the items.
    """
    parts = []
    with inference(head):
        for first in range(0, len(split.items), batch_size):
            batch = split.batch(slice(first, first + batch_size))
            parts.append(forward(head, batch, device).float().cpu().numpy())
    logits_NTK = np.concatenate(parts)
    bad_N = (~np.isfinite(logits_NTK).all(axis=-1) & split.mask_NT).any(axis=1)
    if bad_N.any():
        named = ", ".join(split.items[i].id for i in np.flatnonzero(bad_N)[:10])
        raise ValueError(f"the head gives NaN or infinity for {int(bad_N.sum())} items of {split.name}: {named}")
    return logits_NTK


def event_flags(head: Head, split: Split, *, device: str = "cpu") -> NDArray[np.bool_] | None:
    """(N, T) bool, the segments that the head itself flags as events; None where it does not say (`Head.flags`).

    Only OV-AVEL's published training-free rule flags segments that it then calls background.
    """
    if not isinstance(head, SegmentHead):
        return None
    parts = []
    with inference(head):
        for first in range(0, len(split.items), BATCH_SIZE):
            batch = split.batch(slice(first, first + BATCH_SIZE))
            flags_BT = head.flags(_on_device(batch, device))
            if flags_BT is None:
                return None
            parts.append(flags_BT.cpu().numpy())
    return np.concatenate(parts)


def probabilities(
    logits_NTK: NDArray[np.float32], mask_NT: NDArray[np.bool_], *, one_label: bool
) -> NDArray[np.float32]:
    """(N, T, K) float32: softmax (one label) or sigmoid; outside the mask all 0, and with one label background 1."""
    values = torch.from_numpy(logits_NTK)
    probabilities_NTK: NDArray[np.float32] = (values.softmax(dim=-1) if one_label else values.sigmoid()).numpy()
    probabilities_NTK[~mask_NT] = 0
    if one_label:
        probabilities_NTK[~mask_NT, -1] = 1
    return probabilities_NTK


def held_classes(
    probabilities_TK: NDArray[np.float32],
    num_classes: int,
    *,
    one_label: bool,
    threshold: float = THRESHOLD,
    classes_T: NDArray[np.integer] | None = None,
) -> NDArray[np.bool_]:
    """(T, C) bool, the classes that each real segment has.

    Args:
        threshold: with several labels, a segment has a class whose probability is at least this.
        classes_T: with one label, what was decided, such as by the run filter; None takes the likeliest.
    """
    if not one_label:
        return probabilities_TK >= threshold
    chosen_T = decide(probabilities_TK[None])[0] if classes_T is None else classes_T
    held_TC: NDArray[np.bool_] = chosen_T[:, None] == np.arange(num_classes)
    return held_TC


def events(
    video_id: str,
    held_TC: NDArray[np.bool_],
    probabilities_TK: NDArray[np.float32],
    grid: GridRule,
    classes: Sequence[str],
    *,
    duration_s: float | None = None,
) -> list[Prediction]:
    """Runs of neighbouring segments of one class, as events in order of start.

    A segment stands for the hop around its middle (with window = hop: for itself). An event's score is the mean of its
    segments' probabilities.

    Args:
        held_TC: of the real segments, see `held_classes`.
        duration_s: events are cut to it, where known.
    """
    found = []
    for k in np.flatnonzero(held_TC.any(axis=0)).tolist():
        edges = np.flatnonzero(np.diff(held_TC[:, k].astype(np.int8), prepend=0, append=0))
        for first, stop in zip(edges[::2], edges[1::2], strict=True):
            start_s, end_s = float(_edge_s(int(first), grid)), float(_edge_s(int(stop), grid))
            if duration_s is not None:
                end_s = min(end_s, duration_s)
            if start_s < end_s:
                score = float(probabilities_TK[first:stop, k].mean(dtype=np.float64))
                found.append(Prediction(video_id=video_id, start_s=start_s, end_s=end_s, label=classes[k], score=score))
    return sorted(found, key=lambda event: (event.start_s, event.end_s, -event.score))


def _on_device(batch: Batch, device: str) -> FeatureBatch:
    return FeatureBatch(
        visual=None if batch.visual is None else torch.from_numpy(batch.visual),
        audio=None if batch.audio is None else torch.from_numpy(batch.audio),
        mask_BT=torch.from_numpy(batch.mask_BT),
        visual_valid_BT=torch.from_numpy(batch.visual_valid_BT),
        audio_valid_BT=torch.from_numpy(batch.audio_valid_BT),
    ).to(device)


def _edge_s(segment: int, grid: GridRule) -> Fraction:
    """Where the cell of `segment` begins: half a hop before its middle, and not before 0."""
    return max(Fraction(0), segment * grid.hop_s + grid.window_s / 2 - grid.hop_s / 2)
