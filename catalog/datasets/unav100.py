"""UnAV-100 (Geng et al., CVPR 2023): 10,790 untrimmed videos of 10 to 60 s, 30,059 events of 100 classes.

File, as published: `unav100_annotations.json`, `{"version": ..., "database": {id: {"duration": number, "subset":
"train"|"validation"|"test", "annotations": [{"segment": [start, end], "label": text, "label_id": int}, ...]}}}`.

Convention: times are exact, as their decimals are written (durations may be integers). Events of one video overlap
freely and keep the file's order. A class's index is its `label_id`; there is no background class. "validation" reads
as "val". An item is a video, its id the video's.

Source: github.com/ttgeng233/UnAV, data/unav100/annotations (commit 60144ed).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from catalog.annotation import check_video_id, need, need_file, need_key, read_json
from catalog.dataset import Dataset, Item
from catalog.errors import AnnotationError
from catalog.event import Event
from catalog.grid import exact_seconds
from catalog.media import locate, media_folder

FILE = "unav100_annotations.json"

# Far beyond the file's (60 s, 23 events), and within what a report takes.
LONGEST_S = 10**6
MOST_EVENTS = 2000

_SPLIT_OF_SUBSET = {"train": "train", "validation": "val", "val": "val", "test": "test"}
_SUBSET_OF_SPLIT = {"train": "train", "val": "validation", "test": "test"}


def load(root: str | Path, *, media: str | Path | None = None, unseen: str | None = None) -> Dataset:
    """Reads UnAV-100's file.

    Args:
        root: folder of `unav100_annotations.json`.
        media: folder or URL prefix of `ID.mp4`; by default `root/videos` or `root`.
        unseen: classes to hold out of training: a share such as "0.25" (always the same classes, by a hash of their
            names) or a text file with one class a line. Ours: the data set has no such split.

    Raises:
        AnnotationError: the file is missing, wrong or damaged.
        ValueError: `unseen` is neither a share nor a file of some of the classes.
    """
    path = need_file(Path(root), (FILE,), "UnAV-100's annotations")
    whole = need(read_json(path), dict, f"{path}", "an object with the field 'database'")
    database = need_key(whole, "database", dict, f"{path}", "video ids to their annotations")
    if not database:
        raise AnnotationError(f"{path}, field 'database': needs videos, got none; fetch the file again")
    label_of: dict[int, str] = {}
    durations_s: dict[str, Fraction | None] = {}
    items = []
    for id_, entry in database.items():
        where = f"{path}, video {id_!r}"
        check_video_id(id_, where)
        item, duration_s = _item(id_, need(entry, dict, where, "an object"), where, label_of)
        items.append(item)
        durations_s[id_] = duration_s
    classes = _classes(label_of, path)
    videos, absent = locate(durations_s, media_folder(root, media))
    return Dataset(
        name="unav100",
        classes=classes,
        items=tuple(items),
        videos=videos,
        num_segments=None,
        background=None,
        oddities=(*_odd(items), *absent),
        unseen=held_out(classes, unseen),
    )


def held_out(classes: Sequence[str], unseen: str | None) -> tuple[str, ...]:
    """The classes to hold out, in the order of `classes`; see `load`."""
    if unseen is None:
        return ()
    try:
        share = Fraction(unseen)
    except (ValueError, ZeroDivisionError):
        path = Path(unseen)
        if not path.is_file():
            raise ValueError(f"unseen: needs a share such as 0.25 or a file of classes, got {unseen!r}") from None
        try:
            named = {line.strip() for line in path.read_text(encoding="utf-8").splitlines()} - {""}
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"unseen: {path} cannot be read as a text of one class a line: {error}") from error
        unexpected = sorted(named - set(classes))
        if unexpected:
            raise ValueError(f"unseen: {path}: {unexpected[0]!r} is no class of the annotations") from None
        if not named or len(named) == len(classes):
            raise ValueError(
                f"unseen: {path} must hold out some of the {len(classes)} classes and leave some, it names {len(named)}"
            ) from None
    else:
        if not 0 < share < 1 or len(classes) < 2:
            raise ValueError(f"unseen: a share of 2 or more classes lies above 0 and below 1, got {unseen}")
        by_hash = sorted(classes, key=lambda label: hashlib.sha256(label.encode()).digest())
        named = set(by_hash[: min(max(1, round(share * len(classes))), len(classes) - 1)])
    return tuple(label for label in classes if label in named)


def write(dataset: Dataset, root: Path) -> None:
    """Writes UnAV-100's file.

    The format names a class only where an event has it, so every class must occur; times must be decimals, as JSON
    writes them; every video needs its duration, and exactly one item.

    Raises:
        ValueError: the data set does not fit the format; the message names the item.
    """
    if [item.id for item in dataset.items] != [video.id for video in dataset.videos]:
        raise ValueError(f"{dataset.name}: UnAV-100 has one item a video, in the same order, with the video's id")
    occurring = {event.label for item in dataset.items for event in item.events}
    silent = [label for label in dataset.classes if label not in occurring]
    if silent:
        raise ValueError(f"{dataset.name}: UnAV-100 names classes by their events; {silent[0]!r} has none")
    database = {}
    for item in dataset.items:
        where = f"{dataset.name}: item {item.id}"
        check_video_id(item.id, where)
        duration_s = dataset.by_id[item.id].duration_s
        if duration_s is None or item.category is not None or item.seen is not None or item.video_id != item.id:
            raise ValueError(f"{where}: UnAV-100 needs a duration and has no category and no `seen`")
        if any(event.end_s > duration_s for event in item.events):
            raise ValueError(f"{where}: UnAV-100's events end within the {duration_s} s of their video")
        database[item.id] = {
            "duration": _number(duration_s, where),
            "annotations": [
                {
                    "segment": [_number(event.start_s, where), _number(event.end_s, where)],
                    "label": event.label,
                    "label_id": dataset.class_index(event.label),
                }
                for event in item.events
            ],
            "subset": _SUBSET_OF_SPLIT[item.split],
        }
    root.mkdir(parents=True, exist_ok=True)
    (root / FILE).write_text(json.dumps({"version": "unav100", "database": database}), encoding="utf-8")


def _item(id_: str, entry: dict[str, Any], where: str, label_of: dict[int, str]) -> tuple[Item, Fraction]:
    duration_s = Fraction(need_key(entry, "duration", (int, Fraction), where, "seconds above 0"))
    if not 0 < duration_s <= LONGEST_S:
        raise AnnotationError(
            f"{where}, field 'duration': needs seconds above 0, up to {LONGEST_S:,}, got {_told(duration_s)}"
        )
    subset = need_key(entry, "subset", str, where, "train, validation or test")
    split = _SPLIT_OF_SUBSET.get(subset.lower())
    if split is None:
        raise AnnotationError(f"{where}, field 'subset': needs train, validation or test, got {subset!r}")
    annotations = need_key(entry, "annotations", list, where, "a list of events")
    if len(annotations) > MOST_EVENTS:
        raise AnnotationError(
            f"{where}, field 'annotations': takes up to {MOST_EVENTS:,} events, got {len(annotations):,}"
        )
    events = tuple(
        _event(value, duration_s, f"{where}, annotation {number}", label_of) for number, value in enumerate(annotations)
    )
    return Item(id=id_, video_id=id_, split=split, events=events), duration_s


def _event(value: object, duration_s: Fraction, where: str, label_of: dict[int, str]) -> Event:
    fields = need(value, dict, where, "an object with segment, label and label_id")
    segment = need_key(fields, "segment", list, where, "[start, end] in seconds")
    if len(segment) != 2:
        raise AnnotationError(f"{where}, field 'segment': needs [start, end], got {len(segment)} numbers")
    start_s, end_s = (
        Fraction(need(time_s, (int, Fraction), f"{where}, field 'segment'", "seconds")) for time_s in segment
    )
    if not 0 <= start_s < end_s <= duration_s:
        raise AnnotationError(
            f"{where}, field 'segment': needs 0 <= start < end <= duration {float(duration_s)}, "
            f"got {_told(start_s)} and {_told(end_s)}; correct the times"
        )
    label = need_key(fields, "label", str, where, "the class's name")
    label_id = need_key(fields, "label_id", int, where, "the class's number")
    if not label or label_id < 0:
        raise AnnotationError(f"{where}: needs a label and a label_id of 0 or more, got {label!r} and {label_id}")
    known = label_of.setdefault(label_id, label)
    if known != label:
        raise AnnotationError(f"{where}, field 'label_id': {label_id} needs the label {known!r}, got {label!r}")
    return Event(start_s=start_s, end_s=end_s, label=label)


def _told(seconds: Fraction) -> str:
    """As a decimal, where a float holds it."""
    return f"{float(seconds)}" if abs(seconds) < 10**300 else "a number of over 300 digits"


def _classes(label_of: dict[int, str], path: Path) -> tuple[str, ...]:
    for label_id in range(len(label_of)):
        if label_id not in label_of:
            raise AnnotationError(
                f"{path}, field 'label_id': no event has {label_id}, so the name of that class is unknown "
                f"(the largest is {max(label_of)}); needs the whole file"
            )
    classes = tuple(label_of[label_id] for label_id in range(len(label_of)))
    id_of: dict[str, int] = {}
    for label_id, label in enumerate(classes):
        if id_of.setdefault(label, label_id) != label_id:
            raise AnnotationError(f"{path}, field 'label_id': {label!r} has both {id_of[label]} and {label_id}")
    return classes


def _odd(items: list[Item]) -> list[str]:
    odd = []
    overlapping = sum(_overlap(item) for item in items)
    if overlapping:
        odd.append(f"{overlapping} of {len(items)} videos have events that overlap.")
    without = sum(not item.events for item in items)
    if without:
        odd.append(f"{without} video(s) have no event.")
    return odd


def _overlap(item: Item) -> bool:
    events = sorted(item.events, key=lambda event: event.start_s)
    return any(later.start_s < earlier.end_s for earlier, later in pairwise(events))


def _number(time_s: Fraction, where: str) -> int | float:
    if time_s.denominator == 1:
        return time_s.numerator
    if exact_seconds(float(time_s)) != time_s:
        raise ValueError(f"{where}: UnAV-100's times are decimals of at most 15 digits, got {time_s}")
    return float(time_s)
