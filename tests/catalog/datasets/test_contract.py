"""What every data set's plug-in promises; one run over all files of `catalog/datasets`."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from catalog import dataset as registry
from catalog.dataset import Dataset, Item
from catalog.event import Event
from catalog.video import Video


def _events(*spans: tuple[int, int], label: str = "Bark") -> tuple[Event, ...]:
    return tuple(Event(start_s=Fraction(start), end_s=Fraction(end), label=label) for start, end in spans)


def _videos(*ids: str, duration_s: Fraction | None = None) -> tuple[Video, ...]:
    return tuple(Video(id=id_, uri=f"/media/{id_}.mp4", duration_s=duration_s) for id_ in ids)


def _ave() -> Dataset:
    items = (
        Item(id="00000", video_id="-a", split="train", events=_events((0, 10)), category="Bark"),
        Item(id="00001", video_id="-a", split="test", events=(), category="Bark"),
        Item(id="00002", video_id="b", split="val", events=_events((2, 3), label="Cat, cats"), category="Cat, cats"),
    )
    return Dataset(
        name="ave",
        classes=("Bark", "Cat, cats"),
        items=items,
        videos=_videos("-a", "b"),
        num_segments=10,
        background="background",
    )


def _unav100() -> Dataset:
    items = (
        Item(id="-a", video_id="-a", split="train", events=_events((0, 10), (3, 5))),
        Item(id="b", video_id="b", split="val", events=()),
        Item(id="c", video_id="c", split="test", events=_events((2, 3), label="Cat, cats")),
    )
    return Dataset(
        name="unav100",
        classes=("Cat, cats", "Bark"),
        items=items,
        videos=_videos("-a", "b", "c", duration_s=Fraction("12.34")),
        num_segments=None,
        background=None,
    )


def _ovavebench() -> Dataset:
    items = (
        Item(id="-a", video_id="-a", split="train", events=_events((0, 1), (3, 5)), category="Bark", seen=True),
        Item(id="b", video_id="b", split="test", events=(), category="Cat, cats", seen=False),
    )
    return Dataset(
        name="ovavebench",
        classes=("Bark", "Cat, cats"),
        items=items,
        videos=_videos("-a", "b"),
        num_segments=10,
        background="other",
    )


def _folder() -> Dataset:
    videos = (Video(id="a", uri="/media/a.mp4"), Video(id="new\nline", uri="s3://bucket/b, c.mp4"))
    return Dataset(name="folder", classes=(), items=(), videos=videos, num_segments=None, background=None)


# A new data set adds its sample here, or its name to REFUSING.
SAMPLES: dict[str, Callable[[], Dataset]] = {
    "ave": _ave,
    "folder": _folder,
    "ovavebench": _ovavebench,
    "unav100": _unav100,
}
# Their files are made by other means: `avel synth` writes what "synthetic" reads.
REFUSING = ("synthetic",)
NAMES = registry.names()


def _load(name: str, root: Path, **options: str) -> Dataset:
    if name == "folder":
        return registry.load(name, root / "videos.csv")
    return registry.load(name, root, "/media", options)


@pytest.mark.parametrize("name", NAMES)
def test_plugin_has_load_and_write_as_agreed(name: str) -> None:
    module = registry.plugin(name)
    load, write = inspect.signature(module.load).parameters, inspect.signature(module.write).parameters
    assert list(load)[:2] == ["root", "media"]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is None for p in list(load.values())[1:])
    assert list(write) == ["dataset", "root"]
    assert module.__doc__
    assert module.load.__doc__
    assert module.write.__doc__


def test_every_plugin_has_a_sample_or_refuses_to_write(tmp_path: Path) -> None:
    assert {*SAMPLES, *REFUSING} == set(NAMES)
    for name in REFUSING:
        with pytest.raises(ValueError, match="writes"):
            registry.plugin(name).write(_ave(), tmp_path / name)


@pytest.mark.parametrize("name", SAMPLES)
def test_plugin_reads_back_what_it_wrote(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name]()
    registry.plugin(name).write(sample, tmp_path / "new" / "folder")
    assert _load(name, tmp_path / "new" / "folder") == sample


@pytest.mark.parametrize("name", SAMPLES)
def test_plugin_writes_the_same_bytes_twice(name: str, tmp_path: Path) -> None:
    contents = []
    for folder in ("one", "two"):
        registry.plugin(name).write(SAMPLES[name](), tmp_path / folder)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()})
    assert contents[0] == contents[1]
    assert contents[0]


@pytest.mark.parametrize("name", NAMES)
def test_plugin_without_its_files_says_where_it_looked(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(ValueError, match=str(root)):
            registry.load(name, root)


@pytest.mark.parametrize("name", SAMPLES)
def test_plugin_given_a_damaged_file_reads_it_or_says_value_error(name: str, tmp_path: Path) -> None:
    registry.plugin(name).write(SAMPLES[name](), tmp_path)
    chance = random.Random(0)
    # HDF5 is left out: its library is not made for damaged bytes, only for files cut off or replaced (test_ave).
    for path in sorted(path for path in tmp_path.iterdir() if path.suffix != ".h5"):
        whole = path.read_bytes()
        refused = 0
        # A reduced list is read where it is asked for.
        reduced = re.fullmatch(r"ovave_trainratio(.+)_meta\.csv", path.name)
        options = {"train_list": reduced[1]} if reduced else {}
        for _ in range(150):
            data = bytearray(whole)
            if chance.random() < 0.3:
                del data[chance.randrange(len(data)) :]
            for _ in range(chance.randrange(4)):
                data[chance.randrange(len(data) or 1) : chance.randrange(len(data) or 1)] = chance.randbytes(2)
            path.write_bytes(data)
            try:
                found = _load(name, tmp_path, **options)
            except ValueError:  # AnnotationError is one
                refused += 1
            else:
                assert isinstance(found, Dataset)
        assert refused or name == "folder"
        path.write_bytes(whole)
