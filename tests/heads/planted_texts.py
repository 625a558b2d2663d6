"""A small data set in OV-AVEBench's layout, and a store in whose features the class texts themselves are planted.

Sound, picture and text share a space: a segment's features are its class's text (the background's where no event is)
plus noise. Four classes are seen; two are unseen and stand in validation and test alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from catalog.video import EXTRACTED, Video

SEEN = ("barking", "fiddling", "hammering", "sawing")
UNSEEN = ("neighing", "purring")
CLASSES = tuple(sorted((*SEEN, *UNSEEN)))
OTHER = "other"
SECONDS, WIDTH = 10, 24
RECIPE = Recipe(
    name="shared-1s",
    encoder="descriptors",
    grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
    video=VideoSampling(frames_per_segment=1, height_px=16, width_px=16),
    audio=AudioSampling(rate_hz=16000),
)


def text_of(name: str) -> NDArray[np.float32]:
    """(WIDTH,) float32, a direction that depends on the name alone; any length."""
    rng = np.random.default_rng(list(map(ord, name)))
    return (rng.normal(size=WIDTH) + 0.4).astype(np.float32)


def dataset(*, a_class: int = 8, seed: int = 0) -> Dataset:
    """`a_class` items a class; of seen ones half train, a quarter val, a quarter test; every eighth has no event."""
    rng = np.random.default_rng(seed)
    items: list[Item] = []
    for label in CLASSES:
        for i in range(a_class):
            split = ("train", "val", "train", "test")[i % 4] if label in SEEN else ("val", "test")[i % 2]
            events = _events(rng, label) if i % 8 != 4 else ()
            name = f"{label}-{i:02d}"
            items.append(Item(id=name, video_id=name, split=split, events=events, category=label, seen=label in SEEN))
    return Dataset(
        name="ovavebench",
        classes=CLASSES,
        items=tuple(items),
        videos=tuple(Video(id=item.id, uri=f"videos/{item.id}.mp4") for item in items),
        num_segments=SECONDS,
        background=OTHER,
    )


def _events(rng: np.random.Generator, label: str) -> tuple[Event, ...]:
    """One or two maximal runs of whole seconds."""
    cells = rng.random(SECONDS) < 0.25
    first = int(rng.integers(0, 5))
    cells[first : first + 4] = True
    edges = np.flatnonzero(np.diff(cells.astype(np.int8), prepend=0, append=0))
    return tuple(
        Event(start_s=Fraction(int(a)), end_s=Fraction(int(b)), label=label)
        for a, b in zip(edges[::2], edges[1::2], strict=True)
    )


def rows_of(item: Item, *, noise: float = 0.4) -> RecipeRows:
    rng = np.random.default_rng(list(map(ord, item.id)))
    features = {}
    for name in ("visual", "audio"):
        rows = rng.normal(size=(SECONDS, WIDTH)) * noise
        for t in range(SECONDS):
            labels = [event.label for event in item.events if event.start_s <= t < event.end_s]
            rows[t] += text_of(labels[0] if labels else OTHER)
        features[name] = rows.astype(np.float32)
    whole = np.ones(SECONDS, dtype=bool)
    starts_s = np.arange(SECONDS, dtype=np.float64)
    return RecipeRows(
        visual=Modal(values=features["visual"], valid=whole),
        audio=Modal(values=features["audio"], valid=whole),
        start_s=starts_s,
        end_s=starts_s + 1,
    )


def store(
    uri: str | Path,
    data: Dataset,
    vocabularies: Mapping[str, Sequence[str]] | None = None,
    *,
    noise: float = 0.4,
    prompt: str = "{}",
) -> FeatureStore:
    """A store of all videos, and of the vocabularies' texts; by default `mine`, the classes and `other`."""
    held = create_store(str(uri))
    results = [
        VideoResult(
            video=video,
            unit=0,
            outcome=EXTRACTED,
            duration_s=float(SECONDS),
            features={RECIPE.name: rows_of(item, noise=noise)},
        )
        for video, item in zip(data.videos, data.items, strict=True)
    ]
    with open_writer(held) as writer:
        writer.ensure_recipe(RECIPE, visual_shape=(WIDTH,), audio_shape=(WIDTH,), card={})
        writer.append(results, [RECIPE.name])
        chosen = {"mine": (*CLASSES, OTHER)} if vocabularies is None else vocabularies
        for name, names in chosen.items():
            features = np.stack([text_of(label) for label in names])
            writer.write_labels(RECIPE.name, name, list(names), features, prompt=prompt)
        writer.commit("planted")
    held.refresh()
    return held
