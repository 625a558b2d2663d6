"""An open vocabulary over planted features: classes that were never trained on are found by their texts."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.dataset import Dataset, Item
from catalog.datasets import unav100
from catalog.event import Event
from catalog.video import Video
from heads.metrics.unav100 import EventTable, detection_score
from jobs.cli.main import main

CLASSES = tuple(f"c{k}" for k in range(16))
POINTS = 48


def dataset() -> Dataset:
    """Videos of 60 s with one or two events of 5 to 25 s, one class at a time."""
    rng = np.random.default_rng(0)
    items = []
    for split, count in (("train", 150), ("val", 10), ("test", 40)):
        for number in range(count):
            starts = (0, 30) if rng.random() < 0.5 else (int(rng.integers(30)),)
            events = []
            for start_s in starts:
                first_s, length_s = start_s + int(rng.integers(5)), int(rng.integers(5, 25))
                label = CLASSES[int(rng.integers(len(CLASSES)))]
                events.append(Event(start_s=Fraction(first_s), end_s=Fraction(first_s + length_s), label=label))
            name = f"{split}{number}"
            items.append(Item(id=name, video_id=name, split=split, events=tuple(events)))
    videos = tuple(Video(id=item.id, uri=f"{item.id}.mp4", duration_s=Fraction(60)) for item in items)
    return Dataset(
        name="unav100", classes=CLASSES, items=tuple(items), videos=videos, num_segments=None, background=None
    )


def unseen_map(rows: list[dict[str, Any]], unseen: list[int], said: list[int]) -> float:
    """Average mAP over `unseen` where what was found as said[i] is taken for unseen[i]."""
    taken = dict(zip(said, unseen, strict=True))

    def table(key: str) -> EventTable:
        events = [
            (n, event[0], event[1], taken.get(event[2], -1) if key == "events_pred" else event[2], event[3:])
            for n, row in enumerate(rows)
            for event in row[key]
        ]
        events = [event for event in events if event[3] in unseen]
        item_N, start_N, end_N, label_N = (np.array(column) for column in list(zip(*events, strict=True))[:4])
        score_N = np.array([event[4][0] for event in events]) if key == "events_pred" else None
        return EventTable(item_N=item_N, start_N=start_N, end_N=end_N, label_N=label_N, score_N=score_N)

    return float(detection_score(table("events_true"), table("events_pred")).ap_TK.mean())


@pytest.mark.slow
def test_unseen_classes_are_found_by_their_own_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unav100.write(dataset(), tmp_path / "root")
    places = ["--root", str(tmp_path / "root"), "--store", str(tmp_path / "store")]
    # Four dimensions a modality, and what tells a class is plain: the texts are to be tried, not the features.
    calm = {"decoys": "0.0", "overshoot": "0.0", "white_noise": "0.2", "offset": "0.3", "walk": "0.05"}
    settings = [word for name, value in calm.items() for word in ("--set", f"{name}={value}")]
    assert main(["synth-features", "unav100", *places, "--points", str(POINTS), "--width", "12", *settings]) == 0
    small = ("width=24", "levels=3", "drop_path=0", "unimodal_layers=0", "decoder_layers=0", "cross=fixed", "lcc=off")
    changes = [word for change in small for word in ("--set", change)]
    how = ["--epochs=8", "--batch=8", "--lr=4e-3", "--schedule=one-cycle", "--ema=none", "--crop-share=1"]
    out = tmp_path / "run"
    words = ["train", *places, "--dataset", "unav100", "--head", "loco_texts", "--unseen", "0.25", "--out", str(out)]
    capsys.readouterr()
    assert main([*words, *changes, *how, "--patience=0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    unseen = [CLASSES.index(label) for label in told["unseen"]]
    assert len(unseen) == 4
    rows = json.loads((out / "predictions_test.json").read_text())
    own = unseen_map(rows, unseen, unseen)
    assert own == pytest.approx(told["metrics"]["test"]["average_map_unseen"], abs=1e-3)
    # Chance: each class is found by the text of another one (neighbours are alike in one modality).
    others = [unseen_map(rows, unseen, unseen[turn:] + unseen[:turn]) for turn in (1, 2, 3)]
    assert own > 0.2
    assert own > 2.5 * float(np.mean(others))
