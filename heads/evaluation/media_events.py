"""Events of media without annotation, of heads that score segments and of those that find events."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalog.dataset import Dataset
from catalog.event import Prediction
from heads.data.split import Split
from heads.data.targets import has_one_label
from heads.dense.detect import Detection, detect, in_seconds, predictions
from heads.dense.head import DenseHead
from heads.evaluation.predict import THRESHOLD, events, held_classes, logits, probabilities
from heads.evaluation.run_filter import filter_runs
from heads.metrics.ave import decide
from heads.spec import Head

# A dense head gives up to a hundred events a minute, however unsure it is of them.
EVENT_THRESHOLD = 0.1


def segment_events(
    head: Head,
    split: Split,
    dataset: Dataset,
    durations_s: Sequence[float | None],
    *,
    threshold: float | None = None,
    smooth: int | None = None,
    device: str = "cpu",
) -> list[list[Prediction]]:
    """The events of each item by a head that scores segments, in order of start.

    Args:
        durations_s: of each item's video; events are cut to it, where known.
        threshold: least probability of a class, with several labels; None takes 0.5.
        smooth: the run filter's least run, in segments, with one label.
    """
    one_label = has_one_label(dataset)
    probabilities_NTK = probabilities(logits(head, split, device=device), split.mask_NT, one_label=one_label)
    filtered_NT = None
    if smooth is not None:
        filtered_NT = filter_runs(decide(probabilities_NTK), minimum=smooth, mask_NT=split.mask_NT)
    found = []
    for n, (item, duration_s) in enumerate(zip(split.items, durations_s, strict=True)):
        count = int(split.mask_NT[n].sum())
        probabilities_TK = probabilities_NTK[n, :count]
        held_TC = held_classes(
            probabilities_TK,
            len(dataset.classes),
            one_label=one_label,
            threshold=THRESHOLD if threshold is None else threshold,
            classes_T=None if filtered_NT is None else filtered_NT[n, :count],
        )
        found.append(
            events(item.video_id, held_TC, probabilities_TK, split.recipe.grid, dataset.classes, duration_s=duration_s)
        )
    return found


def detected_events(
    head: DenseHead,
    split: Split,
    classes: Sequence[str],
    durations_s: Sequence[float | None],
    *,
    threshold: float | None = None,
    device: str = "cpu",
) -> list[list[Prediction]]:
    """The events of each item by a head that finds them, in order of start.

    Args:
        durations_s: of each item's video; events are cut to it, where known.
        threshold: least score; None takes 0.1.
    """
    least = EVENT_THRESHOLD if threshold is None else threshold
    found = detect(head, split, device=device, detection=Detection(a_minute=True))
    return [
        sorted(
            (
                event
                for event in predictions(item.video_id, in_seconds(one, split.recipe.grid, duration_s), classes)
                if event.score >= least
            ),
            key=lambda event: (event.start_s, event.end_s, -event.score),
        )
        for item, one, duration_s in zip(split.items, found, durations_s, strict=True)
    ]


def has_features(split: Split, modality: str) -> NDArray[np.bool_]:
    """(N,) bool, items with at least one computed feature that a head of this modality uses."""
    found_N = np.zeros(len(split.items), dtype=bool)
    for name, rows in (("visual", split.visual), ("audio", split.audio)):
        if rows is not None and modality in ("both", name) and len(rows.valid):
            found_N |= (rows.valid[np.maximum(split.rows_NT, 0)] & split.mask_NT).any(axis=1)
    return found_N
