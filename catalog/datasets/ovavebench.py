"""OV-AVEBench (Zhou et al., CVPR 2025): 24,800 VGGSound videos of ten seconds, 46 seen and 21 unseen classes.

Files, as published: `ovave_dataset_meta.csv` (split,cls_name,cls_type,vid_name) or a reduced training list
`ovave_trainratio0.25_meta.csv` (its val and test are the whole ones), `released_ovavel_dataset_anno.json` (id to
category and ten zeros and ones, as a JSON text within the JSON), `ovave_total_close_open_categories.csv` (line number =
class index, last line `other`) and, if there, `ovave_train_close_categories.csv`. Each may be `.gz`.

Convention: a run of ones is one event of the video's category; ten zeros are an item without events, whose category
is still stated. `seen` is cls_type == close. `other` is the background and not among the classes. The annotations
that are not called "released" differ in 12 videos; they are read where the released ones are missing, else compared.

Source: github.com/jasongief/OV-AVEL, meta_anno_files (its config reads the released file).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from catalog.annotation import check_video_id, find_file, need, need_file, need_key, read_json, read_lines, read_text
from catalog.dataset import SPLITS, Dataset, Item
from catalog.errors import AnnotationError
from catalog.event import Event
from catalog.media import locate, media_folder

NUM_SEGMENTS = 10
BACKGROUND = "other"

META = "ovave_dataset_meta.csv"
RELEASED = "released_ovavel_dataset_anno.json"
OLDER = "ovavel_dataset_anno.json"
CATEGORIES = "ovave_total_close_open_categories.csv"
SEEN_CATEGORIES = "ovave_train_close_categories.csv"

# Of the training items, in the published reduced lists.
SHARES = (Fraction(1, 4), Fraction(1, 2), Fraction(3, 4))

_COLUMNS = ("split", "cls_name", "cls_type", "vid_name")


def load(root: str | Path, *, media: str | Path | None = None, train_list: str | None = None) -> Dataset:
    """Reads OV-AVEBench's files.

    Args:
        root: folder of the files.
        media: folder or URL prefix of `ID.mp4` (or VGGSound's `ID_000034.mp4`); by default `root/videos` or `root`.
        train_list: share of the training videos, "0.25", "0.5" or "0.75": reads `ovave_trainratio{share}_meta.csv`.

    Raises:
        AnnotationError: a file is missing, wrong or damaged.
    """
    folder = Path(root)
    meta_name = META if train_list is None else _reduced(train_list)
    meta_path = need_file(folder, (meta_name,), "OV-AVEBench's list of videos")
    labels_path = need_file(folder, (RELEASED, OLDER), "OV-AVEBench's labels")
    classes = _classes(need_file(folder, (CATEGORIES,), "OV-AVEBench's classes"))
    rows = _read_meta(meta_path, frozenset(classes))
    _check_seen(find_file(folder, (SEEN_CATEGORIES,)), rows, meta_path)
    annotations = _read_annotations(labels_path)
    items = tuple(_item(row, annotations, labels_path, meta_path) for row in rows)
    videos, absent = locate(dict.fromkeys(item.video_id for item in items), media_folder(root, media))
    return Dataset(
        name="ovavebench",
        classes=classes,
        items=items,
        videos=videos,
        num_segments=NUM_SEGMENTS,
        background=BACKGROUND,
        oddities=(*_odd(items, annotations, labels_path, folder), *absent),
    )


def write(dataset: Dataset, root: Path) -> None:
    """Writes OV-AVEBench's files: list, released annotations, both category files, and reduced training lists.

    A reduced list keeps its share of the training items of each class, evenly spread, and all others.

    The format has ids that are the videos', a category and `seen` for each item, and events that are maximal runs of
    whole seconds with the item's category.

    Raises:
        ValueError: the data set does not fit the format; the message names the item.
    """
    if dataset.background != BACKGROUND:
        raise ValueError(f"{dataset.name}: OV-AVEBench's background is {BACKGROUND!r}, got {dataset.background!r}")
    if [item.id for item in dataset.items] != [video.id for video in dataset.videos]:
        raise ValueError(f"{dataset.name}: OV-AVEBench has one item a video, in the same order, with the video's id")
    for label in dataset.classes:
        if label != label.strip() or not label.isprintable():
            raise ValueError(f"{dataset.name}: OV-AVEBench keeps a class a line, got {label!r}")
    annotations = {item.id: {"category": item.category, "label": json.dumps(_cells(item))} for item in dataset.items}
    seen = {item.category for item in dataset.items if item.seen}
    both = seen & {item.category for item in dataset.items if not item.seen}
    if both:
        raise ValueError(f"{dataset.name}: a class is seen or unseen, got both for {sorted(map(str, both))[0]!r}")
    root.mkdir(parents=True, exist_ok=True)
    _write_meta(root / META, dataset.items)
    for share in SHARES:
        _write_meta(root / _reduced(f"{float(share):g}"), _kept(dataset.items, share))
    (root / RELEASED).write_text(json.dumps(annotations, indent=4), encoding="utf-8")
    for name, labels in ((CATEGORIES, dataset.classes), (SEEN_CATEGORIES, [c for c in dataset.classes if c in seen])):
        text = "\r\n".join((*labels, BACKGROUND))
        (root / name).write_text(text, encoding="utf-8", newline="")


def _reduced(train_list: str) -> str:
    return f"ovave_trainratio{train_list}_meta.csv"


def _kept(items: Sequence[Item], share: Fraction) -> list[Item]:
    """All items but for `share` of the training items of each class, evenly spread."""
    kept, numbers = [], Counter[str | None]()
    for item in items:
        number = numbers[item.category]
        numbers[item.category] += item.split == "train"
        if item.split != "train" or math.ceil((number + 1) * share) > math.ceil(number * share):
            kept.append(item)
    return kept


def _write_meta(path: Path, items: Sequence[Item]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows((item.split, item.category, "close" if item.seen else "open", item.id) for item in items)


@dataclass(frozen=True)
class _Row:
    """One line of the list."""

    line: int
    split: str
    category: str
    seen: bool
    video_id: str


def _classes(path: Path) -> tuple[str, ...]:
    labels = [line.strip() for line in read_lines(path)]
    if not labels or labels[-1] != BACKGROUND:
        raise AnnotationError(
            f"{path}:{len(labels)}: needs {BACKGROUND!r} as its last line, got {labels[-1] if labels else 'nothing'!r}"
        )
    for number, label in enumerate(labels, 1):
        if not label or labels.index(label) != number - 1:
            raise AnnotationError(f"{path}:{number}: needs one distinct class a line, got {label!r}")
    return tuple(labels[:-1])


def _read_meta(path: Path, classes: frozenset[str]) -> list[_Row]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows: list[_Row] = []
    lines: dict[str, int] = {}
    try:
        header = tuple(next(reader, ()))
        if header != _COLUMNS:
            raise AnnotationError(f"{path}:1: needs the header {','.join(_COLUMNS)}, got {','.join(header)[:80]!r}")
        for fields in reader:
            if not fields:
                continue
            row = _row(fields, classes, reader.line_num, f"{path}:{reader.line_num}")
            if lines.setdefault(row.video_id, row.line) != row.line:
                raise AnnotationError(
                    f"{path}:{row.line}, field 'vid_name': needs distinct ids, "
                    f"got {row.video_id!r} as in line {lines[row.video_id]}; remove one"
                )
            rows.append(row)
    except csv.Error as error:
        raise AnnotationError(f"{path}:{reader.line_num}: not readable as CSV: {error}") from error
    if not rows:
        raise AnnotationError(f"{path}: needs lines below the header, got none; fetch the file again")
    return rows


def _row(fields: list[str], classes: frozenset[str], line: int, where: str) -> _Row:
    if len(fields) != len(_COLUMNS):
        raise AnnotationError(f"{where}: needs 4 fields {','.join(_COLUMNS)}, got {len(fields)}: {fields}")
    split, category, kind, video_id = fields
    if split not in SPLITS:
        raise AnnotationError(f"{where}, field 'split': needs one of {', '.join(SPLITS)}, got {split!r}")
    if category not in classes:
        raise AnnotationError(f"{where}, field 'cls_name': unknown class {category!r}; {CATEGORIES} does not have it")
    if kind not in ("close", "open"):
        raise AnnotationError(f"{where}, field 'cls_type': needs close or open, got {kind!r}")
    check_video_id(video_id, f"{where}, field 'vid_name'")
    return _Row(line, split, category, kind == "close", video_id)


def _check_seen(path: Path | None, rows: list[_Row], meta_path: Path) -> None:
    if path is None:
        return
    seen = set(_classes(path))
    for row in rows:
        if row.seen != (row.category in seen):
            raise AnnotationError(
                f"{meta_path}:{row.line}, field 'cls_type': {row.category!r} is {'close' if row.seen else 'open'} "
                f"here and not so in {path.name}; the two files are not of the same data set"
            )


def _read_annotations(path: Path) -> dict[str, Any]:
    annotations: dict[str, Any] = need(read_json(path), dict, str(path), "an object of video ids")
    return annotations


def _item(row: _Row, annotations: dict[str, Any], path: Path, meta_path: Path) -> Item:
    where = f"{path}, video {row.video_id!r}"
    if row.video_id not in annotations:
        raise AnnotationError(f"{where}: not there, though {meta_path.name}:{row.line} lists it; needs its labels")
    entry = need(annotations[row.video_id], dict, where, "an object with category and label")
    category = need_key(entry, "category", str, where, "the class's name")
    if category != row.category:
        raise AnnotationError(
            f"{where}, field 'category': needs {row.category!r} as in {meta_path.name}:{row.line}, got {category!r}"
        )
    label = need_key(entry, "label", str, where, "a text such as '[0, 1, ...]'")
    runs = _runs(label)
    if runs is None:
        raise AnnotationError(f"{where}, field 'label': needs ten zeros and ones as a JSON text, got {label[:60]!r}")
    events = tuple(Event(start_s=start_s, end_s=end_s, label=category) for start_s, end_s in runs)
    return Item(
        id=row.video_id, video_id=row.video_id, split=row.split, events=events, category=category, seen=row.seen
    )


@lru_cache(maxsize=2048)  # there are 2^10 labels, so 24,800 videos are parsed in a moment
def _runs(label: str) -> tuple[tuple[Fraction, Fraction], ...] | None:
    """The maximal runs of ones, in seconds; None where `label` is not ten zeros and ones."""
    try:
        cells = json.loads(label)
    except (ValueError, RecursionError):
        return None
    if not isinstance(cells, list) or len(cells) != NUM_SEGMENTS or any(type(c) is not int for c in cells):
        return None
    if not set(cells) <= {0, 1}:
        return None
    edges = [i for i, (before, here) in enumerate(zip([0, *cells], [*cells, 0], strict=True)) if before != here]
    return tuple((Fraction(start), Fraction(end)) for start, end in zip(edges[::2], edges[1::2], strict=True))


def _odd(items: tuple[Item, ...], annotations: dict[str, Any], path: Path, root: Path) -> list[str]:
    odd = []
    left = len(annotations) - len(items)
    if left:
        odd.append(f"{left} annotated video(s) are in no split of the list and left out.")
    empty = sum(not item.events for item in items)
    if empty:
        odd.append(f"{empty} item(s) have no event: background throughout.")
    if not path.name.startswith(RELEASED):
        odd.append(
            f"{RELEASED} is missing: {path.name} is read, whose labels differ in 12 videos of the published set."
        )
        return odd
    other_path = find_file(root, (OLDER,))
    if other_path is not None:
        others = _read_annotations(other_path)
        differ = Counter(item.split for item in items if others.get(item.id) != annotations[item.id])
        if differ:
            counts = ", ".join(f"{differ[split]} {split}" for split in SPLITS)
            odd.append(
                f"{differ.total()} item(s) have other labels in {other_path.name} ({counts}); {path.name} is used."
            )
    return odd


def _cells(item: Item) -> list[int]:
    where = f"item {item.id}"
    if item.video_id != item.id or item.category is None or item.seen is None:
        raise ValueError(f"{where}: OV-AVEBench needs the video's id, a category and `seen`")
    check_video_id(item.id, where)
    cells = [0] * NUM_SEGMENTS
    last_s = Fraction(-1)
    for event in item.events:
        whole = event.start_s.denominator == event.end_s.denominator == 1
        if not whole or event.start_s <= last_s or event.end_s > NUM_SEGMENTS or event.label != item.category:
            raise ValueError(f"{where}: OV-AVEBench's events are maximal runs of whole seconds to 10 with its category")
        last_s = event.end_s
        cells[int(event.start_s) : int(event.end_s)] = [1] * int(event.end_s - event.start_s)
    return cells
