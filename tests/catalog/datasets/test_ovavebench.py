"""OV-AVEBench's files: the published ones counted, and every way they can be wrong."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from catalog.dataset import Dataset, Item
from catalog.datasets import ovavebench
from catalog.errors import AnnotationError
from catalog.event import Event
from catalog.video import Video

META = "ovave_dataset_meta.csv"
RELEASED = "released_ovavel_dataset_anno.json"
OLDER = "ovavel_dataset_anno.json"
CATEGORIES = "ovave_total_close_open_categories.csv"
SEEN = "ovave_train_close_categories.csv"
HEADER = "split,cls_name,cls_type,vid_name\n"
ROWS = "train,cat purring,close,-xQKLhAP0s\ntest,dog barking,open,b26vt3MvE8\nval,cat purring,close,c00000"
LABELS = {
    "-xQKLhAP0s": {"category": "cat purring", "label": "[0, 1, 1, 0, 1, 0, 0, 0, 0, 1]"},
    "b26vt3MvE8": {"category": "dog barking", "label": "[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"},
    "c00000": {"category": "cat purring", "label": "[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]"},
}
UNSEEN = """baby laughter, basketball bounce, bird chirping, chainsawing trees, chicken crowing, church bell ringing,
dog barking, driving buses, electric shaver, female singing, goose honking, helicopter, lions roaring, people clapping,
playing bassoon, playing drum kit, playing electric guitar, playing piano, playing saxophone, train horning,
vacuum cleaner cleaning floors"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / META).write_text(HEADER + ROWS, encoding="utf-8")
    (tmp_path / RELEASED).write_text(json.dumps(LABELS, indent=4), encoding="utf-8")
    (tmp_path / CATEGORIES).write_text("cat purring\r\ndog barking\r\nother", encoding="utf-8", newline="")
    (tmp_path / SEEN).write_text("cat purring\r\nother", encoding="utf-8", newline="")
    return tmp_path


# The published files


@pytest.fixture(scope="module")
def published(shared: Path) -> Path:
    return shared / "data" / "annotations" / "ovavel"


@pytest.fixture(scope="module")
def official(published: Path) -> Dataset:
    return ovavebench.load(published)


def _counts(items: tuple[Item, ...]) -> list[int]:
    """seen, unseen, background-only seen and unseen, full ten seconds seen and unseen."""
    full = [item for item in items if sum(event.end_s - event.start_s for event in item.events) == 10]
    empty = [item for item in items if not item.events]
    return [sum(item.seen is seen for item in group) for group in (items, empty, full) for seen in (True, False)]


def test_official_counts_are_those_measured(official: Dataset) -> None:
    assert (len(official.items), len(official.videos), len(official.classes)) == (24_800, 24_800, 67)
    assert _counts(official.split("train")) == [13182, 0, 3211, 0, 5880, 0]
    assert _counts(official.split("val")) == [1651, 4147, 428, 974, 701, 1728]
    assert _counts(official.split("test")) == [1664, 4156, 418, 988, 723, 1750]
    assert {item.category for item in official.items if item.seen is False} == set(
        UNSEEN.replace("\n", " ").split(", ")
    )
    assert len({item.category for item in official.items if item.seen}) == 46
    per_class = Counter(item.category for item in official.items)
    assert (min(per_class.values()), max(per_class.values())) == (194, 501)
    assert (official.num_segments, official.background) == (10, "other")


def test_official_runs_are_those_measured(official: Dataset) -> None:
    lengths = Counter(int(event.end_s - event.start_s) for item in official.items for event in item.events)
    assert [lengths[n] for n in range(1, 11)] == [2615, 2312, 1623, 1246, 1053, 865, 752, 692, 804, 10782]
    assert max(len(item.events) for item in official.items) == 5
    seconds = Counter(int(sum(e.end_s - e.start_s for e in item.events)) for item in official.items)
    assert [seconds[n] for n in range(11)] == [6019, 352, 749, 809, 822, 912, 921, 929, 1116, 1389, 10782]


def test_official_oddities_count_the_other_labels(official: Dataset) -> None:
    text = "\n".join(official.oddities)
    assert "6019 item(s) have no event" in text
    assert f"12 item(s) have other labels in {OLDER}.gz (5 train, 5 val, 2 test); {RELEASED} is used" in text


@pytest.mark.parametrize(("share", "count"), [("0.25", 3308), ("0.5", 6598), ("0.75", 9900)])
def test_official_reduced_lists_cut_training_only(official: Dataset, published: Path, share: str, count: int) -> None:
    reduced = ovavebench.load(published, train_list=share)
    assert len(reduced.split("train")) == count
    assert set(reduced.split("train")) <= set(official.split("train"))
    for split in ("val", "test"):
        assert set(reduced.split(split)) == set(official.split(split))
    assert reduced.classes == official.classes


def test_official_older_labels_are_read_where_the_released_are_missing(
    official: Dataset, published: Path, tmp_path: Path
) -> None:
    for name in (META, CATEGORIES, f"{OLDER}.gz"):
        shutil.copyfile(published / name, tmp_path / name)
    older = ovavebench.load(tmp_path, media=published / "videos")
    assert sum(a != b for a, b in zip(older.items, official.items, strict=True)) == 12
    assert any(f"{RELEASED} is missing" in text for text in older.oddities)


def test_official_written_reads_back_equal(official: Dataset, published: Path, tmp_path: Path) -> None:
    ovavebench.write(official, tmp_path)
    assert ovavebench.load(tmp_path, media=published / "videos") == official
    for name in (META, CATEGORIES, SEEN):
        assert (tmp_path / name).read_text(encoding="utf-8").split() == (
            (published / name).read_text(encoding="utf-8").split()
        )


# Small ones


def test_small_set_has_a_run_an_event(root: Path) -> None:
    found = ovavebench.load(root, media=root)
    spans = [[(int(e.start_s), int(e.end_s), e.label) for e in item.events] for item in found.items]
    assert spans == [
        [(1, 3, "cat purring"), (4, 5, "cat purring"), (9, 10, "cat purring")],
        [(0, 10, "dog barking")],
        [],
    ]
    assert [(item.split, item.seen, item.category) for item in found.items] == [
        ("train", True, "cat purring"),
        ("test", False, "dog barking"),
        ("val", True, "cat purring"),
    ]
    assert found.classes == ("cat purring", "dog barking")


def test_media_in_vggsound_style_are_found(root: Path) -> None:
    (root / "videos").mkdir()
    for name in ("-xQKLhAP0s_000034.mp4", "b26vt3MvE8_34000_44000.mp4", "c00000.webm"):
        (root / "videos" / name).touch()
    found = ovavebench.load(root)
    assert [Path(video.uri).name for video in found.videos] == sorted(p.name for p in (root / "videos").iterdir())


@given(st.lists(st.integers(0, 1), min_size=10, max_size=10))
def test_events_are_the_runs_of_any_labels(tmp_path_factory: pytest.TempPathFactory, cells: list[int]) -> None:
    root = tmp_path_factory.mktemp("ov")
    (root / META).write_text(HEADER + "train,cat purring,close,a", encoding="utf-8")
    labels = {"a": {"category": "cat purring", "label": json.dumps(cells)}}
    (root / RELEASED).write_text(json.dumps(labels), encoding="utf-8")
    (root / CATEGORIES).write_text("cat purring\nother", encoding="utf-8")
    wanted, start = [], 0
    for value, group in groupby(cells):
        stop = start + len(list(group))
        if value:
            wanted.append((start, stop))
        start = stop
    (item,) = ovavebench.load(root).items
    assert [(int(event.start_s), int(event.end_s)) for event in item.events] == wanted
    assert all(event.start_s.denominator == event.end_s.denominator == 1 for event in item.events)


def test_bom_crlf_gzip_and_last_line_ends_change_nothing(root: Path) -> None:
    plain = ovavebench.load(root)
    for name in (META, CATEGORIES, SEEN):
        text = (root / name).read_text(encoding="utf-8").replace("\r\n", "\n").replace("\n", "\r\n")
        (root / name).write_text("\ufeff" + text + "\r\n", encoding="utf-8", newline="")
    assert ovavebench.load(root) == plain
    for name in (META, CATEGORIES, RELEASED):
        (root / f"{name}.gz").write_bytes(gzip.compress((root / name).read_bytes()))
        (root / name).unlink()
    assert ovavebench.load(root) == plain


def test_annotated_videos_in_no_list_are_counted(root: Path) -> None:
    path = root / "ovave_trainratio0.25_meta.csv"
    path.write_text(HEADER + ROWS.split("\n", 1)[1], encoding="utf-8")
    found = ovavebench.load(root, train_list="0.25")
    assert [item.split for item in found.items] == ["test", "val"]
    assert "1 annotated video(s) are in no split of the list and left out." in found.oddities
    with pytest.raises(AnnotationError, match=r"needs ovave_trainratio0\.3_meta\.csv there"):
        ovavebench.load(root, train_list="0.3")


def _row(line: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        (root / META).write_text(HEADER + ROWS + "\n" + line, encoding="utf-8")

    return damage


def _label(value: object, field: str = "label") -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        entry = LABELS["c00000"] | {field: value}
        (root / RELEASED).write_text(json.dumps(LABELS | {"c00000": entry}), encoding="utf-8")

    return damage


def _bytes(name: str, data: bytes) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        (root / name).write_bytes(data)

    return damage


def _remove(name: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        (root / name).unlink()

    return damage


LABEL_MATCH = r"released_.*json, video 'c00000', field 'label': needs ten zeros and ones"


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (_row("train,cat purring,close"), r"meta\.csv:5: needs 4 fields .* got 3"),
        (_row("training,cat purring,close,d"), r"meta\.csv:5, field 'split': needs one of train.* got 'training'"),
        (_row("train,cat,close,d"), r"meta\.csv:5, field 'cls_name': unknown class 'cat'"),
        (_row("train,other,close,d"), r"field 'cls_name': unknown class 'other'"),
        (_row("train,cat purring,seen,d"), r"field 'cls_type': needs close or open, got 'seen'"),
        (_row("train,cat purring,open,c1"), r"field 'cls_type': 'cat purring' is open here and not so in"),
        (
            _row("train,cat purring,close,c00000"),
            r"csv:5, field 'vid_name': needs distinct ids, got 'c00000' as in line 4",
        ),
        (_row("train,cat purring,close,../d"), r"field 'vid_name': needs a video id fit"),
        (_row("train,cat purring,close,d"), r"json, video 'd': not there, though ovave_dataset_meta\.csv:5 lists it"),
        (_row('train,"cat'), r"not readable as CSV"),
        (_bytes(META, b"cls_name,split\n"), r"meta\.csv:1: needs the header split,cls_name,cls_type,vid_name"),
        (_bytes(META, b""), r"meta\.csv:1: needs the header"),
        (_bytes(META, HEADER.encode()), r"needs lines below the header"),
        (_bytes(META, HEADER.encode() + b"train,\xff,close,d"), r"meta\.csv:2: needs UTF-8"),
        (_remove(META), r"list of videos missing; needs ovave_dataset_meta\.csv"),
        (_remove(RELEASED), r"labels missing; needs released_ovavel_dataset_anno\.json or ovavel_dataset_anno\.json"),
        (_remove(CATEGORIES), r"classes missing; needs ovave_total_close_open_categories\.csv"),
        (_bytes(CATEGORIES, b"cat purring\ndog barking\n"), r"categories\.csv:2: needs 'other' as its last line"),
        (_bytes(CATEGORIES, b""), r"categories\.csv:0: needs 'other'"),
        (_bytes(CATEGORIES, b"cat purring\ncat purring\nother"), r"categories\.csv:2: needs one distinct class"),
        (_bytes(CATEGORIES, b"cat purring\n\nother"), r"categories\.csv:2: needs one distinct class"),
        (_bytes(RELEASED, b'{"a": {"category": "x", "lab'), r"anno\.json:1: not JSON .* cut off"),
        (_bytes(RELEASED, b"[]"), r"needs an object of video ids"),
        (_label([0] * 10), r"field 'label': needs a text such as"),
        (_label("[0, 1]"), LABEL_MATCH),
        (_label("[0, 0, 0, 0, 0, 0, 0, 0, 0, 2]"), LABEL_MATCH),
        (_label("[0, 0, 0, 0, 0, 0, 0, 0, 0, 1.0]"), LABEL_MATCH),
        (_label("[0, 0, 0, 0, 0, 0, 0, 0, 0, true]"), LABEL_MATCH),
        (_label("__import__('os').abort()"), LABEL_MATCH),
        (_label("[" * 100_000), LABEL_MATCH),
        (_label(""), LABEL_MATCH),
        (_label("dog barking", "category"), r"field 'category': needs 'cat purring' as in ovave_dataset_meta\.csv:4"),
    ],
)
def test_damaged_file_is_an_error_with_line_or_key_and_field(
    root: Path, damage: Callable[[Path], None], match: str
) -> None:
    damage(root)
    with pytest.raises(AnnotationError, match=match):
        ovavebench.load(root)


def test_damaged_gzip_is_an_error(root: Path) -> None:
    data = gzip.compress((root / RELEASED).read_bytes())
    (root / RELEASED).unlink()
    for damaged in (data[:40], b"plain text", data[:30] + b"\xff\xff\xff" + data[33:]):
        (root / f"{RELEASED}.gz").write_bytes(damaged)
        with pytest.raises(AnnotationError, match="not a whole gzip file"):
            ovavebench.load(root)


# Written and read again

ids = st.from_regex(r"[A-Za-z0-9_-]{11}", fullmatch=True)


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    names = st.text("abcä, -", min_size=1).map(str.strip).filter(lambda text: text not in ("", "other"))
    classes = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    seen = {label: draw(st.booleans()) for label in classes}
    items = []
    for id_ in draw(st.lists(ids, min_size=1, max_size=8, unique=True)):
        label = draw(st.sampled_from(classes))
        cells = draw(st.lists(st.booleans(), min_size=10, max_size=10))
        edges = [i for i, (a, b) in enumerate(zip([False, *cells], [*cells, False], strict=True)) if a != b]
        events = tuple(
            Event(start_s=Fraction(start), end_s=Fraction(end), label=label)
            for start, end in zip(edges[::2], edges[1::2], strict=True)
        )
        split = draw(st.sampled_from(["train", "val", "test"]))
        items.append(Item(id=id_, video_id=id_, split=split, events=events, category=label, seen=seen[label]))
    return Dataset(
        name="ovavebench",
        classes=tuple(classes),
        items=tuple(items),
        videos=tuple(Video(id=item.id, uri=f"/media/{item.id}.mp4") for item in items),
        num_segments=10,
        background="other",
    )


@given(datasets())
@hypothesis_settings(max_examples=50)
def test_written_set_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> None:
    root = tmp_path_factory.mktemp("ov")
    ovavebench.write(dataset, root)
    assert ovavebench.load(root, media="/media") == dataset


def small(*spans: tuple[object, object], background: str | None = "other", **changes: Any) -> Dataset:
    events = tuple(
        Event(start_s=Fraction(str(a)), end_s=Fraction(str(b)), label=changes.get("label", "Bark")) for a, b in spans
    )
    changes.pop("label", None)
    fields: dict[str, Any] = {"id": "a", "video_id": "a", "split": "train", "category": "Bark", "seen": True}
    return Dataset(
        name="x",
        classes=("Bark", "Cat"),
        items=(Item(events=events, **(fields | changes)),),
        videos=(Video(id="a", uri="/a"),),
        num_segments=10,
        background=background,
    )


@pytest.mark.parametrize(
    ("dataset", "match"),
    [
        (small((0, 1), (1, 2)), "maximal runs"),
        (small((4, 5), (1, 2)), "maximal runs"),
        (small((0, 3), (2, 5)), "maximal runs"),
        (small((0, 1.5)), "maximal runs of whole seconds"),
        (small((9, 11)), "maximal runs of whole seconds to 10"),
        (small((0, 1), label="Cat"), "with its category"),
        (small(category=None), "needs the video's id, a category"),
        (small(seen=None), "and `seen`"),
        (small(id="b"), "one item a video"),
        (small(background="background"), "background is 'other'"),
    ],
)
def test_write_of_what_the_format_cannot_hold_is_refused(tmp_path: Path, dataset: Dataset, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ovavebench.write(dataset, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_write_reduced_lists_keep_their_share_of_each_class_and_all_of_val_and_test(tmp_path: Path) -> None:
    items = tuple(
        Item(
            id=f"{label}{i}",
            video_id=f"{label}{i}",
            split="train" if i < count else "val" if i == count else "test",
            events=(Event(start_s=Fraction(0), end_s=Fraction(3), label=label),),
            category=label,
            seen=True,
        )
        for label, count in (("bark", 8), ("meow", 5))
        for i in range(count + 2)
    )
    whole = Dataset(
        name="ovavebench",
        classes=("bark", "meow"),
        items=items,
        videos=tuple(Video(id=item.id, uri="x") for item in items),
        num_segments=10,
        background="other",
    )
    ovavebench.write(whole, tmp_path)
    for share, bark, meow in (("0.25", 2, 2), ("0.5", 4, 3), ("0.75", 6, 4)):
        reduced = ovavebench.load(tmp_path, train_list=share)
        found = [item.category for item in reduced.split("train")]
        assert (found.count("bark"), found.count("meow")) == (bark, meow)
        for split in ("val", "test"):
            assert reduced.split(split) == ovavebench.load(tmp_path).split(split)
