"""`avel dataset inspect` and `avel dataset audit`, as a person runs them."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import fsspec
import pytest

from catalog.dataset import Dataset, Item
from catalog.datasets import ave, unav100
from catalog.event import Event
from catalog.video import Video
from jobs.cli import main as cli


def avel(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = cli.main([str(word) for word in words])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def avel_json(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, Any]:
    status, out, _ = avel(capsys, *words, "--json")
    return status, json.loads(out)


def event(start: str, end: str, label: str = "Bark") -> Event:
    return Event(start_s=Fraction(start), end_s=Fraction(end), label=label)


@pytest.fixture
def small_ave(tmp_path: Path) -> Path:
    rows = [("a", "train", (event("0", "4"),)), ("a", "test", ()), ("-b", "val", (event("9", "10"),))]
    items = tuple(
        Item(id=f"{number:05d}", video_id=video_id, split=split, events=events, category="Bark")
        for number, (video_id, split, events) in enumerate(rows)
    )
    dataset = Dataset(
        name="ave",
        classes=("Bark", "Cat"),
        items=items,
        videos=(Video(id="a", uri="/a"), Video(id="-b", uri="/b")),
        num_segments=10,
        background="background",
    )
    ave.write(dataset, tmp_path / "ave")
    return tmp_path / "ave"


def test_inspect_counts_splits_classes_and_seconds(small_ave: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = avel_json(capsys, "dataset", "inspect", "ave", "--root", small_ave)
    assert status == 0
    assert (found["items"], found["videos"], found["classes"]) == (3, 2, ["Bark", "Cat"])
    assert found["splits"]["train"] == {
        "items": 1,
        "videos": 1,
        "seen": None,
        "unseen": None,
        "events": 1,
        "without_event": 0,
        "event_s": 4.0,
        "background_s": 6.0,
    }
    assert found["splits"]["test"]["without_event"] == 1
    assert found["splits"]["test"]["background_s"] == 10.0
    assert found["per_class"]["Bark"] == {"train": 1, "val": 1, "test": 1, "items": 3, "events": 2}
    assert found["per_class"]["Cat"]["items"] == 0
    assert any("1 video id(s) are shared by train and test" in text for text in found["oddities"])


def test_inspect_for_a_person_shows_tables_and_oddities(small_ave: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = avel(capsys, "dataset", "inspect", "ave", "--root", small_ave)
    assert status == 0
    for text in ("3 items, 2 videos, 2 classes", "train", "Bark", "odd: Item 00001", "seen"):
        assert (text in out) == (text != "seen"), text


def test_inspect_counts_overlapping_seconds_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = (event("5", "7"), event("0.5", "6"), event("1", "2", "Cat"), event("8", "9"))
    dataset = Dataset(
        name="unav100",
        classes=("Bark", "Cat"),
        items=(Item(id="a", video_id="a", split="val", events=events),),
        videos=(Video(id="a", uri="/a", duration_s=Fraction("10.25")),),
        num_segments=None,
        background=None,
    )
    unav100.write(dataset, tmp_path)
    _, found = avel_json(capsys, "dataset", "inspect", "unav100", "--root", tmp_path)
    counts = found["splits"]["val"]
    assert (counts["events"], counts["event_s"], counts["background_s"]) == (4, 7.5, 2.75)
    assert found["per_class"]["Bark"] == {"train": 0, "val": 1, "test": 0, "items": 1, "events": 3}


def test_inspect_of_the_published_sets_gives_the_measured_shares(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = shared / "data" / "annotations"
    _, found = avel_json(capsys, "dataset", "inspect", "ave", "--root", annotations / "ave")
    shares = {
        split: round(100 * counts["background_s"] / (counts["event_s"] + counts["background_s"]), 1)
        for split, counts in found["splits"].items()
    }
    assert shares == {"train": 16.9, "val": 18.2, "test": 17.8}
    _, found = avel_json(capsys, "dataset", "inspect", "unav100", "--root", annotations / "unav100")
    covered = sum(counts["event_s"] for counts in found["splits"].values())
    assert round(100 * covered / (covered + sum(c["background_s"] for c in found["splits"].values()))) == 79


def test_inspect_with_a_reduced_training_list(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = shared / "data" / "annotations" / "ovavel"
    words = ("dataset", "inspect", "ovavebench", "--root", root, "--option", "train_list=0.25")
    status, found = avel_json(capsys, *words)
    assert status == 0
    assert [found["splits"][split]["items"] for split in ("train", "val", "test")] == [3308, 5798, 5820]
    assert (found["splits"]["val"]["seen"], found["splits"]["val"]["unseen"]) == (1651, 4147)


@pytest.mark.parametrize("verb", ["inspect", "audit"])
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("nonsense", "--root", "."), "no data set 'nonsense'; there are ave"),
        (("ave", "--root", ".", "--option", "train_list=0.25"), "KEY of data set ave (none)"),
        (("ovavebench", "--root", ".", "--option", "train_list"), "(train_list)"),
        (("ave",), "--root"),
    ],
)
def test_bad_arguments_give_status_2(
    verb: str, words: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = avel(capsys, "dataset", verb, *words)
    assert status == 2
    assert text in err
    assert out == ""


def test_damaged_annotations_give_status_1_and_one_line(small_ave: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small_ave / "Annotations.txt").write_text("Bark&a&good&0\n", encoding="utf-8")
    status, out, err = avel(capsys, "dataset", "inspect", "ave", "--root", small_ave)
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert "Annotations.txt:1: needs 5 fields" in err


def test_audit_names_each_problem_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.mp4").write_bytes(b"12345")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "dangling.mp4").symlink_to("none")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "directory.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    status, found = avel_json(capsys, "dataset", "audit", "folder", "--root", tmp_path)
    assert status == 1
    assert (found["videos"], found["usable"], found["bytes"], found["duplicates"]) == (6, 1, 5, None)
    assert {problem["id"]: problem["reason"] for problem in found["problems"]} == {
        "dangling.mp4": "unreadable_path",
        "directory.mp4": "not_a_file",
        "empty.mp4": "empty_file",
        "loop.mp4": "unreadable_path",
        "pipe.mp4": "not_a_file",
    }


def test_audit_of_missing_media_says_where_they_are_expected(
    small_ave: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (small_ave / "videos").mkdir()
    (small_ave / "videos" / "a.webm").write_bytes(b"1")
    status, out, _ = avel(capsys, "dataset", "audit", "ave", "--root", small_ave)
    assert status == 1
    assert "1 of 2 media are usable" in out
    assert "missing_file" in out
    assert str(small_ave / "videos" / "-b.mp4") in out
    (small_ave / "videos" / "-b.MP4").write_bytes(b"2")
    assert avel(capsys, "dataset", "audit", "ave", "--root", small_ave)[0] == 0


def test_audit_finds_files_of_equal_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data in (("a.mp4", b"same"), ("b.mp4", b"same"), ("c.mp4", b"size"), ("d.mp4", b"other"), ("e.mp4", b"")):
        (tmp_path / name).write_bytes(data)
    _, found = avel_json(capsys, "dataset", "audit", "folder", "--root", tmp_path, "--duplicates")
    assert found["duplicates"] == [["a.mp4", "b.mp4"]]


def test_audit_of_remote_media_takes_one_listing(small_ave: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/audit/a.mp4", b"123")
    try:
        words = ("dataset", "audit", "ave", "--root", small_ave, "--media", "memory://audit")
        status, found = avel_json(capsys, *words)
    finally:
        filesystem.rm("/audit", recursive=True)
    assert (status, found["usable"], found["bytes"]) == (1, 1, 3)
    assert found["problems"] == [{"id": "-b", "uri": "memory://audit/-b.mp4", "reason": "missing_file"}]


def test_file_names_cannot_repaint_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "\x1b[2Jevil\n.mp4").touch()
    _, out, _ = avel(capsys, "dataset", "audit", "folder", "--root", tmp_path)
    assert "\x1b" not in out
    assert "evil" in out
