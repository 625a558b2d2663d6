"""Judged items of a dense head's run, whose predictions are events with times of their own. Times in seconds.

A row of `predictions_{split}.json`, which may come from a stranger:

    {"item", "video", "duration_s", "events_true": [[start_s, end_s, class]], "events_pred": [[start_s, end_s, class,
    score]]}

E true events, P predictions, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.report.reported_run import ReportedRun, check_once, read_rows, text_of

# Of a medium: thirty years. Beyond, sums and shares of times could overflow.
LONGEST_S = 1e9
# Of an item, true or predicted; heads give at most 100. All pairs of both are compared.
MOST_EVENTS = 2000


@dataclass(frozen=True, kw_only=True)
class DenseItem:
    """One item with its true events and its predictions.

    Attributes:
        duration_s: None where it is not known.
        true_E2: float64 start and end.
        true_labels_E: int64 classes.
        predicted_P2: float64 start and end, in file order. One without length finds nothing: written times are
            rounded, so what is shorter than that may have lost its length.
        predicted_labels_P: int64 classes.
        scores_P: float64 in [0, 1].
    """

    item_id: str
    video_id: str
    duration_s: float | None
    true_E2: NDArray[np.float64]
    true_labels_E: NDArray[np.int64]
    predicted_P2: NDArray[np.float64]
    predicted_labels_P: NDArray[np.int64]
    scores_P: NDArray[np.float64]


def read_dense_predictions(run: ReportedRun, split: str) -> tuple[DenseItem, ...] | None:
    """The items of `split`, in file order; None where the run has no such file.

    Raises:
        ValueError: the file is damaged, or an item occurs twice; the message names the item and the field.
    """
    rows = read_rows(run, split)
    if rows is None:
        return None
    items = tuple(_item(row, where, len(run.record.classes)) for where, row in rows)
    check_once([item.item_id for item in items], run, split)
    return items


def _item(row: Mapping[str, Any], where: str, num_classes: int) -> DenseItem:
    duration = row.get("duration_s")
    if duration is not None and not (_is_number(duration, LONGEST_S) and duration > 0):
        raise ValueError(
            f"{where}.duration_s: needs seconds above 0 and at most {LONGEST_S:g}, or null, got {_short(duration)}"
        )
    item_id, video_id = text_of(row.get("item"), f"{where}.item"), text_of(row.get("video"), f"{where}.video")
    true = _events(row.get("events_true"), f"{where}.events_true", num_classes, scored=False)
    predicted = _events(row.get("events_pred"), f"{where}.events_pred", num_classes, scored=True)
    return DenseItem(
        item_id=item_id,
        video_id=video_id,
        duration_s=None if duration is None else float(duration),
        true_E2=true[:, :2],
        true_labels_E=true[:, 2].astype(np.int64),
        predicted_P2=predicted[:, :2],
        predicted_labels_P=predicted[:, 2].astype(np.int64),
        scores_P=predicted[:, 3],
    )


def _events(value: object, where: str, num_classes: int, *, scored: bool) -> NDArray[np.float64]:
    """(N, 3) start, end, class or, `scored`, (N, 4) with the score, float64."""
    wanted = "[start_s, end_s, class, score]" if scored else "[start_s, end_s, class]"
    width = 3 + scored
    if not isinstance(value, list):
        raise ValueError(f"{where}: needs a list of {wanted}, got {_short(value)}")
    if len(value) > MOST_EVENTS:
        raise ValueError(f"{where}: needs at most {MOST_EVENTS} events, got {len(value)}")
    for i, event in enumerate(value):
        if not isinstance(event, list) or len(event) != width:
            raise ValueError(f"{where}[{i}]: needs {wanted}, got {_short(event)}")
        start, end, label = event[:3]
        if not (_is_number(start, LONGEST_S) and _is_number(end, LONGEST_S)):
            raise ValueError(f"{where}[{i}]: needs seconds in 0 .. {LONGEST_S:g}, got {_short(event[:2])}")
        if start > end or (start == end and not scored):
            raise ValueError(f"{where}[{i}]: needs a start before its end, got {_short(event[:2])}")
        if type(label) is not int or not 0 <= label < num_classes:
            raise ValueError(f"{where}[{i}]: needs a class in 0 .. {num_classes - 1}, got {_short(label)}")
        if scored and not _is_number(event[3], 1):
            raise ValueError(f"{where}[{i}]: needs a score in 0 .. 1, got {_short(event[3])}")
    return np.array(value, dtype=np.float64).reshape(-1, width)


def _is_number(value: object, most: float) -> bool:
    """A number of JSON in [0, most]; NaN is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


def _short(value: object) -> str:
    return repr(value)[:80]
