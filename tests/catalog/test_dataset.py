"""The types of a data set, the registry by file name."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from catalog import dataset as registry
from catalog.dataset import Dataset, Item
from catalog.event import Event
from catalog.video import Video

DATASETS = Path(__file__).resolve().parents[2] / "catalog" / "datasets"


def item(**changes: Any) -> Item:
    fields: dict[str, Any] = {"id": "a", "video_id": "a", "split": "train", "events": ()}
    return Item(**(fields | changes))


def dataset(**changes: Any) -> Dataset:
    bark = Event(start_s=Fraction(0), end_s=Fraction(1), label="Bark")
    fields: dict[str, Any] = {
        "name": "ave",
        "classes": ("Bark", "Cat"),
        "items": (item(events=(bark,), category="Bark"), item(id="b", split="test")),
        "videos": (Video(id="a", uri="/a.mp4"),),
        "num_segments": 10,
        "background": "background",
    }
    return Dataset(**(fields | changes))


def test_names_are_the_files_of_the_folder() -> None:
    assert registry.names() == tuple(sorted(path.stem for path in DATASETS.glob("*.py") if path.stem != "__init__"))
    assert {"ave", "unav100", "ovavebench", "folder"} <= set(registry.names())


@pytest.mark.parametrize("name", ["", "AVE", "ave.py", "../ave", "__init__", "os"])
def test_load_of_an_unknown_data_set_lists_those_that_exist(name: str) -> None:
    with pytest.raises(ValueError, match=r"no data set .*; there are ave, folder, ovavebench"):
        registry.load(name, "anywhere")


def test_load_with_an_unknown_option_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ovavebench has no option 'ratio'; it has train_list"):
        registry.load("ovavebench", tmp_path, options={"ratio": "0.25"})
    with pytest.raises(ValueError, match="ave has no option 'train_list'; it has none"):
        registry.load("ave", tmp_path, options={"train_list": "0.25"})


def test_load_passes_root_and_media_on(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    assert [video.id for video in registry.load("folder", tmp_path).videos] == ["a.mp4"]
    with pytest.raises(ValueError, match="leave media out"):
        registry.load("folder", tmp_path, tmp_path)


def test_dataset_split_and_class_index() -> None:
    one = dataset()
    assert [item.id for item in one.split("train")] == ["a"]
    assert one.split("val") == ()
    assert (one.class_index("Bark"), one.class_index("Cat")) == (0, 1)
    with pytest.raises(ValueError, match="a split is one of train, val, test, got 'validation'"):
        one.split("validation")
    with pytest.raises(ValueError, match="'background' is not among its 2 classes"):
        one.class_index("background")


def test_dataset_oddities_are_remarks_and_not_compared() -> None:
    assert dataset(oddities=("odd",)) == dataset()
    assert dataset(classes=("Bark", "Dog")) != dataset()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"classes": ("Bark", "Bark")}, "classes must be distinct"),
        ({"classes": ("Bark", "background")}, "without the background"),
        ({"classes": ("Cat",)}, "item a has the unknown class 'Bark'"),
        ({"items": (item(), item())}, "item ids must be distinct, got 'a' twice"),
        ({"items": (item(video_id="z"),)}, "item a needs its video 'z'"),
        ({"videos": (Video(id="a", uri="/a"), Video(id="a", uri="/b"))}, "video ids must be distinct"),
    ],
)
def test_dataset_that_contradicts_itself_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        dataset(**changes)


@pytest.mark.parametrize("changes", [{"id": ""}, {"video_id": ""}, {"split": "validation"}])
def test_item_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="item"):
        item(**changes)
