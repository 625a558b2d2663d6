"""What stands between a dense head's output and its mean average precision: decoding, suppression, scoring.

One thread, CPU seconds. Published figures were taken the same way: ANETdetection's row-wise loop spends 0.74 CPU s on
1,000 predictions at nine thresholds, in proportion to their number; a UnAV head without its dependency block spends
0.25 CPU s on a video, suppression included.

The events are those of UnAV-100's test split where its annotations lie in `$AVEL_SHARED` (by default `shared` beside
the project), else as many made-up ones. Predictions are made up: 100 a video, a share of them near an event.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.measurement import Measurement
from catalog.datasets import unav100
from heads.dense.decode import Decoding, decode
from heads.dense.nms import Suppression, suppress
from heads.dense.output import DenseOutput
from heads.dense.points import points
from heads.metrics.unav100 import EventTable, detection_score
from pipeline.unit import one_thread

ABOUT = "decoding, suppression and detection mAP at UnAV-100's size against published code"

PUBLISHED_S_A_PREDICTION = 0.74e-3
VIDEOS, EVENTS, NUM_CLASSES, SEGMENTS, A_VIDEO = 2167, 5900, 100, 256, 100
FASTER, VIDEO_S = 20.0, 0.05
# Of logits: as at a training's start, and where classes stand out.
SPREADS = (0.5, 3.0)
_ROUNDS = 5
_SHARED = Path(os.environ.get("AVEL_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One scoring: the predictions, how many of them share class and video with an event, least CPU seconds."""

    predictions: int
    near: int
    spent_s: float


def measure(folder: Path) -> list[Measurement]:
    del folder
    with one_thread():
        truth, whence = test_split()
        scored = score(truth)
        spent_s = {spread: video(spread) for spread in SPREADS}
    return [
        Measurement(
            what=f"published seconds / mAP's, {scored.predictions} predictions, {len(truth)} events of {whence}",
            value=PUBLISHED_S_A_PREDICTION * scored.predictions / scored.spent_s,
            unit="x",
            at_least=FASTER,
            detail=f"{scored.spent_s:.3f} CPU s, {scored.near} predictions in an event's class and video",
        ),
        *(
            Measurement(
                what=f"decoding and Soft-NMS, {SEGMENTS} segments x {NUM_CLASSES} classes, logits spread by {spread:g}",
                value=decode_s + suppress_s,
                unit="s",
                at_most=VIDEO_S,
                detail=f"{1000 * decode_s:.1f} ms + {1000 * suppress_s:.1f} ms for {count} candidates",
            )
            for spread, (decode_s, suppress_s, count) in spent_s.items()
        ),
    ]


def test_split() -> tuple[EventTable, str]:
    """The events to find, and where they are from."""
    root = _SHARED / "data" / "annotations" / "unav100"
    if not (root / unav100.FILE).is_file():
        rng = np.random.default_rng(0)
        start_N = rng.uniform(0, 40, EVENTS)
        made_up = EventTable(
            item_N=np.concatenate([np.arange(VIDEOS), rng.integers(0, VIDEOS, EVENTS - VIDEOS)]),
            start_N=start_N,
            end_N=start_N + rng.gamma(1.2, 11.0, EVENTS) + 0.2,
            label_N=np.concatenate([np.arange(NUM_CLASSES), rng.integers(0, NUM_CLASSES, EVENTS - NUM_CLASSES)]),
        )
        return made_up, "made-up videos"
    dataset = unav100.load(root)
    events = [(number, event) for number, item in enumerate(dataset.split("test")) for event in item.events]
    real = EventTable(
        item_N=np.array([number for number, _ in events]),
        start_N=np.array([float(event.start_s) for _, event in events]),
        end_N=np.array([float(event.end_s) for _, event in events]),
        label_N=np.array([dataset.class_index(event.label) for _, event in events]),
    )
    return real, "UnAV-100's test split"


def score(truth: EventTable, *, rounds: int = _ROUNDS) -> Scored:
    """Scores `A_VIDEO` predictions a video: of half of them the class is an event's, and the ends are near its ends."""
    rng = np.random.default_rng(0)
    order = np.argsort(truth.item_N, kind="stable")
    item_V, first_V, count_V = np.unique(truth.item_N[order], return_index=True, return_counts=True)
    event_VA = order[first_V[:, None] + rng.integers(0, count_V[:, None], (len(item_V), A_VIDEO))]
    event_M = event_VA.ravel()
    near_M = rng.random(len(event_M)) < 0.5
    length_M = truth.end_N[event_M] - truth.start_N[event_M]
    start_M = truth.start_N[event_M] + rng.normal(0, 0.25, len(event_M)) * length_M
    predictions = EventTable(
        item_N=truth.item_N[event_M],
        start_N=start_M,
        end_N=start_M + length_M * rng.uniform(0.6, 1.6, len(event_M)),
        label_N=np.where(near_M, truth.label_N[event_M], rng.integers(0, NUM_CLASSES, len(event_M))),
        score_N=rng.random(len(event_M)) * np.where(near_M, 1.0, 0.5),
    )
    spent_s = _least_s(rounds, lambda: detection_score(truth, predictions))
    return Scored(predictions=len(predictions), near=int(near_M.sum()), spent_s=spent_s)


def video(spread: float, *, segments: int = SEGMENTS, rounds: int = _ROUNDS) -> tuple[float, float, int]:
    """Least CPU seconds to decode one video and to suppress what was found, and how much that is.

    Args:
        spread: of the logits, around those of a probability of 0.01.
    """
    rng = torch.Generator().manual_seed(0)
    where = points(segments)
    shape = (1, len(where.time_P), NUM_CLASSES)
    output = DenseOutput(
        logits_BPK=torch.randn(shape, generator=rng) * spread - 4.595,
        offsets_BPC2=torch.rand(*shape, 2, generator=rng) * 4,
        mask_BP=torch.ones(shape[:2], dtype=torch.bool),
        counts=where.counts,
    )
    (found,) = decode(output, where, Decoding())
    decode_s = _least_s(rounds, lambda: decode(output, where, Decoding()))
    return decode_s, _least_s(rounds, lambda: suppress(found, Suppression())), len(found)


def _least_s(rounds: int, run: Callable[[], object]) -> float:
    spent_s = []
    for _ in range(rounds):
        began_s = time.process_time()
        run()
        spent_s.append(time.process_time() - began_s)
    return min(spent_s)
