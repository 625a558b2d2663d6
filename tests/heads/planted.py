"""A small data set in AVE's layout and a store of features in which its events are planted.

Classes 0 and 1 sound alike and classes 1 and 2 look alike: neither modality alone can name them all.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalog.dataset import Dataset, Item
from catalog.event import Event
from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.store.modal import Modal
from catalog.store.reader import FeatureStore, create_store
from catalog.store.rows import RecipeRows, VideoResult
from catalog.store.writer import open_writer
from catalog.video import EXTRACTED, Outcome, Video

CLASSES = ("Bark", "Violin, fiddle", "Train horn")
SECONDS = 10
VISUAL_SHAPE, AUDIO_SHAPE = (6,), (5,)


def recipe(name: str = "descriptors-1s", *, hop_s: str = "1", window_s: str = "1") -> Recipe:
    return Recipe(
        name=name,
        encoder="descriptors",
        grid=GridRule(window_s=Fraction(window_s), hop_s=Fraction(hop_s)),
        video=VideoSampling(frames_per_segment=4, height_px=64, width_px=64),
        audio=AudioSampling(rate_hz=16000),
    )


def dataset(*, items_a_class: int = 20, seed: int = 0, media: str = "videos") -> Dataset:
    """Items sorted by class as AVE's are; of each class half train, a quarter val, a quarter test."""
    rng = np.random.default_rng(seed)
    items: list[Item] = []
    for label in CLASSES:
        for i in range(items_a_class):
            start = int(rng.integers(0, 6))
            end = int(rng.integers(start + 2, 11))
            number = len(items)
            items.append(
                Item(
                    id=f"{number:05d}",
                    video_id=f"video-{number:03d}",
                    split=("train", "val", "train", "test")[i % 4],
                    events=(Event(start_s=Fraction(start), end_s=Fraction(end), label=label),),
                    category=label,
                )
            )
    videos = tuple(Video(id=item.video_id, uri=f"{media}/{item.video_id}.mp4") for item in items)
    return Dataset(
        name="ave",
        classes=CLASSES,
        items=tuple(items),
        videos=videos,
        num_segments=SECONDS,
        background="background",
    )


def rows_of(
    item: Item, made_with: Recipe, *, seconds: int = SECONDS, noise: float = 0.6, visual_shape: tuple[int, ...] = (6,)
) -> RecipeRows:
    """Features of an item: its classes' prototypes where an event is, noise everywhere, by a slow obvious loop."""
    prototypes = np.random.default_rng(99)
    audio_KD = prototypes.normal(size=(3, *AUDIO_SHAPE)) * 2
    visual_KD = prototypes.normal(size=(3, *visual_shape)) * 2
    audio_KD[1], visual_KD[2] = audio_KD[0], visual_KD[1]
    rng = np.random.default_rng(sum(map(ord, item.video_id)))
    grid = made_with.grid.grid(Fraction(seconds))
    visual = rng.normal(size=(grid.count, *visual_shape)) * noise
    audio = rng.normal(size=(grid.count, *AUDIO_SHAPE)) * noise
    for i in range(grid.count):
        for event in item.events:
            if event.start_s <= grid.middle_s(i) < event.end_s:
                k = CLASSES.index(event.label)
                visual[i] += visual_KD[k]
                audio[i] += audio_KD[k]
    return RecipeRows(
        visual=Modal(values=visual.astype(np.float32), valid=np.ones(grid.count, dtype=bool)),
        audio=Modal(values=audio.astype(np.float32), valid=np.ones(grid.count, dtype=bool)),
        start_s=grid.starts_s(),
        end_s=grid.ends_s(),
    )


def without(
    rows: RecipeRows, *, visual: NDArray[np.bool_] | None = None, audio: NDArray[np.bool_] | None = None
) -> RecipeRows:
    """`rows` with some segments' features not computed."""
    kept = dict(rows.modalities())
    for name, lost in (("visual", visual), ("audio", audio)):
        if lost is not None:
            kept[name] = Modal(values=Modal(values=kept[name].values, valid=~lost).filled(np.nan), valid=~lost)
    return replace(rows, visual=kept["visual"], audio=kept["audio"])


def store(
    uri: str | Path,
    data: Dataset,
    made_with: Recipe | None = None,
    *,
    quarantined: Collection[str] = (),
    missing: Collection[str] = (),
    rows: dict[str, RecipeRows] | None = None,
    visual_shape: tuple[int, ...] = VISUAL_SHAPE,
) -> FeatureStore:
    """A store of `data`'s videos in reverse order (a store's order is not the data set's).

    Args:
        quarantined, missing: video ids that failed, and that the store has never heard of.
        rows: video id to features, where not the planted ones.
    """
    made_with = made_with or recipe()
    uri = str(uri)
    held = create_store(uri)
    results = []
    item_of = {item.video_id: item for item in data.items}
    for video in reversed(data.videos):
        if video.id in missing:
            continue
        if video.id in quarantined:
            results.append(VideoResult(video=video, unit=0, outcome=Outcome(status="quarantined", reason="empty_file")))
            continue
        found = (rows or {}).get(video.id) or rows_of(item_of[video.id], made_with, visual_shape=visual_shape)
        results.append(
            VideoResult(
                video=video,
                unit=0,
                outcome=EXTRACTED,
                duration_s=10.0,
                features={made_with.name: found},
            )
        )
    with open_writer(held) as writer:
        writer.ensure_recipe(made_with, visual_shape=visual_shape, audio_shape=AUDIO_SHAPE, card={})
        writer.append(results, [made_with.name])
        writer.commit("planted")
    held.refresh()
    return held
