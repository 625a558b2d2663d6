"""Seconds of a data set as pairs of frames and audio, decoded once for many epochs of training.

A folder of two mapped arrays and a table; what it was made from is written down, and another wish makes it anew.
Decoding is the extraction's own: the same clock, the same frames, the same samples.

Shape suffixes: R rows (segments with frames and audio), P frames a segment, H W pixels, N samples.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.dataset import Dataset, Item
from catalog.errors import AvelError, MediaError
from catalog.fingerprint import fingerprint
from catalog.recipe import Recipe
from catalog.video import Video
from pipeline.clips import Clips
from pipeline.preprocess import spectrogram
from pipeline.sandbox.fetch import local_copy
from pipeline.sandbox.parent import Decoded, Restart, Sandbox

TABLE = "pairs.json"
FRAMES, SOUND = "frames.npy", "sound.npy"
# Of what the arrays hold; raised whenever the same wish gives other arrays.
FORMAT = 1
_FULL_SCALE = 32768


@dataclass(frozen=True, kw_only=True)
class ItemPairs:
    """Where an item's rows are.

    Attributes:
        event_rows: rows whose middle lies in an event of the item, in time order.
        background_rows: the others.
    """

    item: Item
    event_rows: tuple[int, ...]
    background_rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """All pairs of a data set.

    Attributes:
        frames_RPHWC: RGB as `Clips` holds it, mapped from the file.
        sound_RN: int16 full scale, mapped likewise.
        items: split -> its items with at least one row.
        absent: video id -> why it has none.
    """

    frames_RPHWC: NDArray[np.uint8 | np.float32]
    sound_RN: NDArray[np.int16]
    items: dict[str, tuple[ItemPairs, ...]]
    absent: dict[str, str]


def decode_pairs(
    dataset: Dataset,
    recipe: Recipe,
    folder: Path,
    *,
    workers: int = 2,
    on_video: Callable[[], None] = lambda: None,
) -> Pairs:
    """The pairs of all items of `dataset`, from `folder` where they lie already, else decoded into it.

    Args:
        recipe: its grid, frames and audio; both modalities. Encoder and settings do not matter.
        folder: made if absent; what it holds for another wish is replaced.
        workers: decoding children.
        on_video: called after each video, in no order and from several threads.

    Raises:
        ValueError: the recipe lacks a modality.
        AvelError: no video has pairs.
    """
    if recipe.video is None or recipe.audio is None:
        raise ValueError(f"recipe {recipe.name}: pairs need frames and audio, the recipe has one of them")
    wish = fingerprint(
        {
            "format": FORMAT,
            "grid": recipe.grid,
            "video": recipe.video,
            "audio": recipe.audio,
            "videos": [[video.id, video.uri] for video in dataset.videos],
        }
    )
    if _wish_of(folder) != wish:
        _decode_all(dataset.videos, recipe, folder, wish, workers, on_video)
    return _read(dataset, recipe, folder)


def event_segments(item: Item, recipe: Recipe, count: int) -> list[int]:
    """Which of the first `count` segments have their middle in an event of `item`."""
    half_s, hop_s = recipe.grid.window_s / 2, recipe.grid.hop_s
    middles_s = [segment * hop_s + half_s for segment in range(count)]
    return [
        segment
        for segment, middle_s in enumerate(middles_s)
        if any(event.start_s <= middle_s < event.end_s for event in item.events)
    ]


def _wish_of(folder: Path) -> str | None:
    try:
        table = json.loads((folder / TABLE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return table.get("wish") if isinstance(table, dict) else None


def _decode_all(
    videos: Sequence[Video], recipe: Recipe, folder: Path, wish: str, workers: int, on_video: Callable[[], None]
) -> None:
    made = folder.with_name(folder.name + ".part")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    rows: list[list[Any]] = []
    absent: dict[str, str] = {}
    shares = [videos[worker::workers] for worker in range(workers)]

    def decode(share: Sequence[Video]) -> list[tuple[Video, Path, list[int] | str]]:
        results: list[tuple[Video, Path, list[int] | str]] = []
        with Sandbox() as sandbox:
            for video in share:
                place = made / f"{len(results)}-{id(share)}"
                results.append((video, place, _decode_one(video, recipe, sandbox, place)))
                on_video()
        return results

    with ThreadPoolExecutor(max_workers=workers) as pool:
        found = [one for part in pool.map(decode, shares) for one in part]
    order = {video.id: number for number, video in enumerate(videos)}
    found.sort(key=lambda one: order[one[0].id])
    for video, _, segments in found:
        if isinstance(segments, str):
            absent[video.id] = segments
        else:
            rows += [[video.id, segment] for segment in segments]
    if not rows:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(absent.items())[:3])
        raise AvelError(f"none of the {len(videos)} videos has a second with frames and audio ({reasons})")
    for name in (FRAMES, SOUND):
        _join(
            [place.with_suffix(f".{name}") for _, place, segments in found if isinstance(segments, list)], made / name
        )
    table = {"wish": wish, "rows": rows, "absent": absent}
    (made / TABLE).write_text(json.dumps(table), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(made, folder)


def _decode_one(video: Video, recipe: Recipe, sandbox: Sandbox, place: Path) -> list[int] | str:
    """Writes a video's pairs beside `place`; their segments, or why there are none."""
    frames: list[NDArray[np.uint8 | np.float32]] = []
    sound: list[NDArray[np.int16]] = []
    segments: list[int] = []
    try:
        with local_copy(video.uri) as path:
            for part in sandbox.decode(video, path, [recipe]):
                if isinstance(part, Decoded):
                    break
                if isinstance(part, Restart):
                    frames, sound, segments = [], [], []
                    continue
                usable = _usable(part[1], recipe)
                segments += [part[1].first + row for row in usable]
                frames += [part[1].frames_FHWC[part[1].frame_index_SP[row]] for row in usable]
                if usable:
                    sound.append(_sound(part[1])[usable])
    except MediaError as error:
        return f"{error.reason}: {error.detail}"
    if not segments:
        return "no second of it has both frames and audio"
    np.save(place.with_suffix(f".{FRAMES}"), np.stack(frames))
    np.save(place.with_suffix(f".{SOUND}"), np.concatenate(sound))
    return segments


def _usable(clips: Clips, recipe: Recipe) -> list[int]:
    assert recipe.audio is not None
    seen_S = (clips.frame_index_SP >= 0).all(axis=1)
    heard_S = spectrogram.coverage(clips, recipe.audio.min_coverage) if clips.samples_N.size else np.zeros_like(seen_S)
    return [int(row) for row in np.flatnonzero(seen_S & heard_S)]


def _sound(clips: Clips) -> NDArray[np.int16]:
    samples_SN, _ = spectrogram.windows(clips)
    return np.clip(np.rint(samples_SN * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


def _join(parts: Sequence[Path], whole: Path) -> None:
    """The arrays one after the other in one file, without holding them all."""
    arrays = [np.load(part, mmap_mode="r", allow_pickle=False) for part in parts]
    total = sum(len(array) for array in arrays)
    out = np.lib.format.open_memmap(whole, "w+", arrays[0].dtype, (total, *arrays[0].shape[1:]))
    at = 0
    for array in arrays:
        out[at : at + len(array)] = array
        at += len(array)
    out.flush()
    for part in parts:
        part.unlink()


def _read(dataset: Dataset, recipe: Recipe, folder: Path) -> Pairs:
    table = json.loads((folder / TABLE).read_text(encoding="utf-8"))
    rows_of: dict[str, dict[int, int]] = {}
    for row, (video_id, segment) in enumerate(table["rows"]):
        rows_of.setdefault(video_id, {})[segment] = row
    items: dict[str, list[ItemPairs]] = {"train": [], "val": [], "test": []}
    for item in dataset.items:
        rows = rows_of.get(item.video_id)
        if rows is None:
            continue
        inside = set(event_segments(item, recipe, max(rows) + 1))
        items[item.split].append(
            ItemPairs(
                item=item,
                event_rows=tuple(row for segment, row in rows.items() if segment in inside),
                background_rows=tuple(row for segment, row in rows.items() if segment not in inside),
            )
        )
    return Pairs(
        frames_RPHWC=np.load(folder / FRAMES, mmap_mode="r", allow_pickle=False),
        sound_RN=np.load(folder / SOUND, mmap_mode="r", allow_pickle=False),
        items={split: tuple(found) for split, found in items.items()},
        absent=dict(table["absent"]),
    )
