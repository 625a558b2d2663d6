"""AVE's files: the published ones counted, and every way they can be wrong."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from catalog.dataset import Dataset, Item
from catalog.datasets import ave
from catalog.errors import AnnotationError
from catalog.event import Event
from catalog.video import Video

LINES = (
    "Church bell&RUhOCu3LNXM&good&0&10",
    "Church bell&-H3m4AwEcRY&good&6&8",
    "Church bell&VWi2ENBuTbw&good&0&0",
    "Male speech, man speaking&RUhOCu3LNXM&good&1&3",
    "Frying (food)&2An2JMGMbbs&good&0&9",
)
ORDERS = {"train": [2, 0], "val": [1], "test": [4, 3]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, LINES)
    return tmp_path


def write(root: Path, lines: tuple[str, ...], orders: dict[str, list[int]] = ORDERS) -> None:
    (root / "Annotations.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for split, order in orders.items():
        (root / f"{split}Set.txt").write_text("".join(f"{lines[i]}\n" for i in order), encoding="utf-8")
        write_order(root, split, order)


def write_order(root: Path, split: str, order: list[int], dtype: str = "int64") -> None:
    with h5py.File(root / f"{split}_order.h5", "w") as file:
        file["order"] = np.array(order, dtype=dtype)


def drop(root: Path, pattern: str) -> None:
    for path in root.glob(pattern):
        path.unlink()


# The published files


@pytest.fixture(scope="module")
def official(shared: Path) -> Dataset:
    return ave.load(shared / "data" / "annotations" / "ave")


def test_official_counts_are_those_measured(official: Dataset) -> None:
    assert (len(official.items), len(official.videos), len(official.classes)) == (4143, 4097, 28)
    assert [len(official.split(split)) for split in ("train", "val", "test")] == [3339, 402, 402]
    lengths = Counter(int(sum(e.end_s - e.start_s for e in item.events)) for item in official.items)
    assert lengths == {0: 1, 2: 214, 3: 220, 4: 217, 5: 196, 6: 200, 7: 139, 8: 111, 9: 95, 10: 2750}
    classes = Counter(item.category for item in official.items)
    assert (min(classes.values()), classes["Cat"]) == (60, 60)
    assert (max(classes.values()), classes["Church bell"], classes["Race car, auto racing"]) == (188, 188, 188)
    assert official.classes[:4] == ("Church bell", "Male speech, man speaking", "Bark", "Fixed-wing aircraft, airplane")
    assert (official.classes[19], official.classes[27]) == ("Baby cry, infant cry", "Mandolin")
    assert (official.num_segments, official.background) == (10, "background")


def test_official_class_order_is_that_of_its_categories_file(official: Dataset, shared: Path) -> None:
    text = (shared / "data" / "annotations" / "ave" / "categories.txt").read_text(encoding="ascii")
    assert list(official.classes) == text.splitlines()


def test_official_events_equal_the_published_label_arrays(official: Dataset, shared: Path) -> None:
    with h5py.File(shared / "data" / "annotations" / "ave" / "labels_closs.h5") as file:
        mask = file["avadataset"][()]
    with h5py.File(shared / "data" / "annotations" / "ave" / "mil_labels.h5") as file:
        classes = file["avadataset"][()].argmax(axis=1)
    for item in official.items:
        row = int(item.id)
        ours = [any(e.start_s <= t < e.end_s for e in item.events) for t in range(10)]
        assert ours == mask[row].astype(bool).tolist()
        assert official.class_index(item.category or "") == classes[row]


def test_official_oddities_name_shared_videos_and_the_empty_event(official: Dataset) -> None:
    text = "\n".join(official.oddities)
    assert "45 video ids occur in 91 items" in text
    assert "10 video id(s) are shared by train and val" in text
    assert "8 video id(s) are shared by train and test" in text
    assert "val and test" not in text
    assert "Item 00026 (video VWi2ENBuTbw, Church bell, train) has no event" in text
    assert official.items[26].events == ()


def test_official_splits_are_the_same_from_order_files_and_from_lists(
    official: Dataset, shared: Path, tmp_path: Path
) -> None:
    source = shared / "data" / "annotations" / "ave"
    for names in (("*_order.h5",), ("*Set.txt",)):
        root = tmp_path / names[0].strip("*_")
        root.mkdir()
        for path in (source / "Annotations.txt", *source.glob(names[0])):
            shutil.copyfile(path, root / path.name)
        assert ave.load(root, media=source / "videos") == official


def test_official_with_the_matching_tasks_orders_is_refused(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "annotations" / "ave"
    for name in ("Annotations.txt", "trainSet.txt", "valSet.txt", "testSet.txt"):
        shutil.copyfile(source / name, tmp_path / name)
    for split in ("train", "val", "test"):
        shutil.copyfile(source / f"{split}_order_match.h5", tmp_path / f"{split}_order.h5")
    with pytest.raises(AnnotationError, match="does not agree with"):
        ave.load(tmp_path)


# Small ones


def test_small_set_is_read_row_by_row(root: Path) -> None:
    found = ave.load(root, media=root)
    assert found.classes == ("Church bell", "Male speech, man speaking", "Frying (food)")
    assert [(item.id, item.video_id, item.split) for item in found.items] == [
        ("00000", "RUhOCu3LNXM", "train"),
        ("00001", "-H3m4AwEcRY", "val"),
        ("00002", "VWi2ENBuTbw", "train"),
        ("00003", "RUhOCu3LNXM", "test"),
        ("00004", "2An2JMGMbbs", "test"),
    ]
    assert found.items[1].events == (Event(start_s=Fraction(6), end_s=Fraction(8), label="Church bell"),)
    assert (found.items[2].events, found.items[2].category) == ((), "Church bell")
    assert [video.id for video in found.videos] == ["RUhOCu3LNXM", "-H3m4AwEcRY", "VWi2ENBuTbw", "2An2JMGMbbs"]
    assert found.videos[1].uri == str(root / "-H3m4AwEcRY.mp4")


def test_media_are_looked_for_in_the_archives_own_folder(root: Path) -> None:
    (root / "AVE").mkdir()
    (root / "AVE" / "-H3m4AwEcRY.mp4").touch()
    found = ave.load(root)
    assert found.videos[1].uri == str(root / "AVE" / "-H3m4AwEcRY.mp4")
    assert f"3 of 4 videos are not in {root / 'AVE'}." in found.oddities


def test_bom_crlf_missing_last_line_end_and_header_change_nothing(root: Path) -> None:
    plain = ave.load(root)
    text = "\ufeffCategory&VideoID&Quality&StartTime&EndTime\r\n" + "\r\n".join(LINES)
    (root / "Annotations.txt").write_text(text, encoding="utf-8", newline="")
    for path in root.glob("*Set.txt"):
        text = "\ufeff" + path.read_text(encoding="utf-8").strip().replace("\n", "\r\n")
        path.write_text(text, encoding="utf-8", newline="")
    found = ave.load(root)
    assert found == plain
    assert any("header line" in text for text in found.oddities)
    drop(root, "*_order.h5")
    assert ave.load(root) == plain


def test_gzipped_annotations_are_read(root: Path) -> None:
    import gzip

    plain = ave.load(root)
    (root / "Annotations.txt.gz").write_bytes(gzip.compress((root / "Annotations.txt").read_bytes()))
    drop(root, "Annotations.txt")
    assert ave.load(root) == plain


def test_rows_in_no_split_are_left_out_and_said(root: Path) -> None:
    drop(root, "*_order.h5")
    (root / "trainSet.txt").write_text(LINES[0] + "\n", encoding="utf-8")
    found = ave.load(root)
    assert [item.id for item in found.items] == ["00000", "00001", "00003", "00004"]
    assert any("1 row(s) of Annotations.txt are in no split and left out" in text for text in found.oddities)


def test_equal_rows_in_two_lists_are_told_apart_by_order(tmp_path: Path) -> None:
    lines = ("Bark&a&good&0&10", "Bark&a&good&0&10", "Bark&b&good&0&10")
    write(tmp_path, lines, {"train": [0], "val": [1], "test": [2]})
    drop(tmp_path, "*_order.h5")
    assert [item.split for item in ave.load(tmp_path).items] == ["train", "val", "test"]


def test_categories_file_may_hold_classes_that_do_not_occur(root: Path) -> None:
    classes = ("Zither", "Church bell", "Male speech, man speaking", "Bark", "Frying (food)")
    (root / "categories.txt").write_text("\r\n".join(classes), encoding="utf-8", newline="")
    assert ave.load(root).classes == classes


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("Church bell&b&good&0", r"needs 5 fields .* got 4"),
        ("Church bell&b&good&0&10&x", r"needs 5 fields .* got 6"),
        ("", r"needs 5 fields .* got 1"),
        ("Church bell&b&good&0&9.5", r"field 'end': needs whole seconds from 0 to 10, got '9\.5'"),
        ("Church bell&b&good&x&10", r"field 'start': needs whole seconds"),
        ("Church bell&b&good&-1&10", r"field 'start': needs whole seconds"),
        ("Church bell&b&good&0&11", r"field 'end': needs whole seconds from 0 to 10, got '11'"),
        ("Church bell&b&good&0&²", r"field 'end': needs whole seconds"),
        ("Church bell&b&good&0&" + "9" * 5000, r"field 'end': needs whole seconds"),
        ("Church bell&b&good&8&6", r"needs start <= end, got 8 and 6"),
        ("&b&good&0&10", r"field 'class': needs the name of a class"),
        ("background&b&good&0&10", r"field 'class': needs the name of a class"),
        ("Church bell&&good&0&10", r"field 'video id': needs a video id"),
        ("Church bell&../../etc/passwd&good&0&10", r"field 'video id': needs a video id .*no '/'"),
        ("Church bell&..&good&0&10", r"field 'video id'"),
        ("Church bell&a/b&good&0&10", r"field 'video id'"),
        ("Church bell&a\\b&good&0&10", r"field 'video id'"),
        ("Church bell&a\tb&good&0&10", r"field 'video id'"),
    ],
)
def test_damaged_line_is_an_error_with_file_line_and_field(root: Path, line: str, match: str) -> None:
    lines = (*LINES[:3], line, LINES[4])
    (root / "Annotations.txt").write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")
    with pytest.raises(AnnotationError, match=rf"Annotations\.txt:4[:,].*{match}"):
        ave.load(root)


def _order(split: str, values: list[int], dtype: str = "int64") -> Callable[[Path], None]:
    return lambda root: write_order(root, split, values, dtype)


def _bytes(name: str, data: bytes) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        (root / name).write_bytes(data)

    return damage


def _h5_name(root: Path) -> None:
    with h5py.File(root / "val_order.h5", "w") as file:
        file["rows"] = np.array([1])


def _truncate(root: Path) -> None:
    path = root / "val_order.h5"
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda root: drop(root, "Annotations.txt"), r"annotations missing; needs Annotations\.txt there, got test"),
        (lambda root: drop(root, "val*"), r"val split missing; needs val_order\.h5 or valSet\.txt"),
        (lambda root: drop(root, "*"), "got an empty folder"),
        (_bytes("Annotations.txt", b""), r"Annotations\.txt: needs lines .* empty file"),
        (_bytes("Annotations.txt", b"Church bell&a&good&0&10\nCaf\xe9&b&good&0&1\n"), r"txt:2: needs UTF-8 .* 0xe9"),
        (_bytes("Annotations.txt", b"Church bell&a&good\0&0&10\n"), r"txt:1: needs text, got a NUL byte"),
        (_bytes("val_order.h5", b"not hdf5 at all"), r"val_order\.h5: not a readable HDF5 file .* fetch it again"),
        (_bytes("val_order.h5", b""), r"val_order\.h5: not a readable HDF5"),
        (_truncate, r"val_order\.h5: not a readable HDF5"),
        (_h5_name, r"val_order\.h5: needs a data set 'order', got rows"),
        (_order("val", [5]), r"val_order\.h5: order\[0\] needs a row .* from 0 to 4, got 5"),
        (_order("val", [-1]), r"order\[0\] needs a row .* got -1"),
        (_order("val", [1, 1]), r"'order' names row 1 twice"),
        (_order("val", [1] * 9), r"'order' has 9 entries for 5 rows"),
        (_order("val", [1], "float64"), r"'order' needs one axis of integers, got \(1,\) float64"),
        (_order("val", [3]), r"valSet\.txt: does not agree with val_order\.h5: 1 line\(s\) only here, 1 only there"),
        (_bytes("valSet.txt", b"Church bell&x&good&0&10\n"), r"valSet\.txt: does not agree"),
        (_bytes("categories.txt", b"Church bell\nBark\n"), r"unknown class 'Male speech, man speaking' of video RUh"),
        (
            _bytes("categories.txt", b"Frying (food)\nChurch bell\nMale speech, man speaking\n"),
            r"categories\.txt: AVE numbers classes by first appearance",
        ),
        (_bytes("categories.txt", b"Church bell\nChurch bell\n"), r"categories\.txt: needs one distinct class a line"),
    ],
)
def test_damaged_file_is_an_error_that_says_what_to_do(root: Path, damage: Callable[[Path], None], match: str) -> None:
    damage(root)
    with pytest.raises(AnnotationError, match=match):
        ave.load(root)


def test_row_in_two_splits_is_an_error(root: Path) -> None:
    drop(root, "*Set.txt")
    write_order(root, "test", [3, 4, 0])
    with pytest.raises(AnnotationError, match=r"row 0 of Annotations\.txt .* is in both train and test"):
        ave.load(root)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (f"{LINES[1]}\nBark&x&good&0&10\n", r"valSet\.txt:2: needs a line of Annotations\.txt, got 'Bark"),
        (f"{LINES[1]}\n{LINES[1]}\n", r"valSet\.txt:2: .* is twice in this file"),
        (f"{LINES[1]}\n{LINES[0]}\n", r"valSet\.txt:2: .* is already in train"),
    ],
)
def test_damaged_list_is_an_error_with_its_line(root: Path, text: str, match: str) -> None:
    drop(root, "*_order.h5")
    (root / "valSet.txt").write_text(text, encoding="utf-8")
    with pytest.raises(AnnotationError, match=match):
        ave.load(root)


# Written and read again

ids = st.from_regex(r"[A-Za-z0-9_-]{1,11}", fullmatch=True)
labels = st.lists(
    st.text("abcABC ,()é-", min_size=1).map(str.strip).filter(lambda t: t not in ("", "background")),
    min_size=1, max_size=4, unique=True,
)  # fmt: skip


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    classes = draw(labels)
    rows = sorted(draw(st.lists(st.tuples(st.integers(0, len(classes) - 1), ids), min_size=1, max_size=12)))
    items = []
    for number, (label, video_id) in enumerate(rows):
        start_s = draw(st.integers(0, 10))
        end_s = draw(st.integers(start_s, 10))
        event = () if start_s == end_s else (
            Event(start_s=Fraction(start_s), end_s=Fraction(end_s), label=classes[label]),
        )  # fmt: skip
        split = draw(st.sampled_from(["train", "val", "test"]))
        items.append(Item(id=f"{number:05d}", video_id=video_id, split=split, events=event, category=classes[label]))
    videos = tuple(Video(id=id_, uri=f"/media/{id_}.mp4") for id_ in dict.fromkeys(item.video_id for item in items))
    return Dataset(
        name="ave",
        classes=tuple(classes),
        items=tuple(items),
        videos=videos,
        num_segments=10,
        background="background",
    )


@given(datasets())
@hypothesis_settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_written_set_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> None:
    root = tmp_path_factory.mktemp("ave")
    ave.write(dataset, root)
    assert ave.load(root, media="/media") == dataset
    drop(root, "*_order.h5")
    again = ave.load(root, media="/media")
    assert Counter(item.split for item in again.items) == Counter(item.split for item in dataset.items)


def test_official_written_gives_the_published_bytes(official: Dataset, shared: Path, tmp_path: Path) -> None:
    ave.write(official, tmp_path)
    source = shared / "data" / "annotations" / "ave"
    for name in ("Annotations.txt", "categories.txt"):
        assert (tmp_path / name).read_bytes() == (source / name).read_bytes()
    for split in ("train", "val", "test"):
        with h5py.File(tmp_path / f"{split}_order.h5") as ours, h5py.File(source / f"{split}_order.h5") as theirs:
            np.testing.assert_array_equal(ours["order"][()], np.sort(theirs["order"][()]))
            assert ours["order"].dtype == theirs["order"].dtype


def make(
    *rows: tuple[str, tuple[Event, ...], dict[str, object]], classes: tuple[str, ...] = ("Bark", "Cat")
) -> Dataset:
    items = []
    for number, (label, events, changes) in enumerate(rows):
        fields = {"id": f"{number:05d}", "video_id": "a", "split": "train", "events": events, "category": label}
        items.append(Item(**(fields | changes)))  # type: ignore[arg-type] # fields by name
    videos = tuple(Video(id=id_, uri=f"/{number}") for number, id_ in enumerate({item.video_id for item in items}))
    return Dataset(
        name="x", classes=classes, items=tuple(items), videos=videos, num_segments=10, background="background"
    )


def event(start_s: str, end_s: str, label: str = "Bark") -> Event:
    return Event(start_s=Fraction(start_s), end_s=Fraction(end_s), label=label)


@pytest.mark.parametrize(
    ("dataset", "match"),
    [
        (make(("Cat", (), {}), ("Bark", (), {})), "by first appearance"),
        (make(("Bark", (), {"id": "7"})), "needs 00000"),
        (make(("Bark", (event("0", "1"), event("2", "3")), {})), "at most one event"),
        (make(("Bark", (event("0", "1.5"),), {})), "whole seconds"),
        (make(("Bark", (event("0", "11"),), {})), "whole seconds up to 10"),
        (make(("Bark", (event("0", "1", "Cat"),), {})), "has the item's category"),
        (make(("Bark", (), {"category": None})), "needs a category"),
        (make(("Bark", (), {"seen": True})), "no `seen`"),
        (make(("Bark", (), {"video_id": "a&b"})), "separate fields by '&'"),
        (make(("Bark", (), {"video_id": "../a"})), "video id fit"),
        (make(("R&B", (), {}), classes=("R&B",)), "separate fields by '&'"),
    ],
)
def test_write_of_what_the_format_cannot_hold_is_refused(tmp_path: Path, dataset: Dataset, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ave.write(dataset, tmp_path / "new")
    assert not (tmp_path / "new").exists()
