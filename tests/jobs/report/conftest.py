"""Run folders written by hand in the documented format, a store by the real writer, and small real media."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.store.modal import Modal
from catalog.store.reader import create_store
from catalog.store.rows import RecipeRows, VideoResult
from catalog.store.writer import open_writer
from catalog.video import Outcome, Video

RECIPE = Recipe(
    name="tiny-1s",
    encoder="descriptors",
    grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
    video=VideoSampling(frames_per_segment=1, height_px=16, width_px=16),
    audio=AudioSampling(rate_hz=16000),
)

MakeRun = Callable[..., Path]
MakeStore = Callable[..., tuple[str, str]]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """`make_run(name, classes, rows, **fields)`: a run folder; `rows=None` leaves the test predictions out."""

    def make(
        name: str,
        classes: list[str],
        rows: list[dict[str, Any]] | None,
        *,
        background: str | None = "background",
        recipe: Recipe = RECIPE,
        **fields: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        outputs = len(classes) + (background is not None)
        record = {
            "format": 1,
            "head": "linear",
            "config": {"visual_width": 4, "audio_width": 4, "num_classes": outputs, "modality": "both"},
            "classes": classes,
            "background": background,
            "num_segments": None,
            "recipe": {"name": recipe.name, "json": recipe.to_json(), "fingerprint": recipe.fingerprint()},
            "store": {"uri": str(tmp_path / "nowhere"), "snapshot": "NOSNAPSHOT"},
            "dataset": {"name": "ave", "root": "/data/ave", "media": None},
            "seed": 3,
            "training": {"modality": "both", "best_epoch": 2, "epochs": 3, "learning_rate": 0.001},
            "metrics": {"val": {"accuracy": 0.5, "loss": 1.25}, "test": {"accuracy": 0.4375, "loss": 1.5}},
            "baselines": {"majority": 0.178, "always_event": 0.0456},
            "history": [
                {"epoch": 1, "train_loss": 2.0, "val_loss": 2.5, "val_accuracy": 0.25, "seconds": 0.1},
                {"epoch": 2, "train_loss": 1.0, "val_loss": 1.25, "val_accuracy": 0.5, "seconds": 0.1},
                {"epoch": 3, "train_loss": 0.5, "val_loss": 1.5, "val_accuracy": 0.375, "seconds": 0.1},
            ],
            "versions": {"python": "3.11.9", "torch": "2.0"},
            "created": "2024-05-06T07:08:09+00:00",
        } | fields
        (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
        if rows is not None:
            (folder / "predictions_test.json").write_text(json.dumps(rows), encoding="utf-8")
        return folder

    return make


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """`make_store({id: (uri, status, reason)})`: uri and snapshot of a store with one row a video."""

    def make(videos: dict[str, tuple[str, str, str]], *, duration_s: float = 2.0) -> tuple[str, str]:
        uri = str(tmp_path / "store")
        valid = np.ones(2, dtype=bool)
        numbers = np.zeros((2, 4), dtype=np.float32)
        with open_writer(create_store(uri)) as writer:
            writer.ensure_recipe(RECIPE, visual_shape=(4,), audio_shape=(4,), card={})
            results = []
            for i, (video_id, (place, status, reason)) in enumerate(videos.items()):
                rows = RecipeRows(
                    visual=Modal(values=numbers, valid=valid),
                    audio=Modal(values=numbers, valid=valid),
                    start_s=np.array([0.0, 1.0]),
                    end_s=np.array([1.0, 2.0]),
                )
                results.append(
                    VideoResult(
                        video=Video(id=video_id, uri=place),
                        unit=i // 8,
                        outcome=Outcome(status=status, reason=reason),
                        duration_s=duration_s,
                        features={} if status == "quarantined" else {RECIPE.name: rows},
                    )
                )
            writer.append(results, [RECIPE.name])
            snapshot = writer.commit("a store for a report")
        return uri, snapshot

    return make


@pytest.fixture(scope="session")
def red_then_blue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds: red and silent, then blue with a loud tone."""
    path = tmp_path_factory.mktemp("media") / "red_then_blue.mp4"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for i in range(20):
            frame_HWC = np.zeros((48, 64, 3), dtype=np.uint8)
            frame_HWC[..., 0 if i < 10 else 2] = 255
            for packet in picture.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")):
                container.mux(packet)
        samples_N = 0.8 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000) * (np.arange(32000) >= 16000)
        frame = av.AudioFrame.from_ndarray(samples_N[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in sound.encode(frame):
            container.mux(packet)
        for stream in (picture, sound):
            for packet in stream.encode(None):
                container.mux(packet)
    return path
