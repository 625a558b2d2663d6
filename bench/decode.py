"""Sandboxed decode and resize against the same reading and resizing in this process, and against the ffmpeg program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.measurement import Measurement, taking_turns
from bench.media import write_clip
from catalog.video import Video
from pipeline.decode.probe import probe
from pipeline.decode.windows import decode
from pipeline.recipes import find_recipe
from pipeline.sandbox.parent import Limits, Sandbox

ABOUT = "decode + resize in the sandbox against the same without it, and against the ffmpeg program where there is one"

NUM_CLIPS, SECONDS = 4, 14


def measure(folder: Path) -> list[Measurement]:
    recipe = find_recipe("descriptors-1s")
    assert recipe.video is not None
    assert recipe.audio is not None
    clips = [folder / f"clip-{i}.mp4" for i in range(NUM_CLIPS)]
    for i, clip in enumerate(clips):
        write_clip(clip, seconds=SECONDS, seed=i)
    videos = [Video(id=clip.stem, uri=str(clip)) for clip in clips]
    window_bytes = Limits().window_bytes

    def without() -> None:
        for clip, video in zip(clips, videos, strict=True):
            for _ in decode(str(clip), probe(str(clip)), [recipe], video_id=video.id, window_bytes=window_bytes):
                pass

    with Sandbox() as sandbox:

        def within() -> None:
            for clip, video in zip(clips, videos, strict=True):
                for _ in sandbox.decode(video, clip, [recipe]):
                    pass

        within_s, without_s = taking_turns(5, within, without)
    media_s = NUM_CLIPS * SECONDS
    figures = [
        Measurement(
            what="sandboxed decode + resize / the same without the sandbox",
            value=within_s / without_s,
            unit="x",
            at_most=1.15,
            detail=f"{media_s} s of 480x360 at 30 fps: {within_s:.2f} s, {without_s:.2f} s",
        ),
        Measurement(what="sandboxed decode, one core", value=media_s / within_s, unit="x real time"),
    ]
    program = shutil.which("ffmpeg")
    if program is not None:
        rate_hz, size = recipe.audio.rate_hz, f"{recipe.video.width_px}x{recipe.video.height_px}"
        picks = f"fps={recipe.video.frames_per_segment},scale={size.replace('x', ':')}:flags=area,format=rgb24"

        def with_program() -> None:
            for clip in clips:
                command = [program, "-v", "error", "-threads", "1", "-i", str(clip)]
                command += ["-map", "0:v", "-vf", picks, "-f", "rawvideo", "-y", "/dev/null"]
                command += ["-map", "0:a", "-ac", "1", "-ar", str(rate_hz), "-f", "f32le", "-y", "/dev/null"]
                subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

        (program_s,) = taking_turns(5, with_program)
        figures.append(
            Measurement(
                what="sandboxed decode + resize / the ffmpeg program",
                value=within_s / program_s,
                unit="x",
                detail=f"{within_s:.2f} s, {program_s:.2f} s",
            )
        )
    return figures
