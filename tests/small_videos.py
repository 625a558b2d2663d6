"""Small real videos for tests, and stores read without the project's own reader."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ.setdefault("ICECHUNK_LOG", "error")

import av
import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray

WIDTH_PX, HEIGHT_PX, VIDEO_FPS, RATE_HZ = 64, 48, 12, 16000


def make_video(path: Path, *, seed: int, duration_s: Fraction = Fraction(2), sound: bool = True) -> Path:
    """H.264 and AAC in MP4: a square that moves over a background of `seed`'s colours, and a tone of its pitch."""
    generator = np.random.default_rng(seed)
    back, front = generator.integers(0, 256, (2, 3), dtype=np.uint8)
    pitch_hz = 200 + 50 * (seed % 40)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=VIDEO_FPS, options={"preset": "ultrafast", "threads": "1"})
        video.width, video.height, video.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        audio = container.add_stream("aac", rate=RATE_HZ, options={"aac_coder": "fast"}) if sound else None
        for i in range(int(duration_s * VIDEO_FPS)):
            picture = np.tile(back, (HEIGHT_PX, WIDTH_PX, 1))
            left = (i * 3 + seed) % (WIDTH_PX - 16)
            picture[16:32, left : left + 16] = front
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        if audio is not None:
            times_s = np.arange(int(duration_s * RATE_HZ)) / RATE_HZ
            tone = (0.3 * np.sin(2 * np.pi * pitch_hz * times_s)).astype(np.float32)
            for first in range(0, len(tone), 1024):
                frame = av.AudioFrame.from_ndarray(tone[None, first : first + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = RATE_HZ, first
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def make_folder(folder: Path, count: int, *, seed: int = 0) -> Path:
    """`count` videos of 1 to 3 s, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        make_video(folder / f"v{i:03}.mp4", seed=seed + i, duration_s=Fraction(2 + i % 5, 2))
    return folder


def arrays(uri: Path) -> dict[str, Any]:
    """Everything a store holds: path -> array, and "@" + path -> a group's attributes."""
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(uri)))
    held: dict[str, Any] = {}

    def walk(group: zarr.Group) -> None:
        held["@" + group.path] = dict(group.attrs)
        for _, member in group.members():
            if isinstance(member, zarr.Group):
                walk(member)
            else:
                held[member.path] = member[...]

    walk(zarr.open_group(repository.readonly_session("main").store, mode="r"))
    return held


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The paths at which two stores differ in any bit."""
    return sorted(path for path in one.keys() | other.keys() if not _same(one.get(path), other.get(path)))


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray):
        return bool(one == other)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return _bits(one) == _bits(other)


def _bits(array: NDArray[Any]) -> object:
    return array.tolist() if array.dtype.kind == "T" else array.tobytes()
