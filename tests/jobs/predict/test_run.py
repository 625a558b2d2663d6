"""`avel predict` on media made here: real files, real decoding, a head trained on their features."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from catalog.dataset import Dataset, Item
from catalog.datasets import ave
from catalog.event import Event
from catalog.video import Video
from jobs.cli.main import main

CLASSES = ("Bark", "Train horn")
VIDEO_FPS, RATE_HZ = 8, 16000
# Of each class: two for training, one for validation, one for test. Whole seconds, as AVE has them.
EVENTS_S = ((2, 6), (1, 8), (3, 7), (4, 9))


def make_video(path: Path, class_index: int, on: Callable[[float], bool], *, sound: bool = True) -> None:
    """Ten seconds: while `on`, the picture is red or green and a tone of 300 or 1500 Hz is heard."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=VIDEO_FPS)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=RATE_HZ) if sound else None
        if audio is not None:
            audio.layout = "mono"
        for i in range(10 * VIDEO_FPS):
            picture = np.full((64, 64, 3), 40, dtype=np.uint8)
            if on(i / VIDEO_FPS):
                picture[..., class_index] = 220
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
        if audio is None:
            return
        times_s = np.arange(10 * RATE_HZ) / RATE_HZ
        tone = 0.5 * np.sin(2 * np.pi * (300, 1500)[class_index] * times_s)
        samples = np.where([on(t) for t in times_s], tone, 0) + 0.01 * noise.normal(size=len(times_s))
        for first in range(0, len(samples), 1024):
            part = samples[None, first : first + 1024].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.rate, frame.pts = RATE_HZ, first
            container.mux(audio.encode(frame))
        container.mux(audio.encode())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Media in `videos`, AVE's files, a store extracted from them, and runs `both` and `audio`."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "videos").mkdir()
    items: list[Item] = []
    videos: list[Video] = []
    for k, label in enumerate(CLASSES):
        for (start, end), split in zip(EVENTS_S, ("train", "train", "val", "test"), strict=True):
            name = f"v{len(items)}"
            event = Event(start_s=Fraction(start), end_s=Fraction(end), label=label)
            items.append(Item(id=f"{len(items):05d}", video_id=name, split=split, events=(event,), category=label))
            videos.append(Video(id=name, uri=str(folder / "videos" / f"{name}.mp4")))
            make_video(folder / "videos" / f"{name}.mp4", k, lambda t, a=start, b=end: a <= t < b)  # type: ignore[misc]
    data = Dataset(
        name="ave",
        classes=CLASSES,
        items=tuple(items),
        videos=tuple(videos),
        num_segments=10,
        background="background",
    )
    ave.write(data, folder)
    places = ["--store", str(folder / "store"), "--dataset", "ave", "--root", str(folder)]
    assert main(["extract", *places, "--recipe", "descriptors-1s", "--executor", "local", "--json"]) == 0
    for modality in ("both", "audio"):
        assert main(["train", *places, "--modality", modality, "--out", str(folder / modality), "--json"]) == 0
    return folder


def predicted(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> Any:
    capsys.readouterr()
    assert main(["predict", *words, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_predict_new_video_finds_its_events_and_draws_them(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_video(tmp_path / "new $x$.mp4", 1, lambda t: 1 <= t < 4 or 6 <= t < 9)
    files = ["--out", str(tmp_path / "events.json"), "--plot", str(tmp_path / "events.png")]
    told = predicted(capsys, str(place / "both"), str(tmp_path / "new $x$.mp4"), *files)
    (video,) = told["videos"]
    assert [(e["class"], e["start_s"], e["end_s"]) for e in video["events"]] == [
        ("Train horn", 1.0, 4.0),
        ("Train horn", 6.0, 9.0),
    ]
    assert all(0.5 < e["score"] <= 1 for e in video["events"])
    assert told["failed"] == 0
    assert json.loads((tmp_path / "events.json").read_text()) == told
    assert (tmp_path / "events.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.json", "events.png", "new $x$.mp4"]


def test_predict_media_that_fail_are_listed_with_their_reason_and_exit_3(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "empty.mp4").write_bytes(b"")
    good, gone = place / "videos" / "v3.mp4", tmp_path / "gone.mp4"
    capsys.readouterr()
    assert main(["predict", str(place / "both"), str(good), str(tmp_path / "media"), str(gone)]) == 3
    out = capsys.readouterr().out
    assert "Bark" in out
    assert "empty_file" in out
    assert "missing_file" in out
    told = predicted(capsys, str(place / "both"), str(good), str(tmp_path / "media"), str(gone), status=3)
    assert [(v["video"], v["status"], v["reason"], v["failed"]) for v in told["videos"]] == [
        ("v3.mp4", "extracted", "", False),
        ("empty.mp4", "quarantined", "empty_file", True),
        ("gone.mp4", "quarantined", "missing_file", True),
    ]


def test_predict_silent_video_fails_a_head_that_only_listens(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_video(tmp_path / "silent.mp4", 0, lambda t: 2 <= t < 6, sound=False)
    told = predicted(capsys, str(place / "audio"), str(tmp_path / "silent.mp4"), status=3)
    assert [(v["reason"], v["failed"], v["events"]) for v in told["videos"]] == [("no_audio", True, [])]
    told = predicted(capsys, str(place / "both"), str(tmp_path / "silent.mp4"))
    assert [(v["reason"], v["failed"]) for v in told["videos"]] == [("no_audio", False)]


def test_predict_same_name_in_two_folders_and_one_file_twice(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_video(tmp_path / "v7.mp4", 0, lambda t: 2 <= t < 6)
    known = str(place / "videos" / "v7.mp4")
    told = predicted(capsys, str(place / "both"), known, str(tmp_path), known)
    found = [(v["video"], [e["class"] for e in v["events"]]) for v in told["videos"]]
    assert found == [("v7.mp4", ["Train horn"]), ("v7.mp4 (2)", ["Bark"])]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--plot", "events.gif"], "--plot needs a file ending in .png"),
        (["--out", "/nonexistent/events.json"], "does not exist"),
        (["--threshold", "0.3"], "--threshold is for data sets with several labels"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--weights", "/nonexistent.pt"], "is made without weights"),
        (["nowhere"], "nothing there"),
    ],
)
def test_predict_bad_argument_exits_2(
    place: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    capsys.readouterr()
    assert main(["predict", str(place / "both"), str(place / "videos" / "v3.mp4"), *more]) == 2
    assert told in capsys.readouterr().err


def test_predict_with_a_head_trained_on_planted_features_says_that_no_encoder_makes_them(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--root", str(place), "--store", str(tmp_path / "planted")]
    assert main(["synth-features", "ave", *places]) == 0
    quick = ["--epochs", "1", "--out", str(tmp_path / "run"), "--json"]
    assert main(["train", "--dataset", "ave", *places, *quick]) == 0
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "run"), str(place / "videos" / "v3.mp4")]) == 2
    err = capsys.readouterr().err
    assert "recipe planted-ave was planted" in err
    assert "planted features have no encoder" in err
    assert "nor a head trained on it can be run on media" in err


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_predict_out_that_is_no_file_is_refused_and_left(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None]
) -> None:
    make(tmp_path / "out")
    before = (tmp_path / "out").stat().st_mode
    assert main(["predict", str(place / "both"), "new.mp4", "--out", str(tmp_path / "out")]) == 2
    assert "is no file that could be replaced" in capsys.readouterr().err
    assert (tmp_path / "out").stat().st_mode == before


def test_predict_out_is_never_the_runs_own_record(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = place / "both" / "run.json"
    before = record.read_bytes()
    assert main(["predict", str(place / "both"), "new.mp4", "--out", str(record)]) == 2
    assert "is the run's own record" in capsys.readouterr().err
    assert record.read_bytes() == before
