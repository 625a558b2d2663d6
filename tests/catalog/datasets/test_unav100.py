"""UnAV-100's file: the published one counted, and every way it can be wrong."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from catalog.dataset import Dataset, Item
from catalog.datasets import unav100
from catalog.errors import AnnotationError
from catalog.event import Event
from catalog.video import Video

FILE = "unav100_annotations.json"
DATABASE: dict[str, Any] = {
    "72f67ednp7w": {
        "duration": 47.68,
        "annotations": [
            {"segment": [13.01, 15.78316], "label": "skateboarding", "label_id": 1},
            {"segment": [0, 47.68], "label": "man speaking", "label_id": 0},
        ],
        "subset": "train",
    },
    "-WSesSOfBrE": {"duration": 39, "annotations": [], "subset": "Validation"},
    "zRjmgv0O_p0": {
        "duration": 46,
        "annotations": [{"segment": [0.1, 46], "label": "man speaking", "label_id": 0}],
        "subset": "test",
    },
}


def save(root: Path, database: dict[str, Any]) -> Path:
    (root / FILE).write_text(json.dumps({"version": "unav100", "database": database}), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def official(shared: Path) -> Dataset:
    return unav100.load(shared / "data" / "annotations" / "unav100")


def test_official_counts_are_those_measured(official: Dataset) -> None:
    assert (len(official.items), len(official.videos), len(official.classes)) == (10_790, 10_790, 100)
    splits = {split: official.split(split) for split in ("train", "val", "test")}
    assert [len(items) for items in splits.values()] == [6489, 2134, 2167]
    assert [sum(len(item.events) for item in items) for items in splits.values()] == [18_123, 6036, 5900]
    per_class = Counter(event.label for item in official.items for event in item.events)
    assert (len(per_class), min(per_class.values())) == (100, 116)
    assert per_class.most_common(2) == [("man speaking", 2515), ("woman speaking", 1519)]
    assert max(len(item.events) for item in official.items) == 23
    assert max(len({event.label for event in item.events}) for item in official.items) == 8
    assert sum(len(item.events) == 1 for item in official.items) == 4449
    test_counts = Counter(event.label for item in splits["test"] for event in item.events)
    assert (min(test_counts.values()), max(test_counts.values())) == (19, 490)
    assert (official.num_segments, official.background) == (None, None)


def test_official_durations_and_overlaps_are_those_measured(official: Dataset) -> None:
    durations_s = [video.duration_s for video in official.videos if video.duration_s is not None]
    assert len(durations_s) == 10_790
    assert min(durations_s) >= 10
    assert max(durations_s) == Fraction(60)
    assert sum(duration_s.denominator == 1 for duration_s in durations_s) >= 6890
    assert round(float(sum(durations_s)) / 10_790, 2) == 42.15
    pairs = [
        (a, b)
        for item in official.items
        for a, b in combinations(item.events, 2)
        if min(a.end_s, b.end_s) - max(a.start_s, b.start_s) > Fraction(1, 20)
    ]
    assert len(pairs) == 7746
    assert not any(a.label == b.label for a, b in pairs)


def test_official_classes_are_in_the_order_of_their_ids(official: Dataset, shared: Path) -> None:
    text = (shared / "data" / "annotations" / "unav100" / FILE).read_text(encoding="utf-8")
    database = json.loads(text)["database"]
    for entry in database.values():
        for annotation in entry["annotations"]:
            assert official.classes[annotation["label_id"]] == annotation["label"]
    assert list(database) == [item.id for item in official.items]


def test_official_times_are_exactly_the_decimals_of_the_file(official: Dataset, shared: Path) -> None:
    text = (shared / "data" / "annotations" / "unav100" / FILE).read_text(encoding="utf-8")
    database = json.loads(text, parse_float=str, parse_int=str)["database"]
    for item in official.items[::7]:
        segments = [annotation["segment"] for annotation in database[item.id]["annotations"]]
        assert [(event.start_s, event.end_s) for event in item.events] == [
            (Fraction(start), Fraction(end)) for start, end in segments
        ]


def test_official_written_reads_back_equal(official: Dataset, shared: Path, tmp_path: Path) -> None:
    unav100.write(official, tmp_path)
    assert unav100.load(tmp_path, media=shared / "data" / "annotations" / "unav100" / "videos") == official


def test_small_set_is_read_with_overlaps_integers_and_any_case(tmp_path: Path) -> None:
    found = unav100.load(save(tmp_path, DATABASE), media=tmp_path)
    assert found.classes == ("man speaking", "skateboarding")
    assert [item.split for item in found.items] == ["train", "val", "test"]
    assert found.items[0].events == (
        Event(start_s=Fraction("13.01"), end_s=Fraction("15.78316"), label="skateboarding"),
        Event(start_s=Fraction(0), end_s=Fraction("47.68"), label="man speaking"),
    )
    assert [video.duration_s for video in found.videos] == [Fraction("47.68"), Fraction(39), Fraction(46)]
    assert "1 of 3 videos have events that overlap." in found.oddities
    assert "1 video(s) have no event." in found.oddities


def test_bom_is_tolerated(tmp_path: Path) -> None:
    save(tmp_path, DATABASE)
    plain = unav100.load(tmp_path)
    path = tmp_path / FILE
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\r\n")
    assert unav100.load(tmp_path) == plain


def _edit(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def edit(database: dict[str, Any]) -> None:
        place: Any = database
        *keys, last = [int(key) if key.isdecimal() else key for key in path.split("/")]
        for key in keys:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return edit


FIRST = "72f67ednp7w"
EVENT = f"{FIRST}/annotations/0"


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (_edit(f"{FIRST}/duration", None), r"video '72f67ednp7w': needs the field 'duration'"),
        (_edit(f"{FIRST}/duration", "47"), r"field 'duration': needs seconds above 0, got '47'"),
        (_edit(f"{FIRST}/duration", True), r"field 'duration': needs seconds above 0, got True"),
        (_edit(f"{FIRST}/duration", 0), r"field 'duration': needs seconds above 0"),
        (_edit(f"{FIRST}/duration", 20), r"annotation 1, field 'segment': .* duration 20\.0, got 0\.0 and 47\.68"),
        (_edit(f"{FIRST}/duration", 10**7), r"field 'duration': needs seconds above 0, up to 1,000,000, got 1.*"),
        (_edit(f"{FIRST}/duration", 10**400), r"field 'duration': .* got a number of over 300 digits"),
        (_edit(f"{EVENT}/segment", [0, 10**400]), r"field 'segment': .* got 0\.0 and a number of over 300 digits"),
        (_edit(f"{FIRST}/annotations", [None] * 2001), r"field 'annotations': takes up to 2,000 events, got 2,001"),
        (_edit(f"{FIRST}/subset", "training"), r"field 'subset': needs train, validation or test, got 'training'"),
        (_edit(f"{FIRST}/subset", None), r"needs the field 'subset'"),
        (_edit(f"{FIRST}/annotations", {}), r"field 'annotations': needs a list"),
        (_edit(EVENT, "x"), r"annotation 0: needs an object"),
        (_edit(f"{EVENT}/segment", [5, 3]), r"annotation 0, field 'segment': needs 0 <= start < end .*got 5\.0 and 3"),
        (_edit(f"{EVENT}/segment", [3, 3]), r"field 'segment': needs 0 <= start < end"),
        (_edit(f"{EVENT}/segment", [-1, 3]), r"field 'segment': needs 0 <= start < end"),
        (_edit(f"{EVENT}/segment", [1, 2, 3]), r"field 'segment': needs \[start, end\], got 3"),
        (_edit(f"{EVENT}/segment", ["1", 2]), r"field 'segment': needs seconds, got '1'"),
        (_edit(f"{EVENT}/label", ""), r"needs a label"),
        (_edit(f"{EVENT}/label_id", 0), r"field 'label_id': 0 needs the label 'skateboarding', got 'man speaking'"),
        (_edit(f"{EVENT}/label_id", 7), r"field 'label_id': no event has 1, .* largest is 7"),
        (_edit(f"{EVENT}/label_id", 1.5), r"field 'label_id': needs the class's number"),
        (_edit(f"{EVENT}/label_id", -1), r"label_id of 0 or more"),
        (_edit(f"{EVENT}/label", "man speaking"), r"'man speaking' has both 0 and 1"),
        (_edit(FIRST, []), r"video '72f67ednp7w': needs an object"),
    ],
)
def test_damaged_entry_is_an_error_with_video_and_field(
    tmp_path: Path, edit: Callable[[dict[str, Any]], None], match: str
) -> None:
    database = copy.deepcopy(DATABASE)
    edit(database)
    with pytest.raises(AnnotationError, match=rf"{FILE}.*{match}"):
        unav100.load(save(tmp_path, database))


@pytest.mark.parametrize("id_", ["../x", "a/b", "..", "", "a\nb", "a\\b"])
def test_id_that_would_leave_the_media_folder_is_an_error(tmp_path: Path, id_: str) -> None:
    with pytest.raises(AnnotationError, match="needs a video id fit for a file name"):
        unav100.load(save(tmp_path, {id_: DATABASE["-WSesSOfBrE"]}))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not JSON at column 1"),
        ("[]", "needs an object with the field 'database'"),
        ("{}", "needs the field 'database'"),
        ('{"database": {}}', "needs videos, got none"),
        ('{"database": []}', "field 'database': needs video ids"),
        ('{"database": {"a": {}, "a": {}}}', "the key 'a' occurs twice"),
        ('{"database": {"a": {"duration": NaN}}}', "needs finite numbers, got NaN"),
        ('{"database": {"a": {"duration": 1e999999999}}}', "the number 1e999999999 is out of any range"),
        ('{"database": {"a": {"duration": ' + "1" * 5000 + "}}}", "not JSON that an annotation file would hold"),
        ("[" * 100_000, "not JSON"),
        ('{"database":\n{"a": x}}', f"{FILE}:2: not JSON at column 7"),
    ],
    ids=lambda text: text[:40],
)
def test_damaged_json_is_an_error(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(AnnotationError, match=match):
        unav100.load(tmp_path)


def test_truncated_json_says_so(tmp_path: Path) -> None:
    save(tmp_path, DATABASE)
    data = (tmp_path / FILE).read_bytes()
    for size in range(1, len(data), 7):
        (tmp_path / FILE).write_bytes(data[:size])
        with pytest.raises(AnnotationError, match=r"not JSON .*fetch it again"):
            unav100.load(tmp_path)


def test_missing_file_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "annotations.json").touch()
    with pytest.raises(AnnotationError, match=rf"needs {FILE} there, got annotations\.json"):
        unav100.load(tmp_path)
    with pytest.raises(AnnotationError, match="no such folder"):
        unav100.load(tmp_path / "none")


# Written and read again

SHARES = (Fraction(0), Fraction("0.25"), Fraction("0.125"))
ENDS = (Fraction(1), Fraction("0.5"))
decimals = st.decimals(min_value=1, max_value=60, places=5).map(Fraction)
ids = st.from_regex(r"[A-Za-z0-9_-]{11}", fullmatch=True)


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    classes = tuple(draw(st.lists(st.text(min_size=1).filter(_is_text), min_size=1, max_size=5, unique=True)))
    items, videos = [], []
    for number, id_ in enumerate(draw(st.lists(ids, min_size=1, max_size=6, unique=True))):
        duration_s = draw(decimals)
        wanted = list(classes) if number == 0 else draw(st.lists(st.sampled_from(classes), max_size=4))
        events = []
        for label in wanted:
            start_s, end_s = duration_s * draw(st.sampled_from(SHARES)), duration_s * draw(st.sampled_from(ENDS))
            events.append(Event(start_s=start_s, end_s=end_s, label=label))
        split = draw(st.sampled_from(["train", "val", "test"]))
        items.append(Item(id=id_, video_id=id_, split=split, events=tuple(events)))
        videos.append(Video(id=id_, uri=f"/media/{id_}.mp4", duration_s=duration_s))
    return Dataset(
        name="unav100", classes=classes, items=tuple(items), videos=tuple(videos), num_segments=None, background=None
    )


def _is_text(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


@given(datasets())
@hypothesis_settings(max_examples=50)
def test_written_set_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> None:
    root = tmp_path_factory.mktemp("unav")
    unav100.write(dataset, root)
    assert unav100.load(root, media="/media") == dataset


def small(**changes: Any) -> Dataset:
    bark = Event(start_s=Fraction(0), end_s=changes.pop("end_s", Fraction(1)), label="Bark")
    fields: dict[str, Any] = {"id": "a", "video_id": "a", "split": "train", "events": (bark,)}
    video = Video(id="a", uri="/a", duration_s=changes.pop("duration_s", Fraction(2)))
    return Dataset(
        name="x",
        classes=changes.pop("classes", ("Bark",)),
        items=(Item(**(fields | changes)),),
        videos=(video,),
        num_segments=None,
        background=None,
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"classes": ("Bark", "Cat")}, "names classes by their events; 'Cat' has none"),
        ({"end_s": Fraction(1, 3)}, "decimals of at most 15 digits, got 1/3"),
        ({"end_s": Fraction(3)}, "end within the 2 s"),
        ({"duration_s": None}, "needs a duration"),
        ({"category": "Bark"}, "no category"),
        ({"seen": False}, "no `seen`"),
        ({"id": "b"}, "one item a video"),
    ],
)
def test_write_of_what_the_format_cannot_hold_is_refused(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        unav100.write(small(**changes), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_held_out_classes_are_a_fixed_share_or_those_of_a_file(tmp_path: Path) -> None:
    classes = [f"class {k}, of some kind" for k in range(40)]
    quarter = unav100.held_out(classes, "0.25")
    assert len(quarter) == 10
    assert unav100.held_out(list(reversed(classes)), "0.25") == tuple(reversed(quarter))
    assert set(quarter) < set(unav100.held_out(classes, "0.5"))
    assert unav100.held_out(classes, None) == ()
    assert len(unav100.held_out(classes, "0.999")) == 39  # some are always left
    names = tmp_path / "unseen.txt"
    names.write_text("class 7, of some kind\n\nclass 3, of some kind\n", encoding="utf-8")
    assert unav100.held_out(classes, str(names)) == ("class 3, of some kind", "class 7, of some kind")


@pytest.mark.parametrize(("unseen", "said"), [("1", "below 1"), ("0", "above 0"), ("nowhere.txt", "0.25 or a file")])
def test_held_out_classes_that_cannot_be_are_refused(unseen: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        unav100.held_out(["a", "b"], unseen)


@pytest.mark.parametrize(("content", "said"), [(b"\n", "names 0"), (b"a\nb\n", "names 2"), (b"\xff", "cannot be read")])
def test_files_of_held_out_classes_that_cannot_be_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "unseen.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"unseen: .*unseen\.txt.*{said}"):
        unav100.held_out(["a", "b"], str(path))


def test_held_out_class_that_is_none_is_named(tmp_path: Path) -> None:
    names = tmp_path / "unseen.txt"
    names.write_text("c\n", encoding="utf-8")
    with pytest.raises(ValueError, match="'c' is no class"):
        unav100.held_out(["a", "b"], str(names))
