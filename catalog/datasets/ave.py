"""AVE (Tian et al., ECCV 2018): 4,143 items of ten seconds, one event each, 28 classes and background.

Files, as published: `Annotations.txt` (`class&video id&quality&start&end`, whole seconds of a ten-second clip),
`train_order.h5` and its like (rows of each split, from 0) and `trainSet.txt` and its like (the same lines again),
`categories.txt`.

Convention: an item is a row, its id the row's number from 0 in five digits, which is also its row in every published
feature and label array. 45 video ids occur in several rows, with other classes or spans. The order files are the
truth about the splits; a `...Set.txt` is used where its order file is missing, and must agree with it where both are.
A class's index is its order of first appearance, which is its line in `categories.txt`; background comes last and is
not among the classes. `start = end` (one row, `0&0`) is an item without events.

Source: Annotations.txt of AVE_Dataset, github.com/YapengTian/AVE-ECCV18 (issue 13 for the order files).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np

from catalog.annotation import check_video_id, find_file, need_file, read_lines
from catalog.dataset import SPLITS, Dataset, Item
from catalog.errors import AnnotationError
from catalog.event import Event
from catalog.media import locate, media_folder

NUM_SEGMENTS = 10
BACKGROUND = "background"
MEDIA_FOLDERS = ("videos", "AVE")  # the published archive keeps its videos in AVE/

_FIELDS = "class&video id&quality&start&end"


def load(root: str | Path, *, media: str | Path | None = None) -> Dataset:
    """Reads AVE's files.

    Args:
        root: folder of `Annotations.txt`.
        media: folder or URL prefix of `ID.mp4`; by default `root/videos`, `root/AVE` or `root`.

    Raises:
        AnnotationError: a file is missing, wrong or damaged.
    """
    folder = Path(root)
    path = need_file(folder, ("Annotations.txt",), "AVE's annotations")
    rows, first_line = _read_rows(path)
    classes = _classes(folder, rows)
    splits, notes = _splits(folder, rows, path)
    items = tuple(_item(f"{number:05d}", row, splits[number]) for number, row in enumerate(rows) if number in splits)
    videos, absent = locate(dict.fromkeys(item.video_id for item in items), media_folder(root, media, MEDIA_FOLDERS))
    if first_line > 1:
        notes.insert(0, "Annotations.txt begins with a header line; rows are counted after it.")
    return Dataset(
        name="ave",
        classes=classes,
        items=items,
        videos=videos,
        num_segments=NUM_SEGMENTS,
        background=BACKGROUND,
        oddities=(*notes, *_odd(items, rows), *absent),
    )


def write(dataset: Dataset, root: Path) -> None:
    """Writes AVE's files: Annotations.txt, categories.txt, order files and Set.txt files.

    The format has one event of whole seconds per item at most, row numbers as ids, and class indexes by first
    appearance: classes that occur must first occur in the order of `dataset.classes`.

    Raises:
        ValueError: the data set does not fit the format; the message names the item.
    """
    lines = [_line(dataset, number, item) for number, item in enumerate(dataset.items)]
    appearance = list(dict.fromkeys(item.category or "" for item in dataset.items))
    if appearance != sorted(appearance, key=dataset.class_index):
        raise ValueError(
            f"{dataset.name}: AVE numbers classes by first appearance; they appear as {appearance}, "
            f"their order is {list(dataset.classes)}; sort the items by class"
        )
    for label in dataset.classes:
        if "&" in label or label != label.strip() or not label.isprintable():
            raise ValueError(f"{dataset.name}: AVE's files separate fields by '&', got the class {label!r}")
    root.mkdir(parents=True, exist_ok=True)
    _write_lines(root / "Annotations.txt", lines)
    _write_lines(root / "categories.txt", dataset.classes)
    for split in SPLITS:
        order = [number for number, item in enumerate(dataset.items) if item.split == split]
        _write_lines(root / f"{split}Set.txt", [lines[number] for number in order])
        with h5py.File(root / f"{split}_order.h5", "w") as file:
            file["order"] = np.array(order, dtype=np.int64)


@dataclass(frozen=True)
class _Row:
    """One line of Annotations.txt."""

    text: str
    label: str
    video_id: str
    quality: str
    start_s: int
    end_s: int


def _read_rows(path: Path) -> tuple[list[_Row], int]:
    """The rows, and the line (from 1) of the first of them."""
    lines = read_lines(path)
    # Some mirrors have the header line "Category&VideoID&Quality&StartTime&EndTime".
    first = 1 if lines and lines[0].lower().replace(" ", "").startswith("category&video") else 0
    rows = [_row(line, f"{path}:{number}") for number, line in enumerate(lines[first:], first + 1)]
    if not rows:
        raise AnnotationError(f"{path}: needs lines {_FIELDS}, got an empty file; fetch it again")
    return rows, first + 1


def _row(line: str, where: str) -> _Row:
    fields = line.split("&")
    if len(fields) != 5:
        raise AnnotationError(
            f"{where}: needs 5 fields {_FIELDS}, got {len(fields)} in {line[:80]!r}; fetch the file again"
        )
    label, video_id, quality, start, end = (field.strip() for field in fields)
    if not label or label == BACKGROUND:
        raise AnnotationError(f"{where}, field 'class': needs the name of a class, got {label!r}")
    check_video_id(video_id, f"{where}, field 'video id'")
    start_s, end_s = (_seconds(text, f"{where}, field {name!r}") for name, text in (("start", start), ("end", end)))
    if start_s > end_s:
        raise AnnotationError(f"{where}: needs start <= end, got {start_s} and {end_s}; correct the line")
    return _Row(line, label, video_id, quality, start_s, end_s)


def _seconds(text: str, where: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 4 or int(text) > NUM_SEGMENTS:
        raise AnnotationError(f"{where}: needs whole seconds from 0 to {NUM_SEGMENTS}, got {text[:40]!r}")
    return int(text)


def _classes(root: Path, rows: list[_Row]) -> tuple[str, ...]:
    appearance = tuple(dict.fromkeys(row.label for row in rows))
    path = find_file(root, ("categories.txt",))
    if path is None:
        return appearance
    classes = tuple(line.strip() for line in read_lines(path))
    if len(set(classes)) < len(classes) or "" in classes or BACKGROUND in classes:
        raise AnnotationError(f"{path}: needs one distinct class a line, without {BACKGROUND!r}")
    for row in rows:
        if row.label not in classes:
            raise AnnotationError(
                f"{root / 'Annotations.txt'}: unknown class {row.label!r} of video {row.video_id}; "
                f"{path.name} has {len(classes)} others; correct one of the two files"
            )
    if list(appearance) != sorted(appearance, key=classes.index):
        raise AnnotationError(
            f"{path}: AVE numbers classes by first appearance in Annotations.txt ({', '.join(appearance[:3])}, ...), "
            "and these lines stand in another order; sort them so, or move the file away"
        )
    return classes


def _splits(root: Path, rows: list[_Row], path: Path) -> tuple[dict[int, str], list[str]]:
    """Row number to split, and what is odd."""
    splits: dict[int, str] = {}
    by_text: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        by_text.setdefault(row.text, []).append(number)
    for split in SPLITS:
        order_path, list_path = root / f"{split}_order.h5", find_file(root, (f"{split}Set.txt",))
        if order_path.is_file():
            order = _read_order(order_path, len(rows))
            if list_path is not None:
                _cross_check(order_path, order, list_path, rows)
        else:
            names = (f"{split}_order.h5", f"{split}Set.txt")
            order = _read_list(need_file(root, names, f"AVE's {split} split"), by_text, splits)
        for number in order:
            if splits.setdefault(number, split) != split:
                raise AnnotationError(
                    f"{root}: row {number} of {path.name} ({rows[number].text}) is in both {splits[number]} and {split}"
                )
    left = [number for number in range(len(rows)) if number not in splits]
    if not left:
        return splits, []
    shown = f"first: row {left[0]}, {rows[left[0]].text}"
    return splits, [f"{len(left)} row(s) of {path.name} are in no split and left out ({shown})."]


def _read_order(path: Path, num_rows: int) -> list[int]:
    try:
        with h5py.File(path, "r") as file:
            order = file.get("order")
            if not isinstance(order, h5py.Dataset):
                raise AnnotationError(f"{path}: needs a data set 'order', got {', '.join(file) or 'an empty file'}")
            if order.ndim != 1 or not np.issubdtype(order.dtype, np.integer):
                raise AnnotationError(f"{path}: 'order' needs one axis of integers, got {order.shape} {order.dtype}")
            if order.size > num_rows:
                raise AnnotationError(
                    f"{path}: 'order' has {order.size} entries for {num_rows} rows of Annotations.txt"
                )
            values = [int(value) for value in order[()]]
    except OSError as error:
        raise AnnotationError(f"{path}: not a readable HDF5 file ({error}); fetch it again") from error
    wrong = next((i for i, value in enumerate(values) if not 0 <= value < num_rows), None)
    if wrong is not None:
        raise AnnotationError(
            f"{path}: order[{wrong}] needs a row of Annotations.txt from 0 to {num_rows - 1}, got {values[wrong]}; "
            "the two files are not of the same data set"
        )
    if len(set(values)) < len(values):
        twice = next(value for value, count in Counter(values).items() if count > 1)
        raise AnnotationError(f"{path}: 'order' names row {twice} twice; fetch it again")
    return values


def _cross_check(order_path: Path, order: list[int], list_path: Path, rows: list[_Row]) -> None:
    lines = read_lines(list_path)
    texts = [rows[number].text for number in order]
    # As multisets: the files say which rows, and the order within a split means nothing.
    extra, lacking = Counter(lines) - Counter(texts), Counter(texts) - Counter(lines)
    if extra or lacking:
        example = next(iter(extra or lacking))
        raise AnnotationError(
            f"{list_path}: does not agree with {order_path.name}: {extra.total()} line(s) only here, "
            f"{lacking.total()} only there, such as {example!r}; move the wrong one of the two files away"
        )


def _read_list(path: Path, by_text: dict[str, list[int]], taken: dict[int, str]) -> list[int]:
    order: list[int] = []
    here: set[int] = set()
    for number, line in enumerate(read_lines(path), 1):
        candidates = by_text.get(line)
        if candidates is None:
            raise AnnotationError(f"{path}:{number}: needs a line of Annotations.txt, got {line[:80]!r}")
        # Rows with the same text cannot be told apart: each takes the first that is free.
        row = next((row for row in candidates if row not in here and row not in taken), None)
        if row is None:
            split = taken.get(candidates[-1])
            where = f"already in {split}" if split else "twice in this file"
            raise AnnotationError(f"{path}:{number}: {line[:80]!r} is {where}; remove one of the two")
        here.add(row)
        order.append(row)
    return order


def _item(id_: str, row: _Row, split: str) -> Item:
    events: tuple[Event, ...] = ()
    if row.start_s < row.end_s:
        events = (Event(start_s=Fraction(row.start_s), end_s=Fraction(row.end_s), label=row.label),)
    return Item(id=id_, video_id=row.video_id, split=split, events=events, category=row.label)


def _odd(items: tuple[Item, ...], rows: list[_Row]) -> list[str]:
    odd = []
    splits_of: dict[str, list[str]] = {}
    for item in items:
        splits_of.setdefault(item.video_id, []).append(item.split)
    several = [splits for splits in splits_of.values() if len(splits) > 1]
    if several:
        count = sum(map(len, several))
        odd.append(f"{len(several)} video ids occur in {count} items; media are extracted once.")
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = sum(one in splits and other in splits for splits in several)
        if shared:
            odd.append(f"{shared} video id(s) are shared by {one} and {other}.")
    odd += [
        f"Item {item.id} (video {item.video_id}, {item.category}, {item.split}) has no event: background throughout."
        for item in items
        if not item.events
    ][:10]
    unusual = sum(row.quality != "good" for row in rows)
    if unusual:
        odd.append(f"{unusual} row(s) have a quality other than 'good'; they are kept.")
    return odd


def _line(dataset: Dataset, number: int, item: Item) -> str:
    where = f"{dataset.name}: item {item.id}"
    if item.id != f"{number:05d}":
        raise ValueError(f"{where}: AVE's ids are row numbers in five digits, needs {number:05d}")
    if item.category is None or item.seen is not None or len(item.events) > 1:
        raise ValueError(f"{where}: AVE needs a category, at most one event and no `seen`")
    check_video_id(item.video_id, where)
    if "&" in item.video_id or item.video_id != item.video_id.strip():
        raise ValueError(f"{where}: AVE's files separate fields by '&', got the video id {item.video_id!r}")
    start_s = end_s = Fraction(0)
    for event in item.events:
        start_s, end_s = event.start_s, event.end_s
        if event.label != item.category:
            raise ValueError(f"{where}: AVE's event has the item's category, got {event.label!r}")
        if start_s.denominator != 1 or end_s.denominator != 1 or end_s > NUM_SEGMENTS:
            raise ValueError(f"{where}: AVE needs whole seconds up to {NUM_SEGMENTS}, got {start_s} to {end_s}")
    return f"{item.category}&{item.video_id}&good&{start_s}&{end_s}"


def _write_lines(path: Path, lines: list[str] | tuple[str, ...]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
