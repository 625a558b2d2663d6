"""Extraction against its floors: in this process against decode-only and encode-only, Ray against in this process."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

from bench.measurement import Measurement
from bench.media import write_clip
from catalog.recipe import Recipe
from catalog.video import Video
from pipeline.clips import Clips
from pipeline.encode import load_encoder
from pipeline.executors.ray_cluster import RaySettings
from pipeline.extract import ExtractOptions, extract
from pipeline.recipes import find_recipe
from pipeline.sandbox.parent import Sandbox
from pipeline.unit import one_thread

ABOUT = "100 clips: extraction in this process against decode-only and encode-only; Ray against in this process"

NUM_CLIPS, SECONDS, NUM_FILES = 100, 10, 10


def measure(folder: Path) -> list[Measurement]:
    recipe = find_recipe("descriptors-1s")
    files = [folder / f"clip-{i}.mp4" for i in range(NUM_FILES)]
    for i, file in enumerate(files):
        write_clip(file, seconds=SECONDS, seed=i)
    videos = []
    for i, file in zip(range(NUM_CLIPS), itertools.cycle(files), strict=False):
        link = folder / f"video-{i:03d}.mp4"
        os.link(file, link)
        videos.append(Video(id=link.stem, uri=str(link)))

    decode_s, decoded = _decode_only(videos, recipe)
    encode_s = _encode_only(decoded, recipe)
    one_lane = extract(videos, [recipe], folder / "one", ExtractOptions(workers=1))
    cores = os.cpu_count() or 1
    local = extract(videos, [recipe], folder / "local", ExtractOptions(workers=cores))
    on_ray = extract(videos, [recipe], folder / "ray", ExtractOptions(ray=RaySettings(), workers=cores))
    media_s = NUM_CLIPS * SECONDS
    floor_s = max(decode_s, encode_s)
    return [
        Measurement(
            what="larger of decode-only and encode-only / extraction in this process, one lane",
            value=floor_s / one_lane.wall_s,
            unit="x",
            at_least=0.95,
            detail=f"decode {decode_s:.1f} s, encode {encode_s:.1f} s, both {one_lane.wall_s:.1f} s",
        ),
        Measurement(
            what=f"extraction in this process / on Ray after start-up, {cores} workers each",
            value=local.wall_s / on_ray.wall_s,
            unit="x",
            at_least=0.9,
            detail=f"{local.wall_s:.1f} s, {on_ray.wall_s:.1f} s (+ {on_ray.startup_s:.1f} s start-up)",
        ),
        Measurement(
            what=f"extraction in this process, {cores} lanes, 480x360 at 30 fps",
            value=media_s / local.wall_s,
            unit="x real time",
        ),
    ]


def _decode_only(videos: list[Video], recipe: Recipe) -> tuple[float, list[Clips]]:

    clips = []
    # The child's start is in it, as it is in extraction's own time.
    began_s = time.perf_counter()
    with Sandbox() as sandbox:
        for video in videos:
            clips += [item[1] for item in sandbox.decode(video, video.uri, [recipe]) if isinstance(item, tuple)]
        return time.perf_counter() - began_s, clips


def _encode_only(clips: list[Clips], recipe: Recipe) -> float:

    encoder = load_encoder(recipe, None, "cpu")
    with one_thread():
        encoder.encode(clips[:1])
        began_s = time.perf_counter()
        for first in range(0, len(clips), 8):
            encoder.encode(clips[first : first + 8])
        return time.perf_counter() - began_s
