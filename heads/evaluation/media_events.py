"""Events of media without annotation, by whatever head: it scores segments, or finds events with times of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from catalog.event import Prediction
from heads.data.split import Split
from heads.dense.detect import Detection, detect, in_seconds, predictions
from heads.dense.head import DenseHead
from heads.evaluation.predict import THRESHOLD, events, logits, probabilities
from heads.evaluation.run_filter import filter_runs
from heads.metrics.ave import decide
from heads.spec import Head

# Of a dense head's events, which are up to a hundred a minute however unsure it is.
DENSE_THRESHOLD = 0.1


def media_events(
    head: Head,
    split: Split,
    classes: Sequence[str],
    durations_s: Sequence[float | None],
    *,
    one_label: bool,
    threshold: float | None = None,
    smooth: int | None = None,
    device: str = "cpu",
) -> list[list[Prediction]]:
    """The events of each item, in order of start.

    Args:
        durations_s: of each item's video; events are cut to it, where known.
        one_label: has a segment one class or background? Not asked of a dense head.
        threshold: least probability of a class; None takes 0.5, and of a dense head's events 0.1.
        smooth: the run filter's least run, in segments; with `one_label` alone.
    """
    grid = split.recipe.grid
    if isinstance(head, DenseHead):
        least = DENSE_THRESHOLD if threshold is None else threshold
        found = detect(head, split, device=device, detection=Detection(a_minute=True))
        return [
            sorted(
                (
                    event
                    for event in predictions(item.video_id, in_seconds(one, grid, duration_s), classes)
                    if event.score >= least
                ),
                key=lambda event: (event.start_s, event.end_s, -event.score),
            )
            for item, one, duration_s in zip(split.items, found, durations_s, strict=True)
        ]
    probabilities_NTK = probabilities(logits(head, split, device=device), split.mask_NT, one_label=one_label)
    filtered_NT = None
    if smooth is not None:
        filtered_NT = filter_runs(decide(probabilities_NTK), minimum=smooth, mask_NT=split.mask_NT)
    return [
        events(
            item.video_id,
            probabilities_NTK[n],
            split.mask_NT[n],
            grid,
            classes,
            one_label=one_label,
            threshold=THRESHOLD if threshold is None else threshold,
            duration_s=durations_s[n],
            classes_T=None if filtered_NT is None else filtered_NT[n],
        )
        for n, item in enumerate(split.items)
    ]


def looked_at(split: Split, modality: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(N,) bool, items with at least one computed feature of what a head of this modality looks at."""
    found_N = np.zeros(len(split.items), dtype=bool)
    for name, rows in (("visual", split.visual), ("audio", split.audio)):
        if rows is not None and modality in ("both", name) and len(rows.valid):
            found_N |= (rows.valid[np.maximum(split.rows_NT, 0)] & split.mask_NT).any(axis=1)
    return found_N
