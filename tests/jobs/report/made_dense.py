"""Rows of a dense head's predictions, made up: true events, some found, some nearly, some of nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from heads.metrics.unav100 import DetectionScore, EventTable, detection_score

CLASSES = ["bark", "horn", "drums", "rain"]


def rows(num: int, *, num_classes: int = 4, seed: int = 0, duration_s: float = 30.0) -> list[dict[str, Any]]:
    """Items of up to four events; every seventh has no prediction."""
    rng = np.random.default_rng(seed)
    made = []
    for n in range(num):
        true, found = [], []
        for _ in range(int(rng.integers(1, 5))):
            start, end = np.sort(rng.uniform(0, duration_s, 2)).round(2).tolist()
            true.append([start, end + 0.05, int(rng.integers(num_classes))])
        for start, end, label in true * 2:
            moved = np.sort(np.array([start, end]) + rng.normal(0, 0.2 * (end - start), 2)).clip(0, duration_s + 1)
            said = label if rng.random() < 0.7 else int(rng.integers(num_classes))
            found.append([*moved.round(4).tolist(), said, round(float(rng.beta(3, 3)), 6)])
        for _ in range(6):
            start, end = np.sort(rng.uniform(0, duration_s, 2)).round(4).tolist()
            found.append([start, end, int(rng.integers(num_classes)), round(float(rng.beta(1, 5)), 6)])
        found.sort(key=lambda event: -event[3])
        made.append(
            {
                "item": f"item {n}",
                "video": f"video {n}",
                "duration_s": duration_s,
                "events_true": true,
                "events_pred": [] if n % 7 == 6 else found,
            }
        )
    return made


def score_of(made: list[dict[str, Any]]) -> DetectionScore:
    """The protocol's, from the rows themselves."""
    true = np.array([(n, *event) for n, row in enumerate(made) for event in row["events_true"]])
    found = np.array([(n, *event) for n, row in enumerate(made) for event in row["events_pred"]])
    return detection_score(_table(true), _table(found))


def metrics_of(made: list[dict[str, Any]]) -> dict[str, float]:
    """As `avel evaluate` records them."""
    score = score_of(made)
    maps = {f"map_{tiou:.1f}": float(value) for tiou, value in zip(score.tious_T, score.map_T, strict=True)}
    events = sum(len(row["events_true"]) for row in made)
    return (
        {"average_map": score.average, "average_map_strict": score.average_from_half}
        | maps
        | {"items": len(made), "items_without_features": 0, "events": events}
    )


def run_fields(made: list[dict[str, Any]], *, num_classes: int = 4) -> dict[str, Any]:
    """Fields of a run's record for the fixture `make_run`."""
    metrics = metrics_of(made)
    return {
        "head": "loco",
        "config": {"num_classes": num_classes, "modality": "both"},
        "background": None,
        "dataset": {"name": "unav100", "root": "/data/unav100", "media": None},
        "metrics": {"val": metrics | {"average_map": 0.25}, "test": metrics},
        "baselines": {"whole_video": 0.125, "mean_length": 0.0625},
        "history": [
            {"epoch": e, "train_loss": 2.0 / e, "val_loss": 2.5 / e, "val_average_map": 0.1 * e, "seconds": 1.0}
            for e in (1, 2, 3)
        ],
    }


def _table(columns: np.ndarray[Any, np.dtype[np.float64]]) -> EventTable:
    return EventTable(
        item_N=columns[:, 0].astype(np.int64),
        start_N=columns[:, 1],
        end_N=columns[:, 2],
        label_N=columns[:, 3].astype(np.int64),
        score_N=columns[:, 4] if columns.shape[1] == 5 else None,
    )
