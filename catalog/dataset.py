"""What a data set is, and the registry of the data sets that can be read.

A plug-in is one file of `catalog/datasets`, found by its name: `load(root, media=...)` reads the official annotation
files as they are published, quirks included, and `write(dataset, root)` writes them such that `load` gives the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType

from catalog.event import Event
from catalog.plugins import Plugins
from catalog.video import Video

SPLITS = ("train", "val", "test")
DATASETS = Plugins(package="catalog.datasets", noun="data set")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One row of a data set. Items point at videos: AVE has 4,143 items over 4,097 videos.

    Attributes:
        id: unique in the data set: the row ("00026") in AVE, the video's id elsewhere.
        video_id: whose medium it is.
        split: "train", "val" or "test".
        events: in file order; empty for a video of background only.
        category: the video's class, stated also where `events` is empty; None where a data set has no such thing.
        seen: OV-AVEBench's close (True) and open (False) classes; None elsewhere.
    """

    id: str
    video_id: str
    split: str
    events: tuple[Event, ...]
    category: str | None = None
    seen: bool | None = None

    def __post_init__(self) -> None:
        if not self.id or not self.video_id:
            raise ValueError(f"an item needs an id and a video_id, got {self}")
        if self.split not in SPLITS:
            raise ValueError(f"item {self.id}: split must be one of {', '.join(SPLITS)}, got {self.split!r}")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Annotations and where the media lie.

    Attributes:
        name: of the plug-in.
        classes: a class's index is its position; background is not among them.
        items: in file order.
        videos: distinct, in order of first appearance; `uri` is where the medium was found or is expected.
        num_segments: of an item where the data set fixes it (10 of one second), else None.
        background: what the data set calls a segment without event, or None.
        oddities: what is odd in the files, one sentence each. Not compared: it is a remark, not data.
        unseen: classes held out of training, where items of several classes cannot say it themselves (`Item.seen`).
    """

    name: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    videos: tuple[Video, ...]
    num_segments: int | None
    background: str | None
    oddities: tuple[str, ...] = field(default=(), compare=False)
    unseen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self._class_indexes) != len(self.classes) or self.background in self._class_indexes:
            raise ValueError(f"{self.name}: classes must be distinct and without the background, got {self.classes}")
        unexpected = sorted(set(self.unseen) - set(self.classes))
        if unexpected:
            raise ValueError(f"{self.name}: unseen classes are among the classes, got {unexpected[0]!r}")
        if len(self.by_id) != len(self.videos):
            raise ValueError(f"{self.name}: video ids must be distinct")
        seen: set[str] = set()
        for item in self.items:
            if item.id in seen:
                raise ValueError(f"{self.name}: item ids must be distinct, got {item.id!r} twice")
            seen.add(item.id)
            if item.video_id not in self.by_id:
                raise ValueError(f"{self.name}: item {item.id} needs its video {item.video_id!r} among the videos")
            for label in (item.category, *(event.label for event in item.events)):
                if label is not None and label not in self._class_indexes:
                    raise ValueError(f"{self.name}: item {item.id} has the unknown class {label!r}")

    def split(self, name: str) -> tuple[Item, ...]:
        """The items of "train", "val" or "test", in file order.

        Raises:
            ValueError: no such split.
        """
        if name not in SPLITS:
            raise ValueError(f"{self.name}: a split is one of {', '.join(SPLITS)}, got {name!r}")
        return tuple(item for item in self.items if item.split == name)

    def class_index(self, label: str) -> int:
        """The position of `label` among the classes.

        Raises:
            ValueError: not a class (background is none).
        """
        try:
            return self._class_indexes[label]
        except KeyError:
            raise ValueError(f"{self.name}: {label!r} is not among its {len(self.classes)} classes") from None

    @cached_property
    def by_id(self) -> Mapping[str, Video]:
        """Video id to video."""
        return {video.id: video for video in self.videos}

    @cached_property
    def _class_indexes(self) -> Mapping[str, int]:
        return {label: index for index, label in enumerate(self.classes)}


def names() -> tuple[str, ...]:
    """The data sets that can be read, sorted."""
    return DATASETS.names()


def plugin(name: str) -> ModuleType:
    """The module of a data set.

    Raises:
        ValueError: no such data set; the message lists those that exist.
    """
    return DATASETS.load(name)


def options_of(name: str) -> tuple[str, ...]:
    """The names of a data set's own options: the keywords of its `load` beyond `media`."""
    return tuple(p for p in inspect.signature(plugin(name).load).parameters if p not in ("root", "media"))


def load(
    name: str,
    root: str | Path,
    media: str | Path | None = None,
    options: Mapping[str, str] | None = None,
) -> Dataset:
    """Reads a data set's official files.

    Args:
        name: one of `names()`.
        root: the folder of the annotation files; for "folder" a folder, file, glob, list file or URL of media.
        media: folder or URL prefix of the videos; by default `root/videos`, or `root` where media lie in it.
        options: the plug-in's own, e.g. `{"train_list": "0.25"}` for "ovavebench".

    Raises:
        ValueError: no such data set or option.
        AnnotationError: a file is missing, wrong or damaged.
    """
    known = options_of(name)
    for option in options or {}:
        if option not in known:
            raise ValueError(f"data set {name} has no option {option!r}; it has {', '.join(known) or 'none'}")
    dataset = plugin(name).load(root, media=media, **(options or {}))
    assert isinstance(dataset, Dataset)
    return dataset
