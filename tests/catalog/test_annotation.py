"""Annotation files read strictly: what is tolerated changes nothing, and what is wrong is named with its place."""

from __future__ import annotations

import gzip
import re
from fractions import Fraction
from pathlib import Path

import pytest

from catalog.annotation import check_video_id, find_file, need, need_file, need_key, read_json, read_lines, read_text
from catalog.errors import AnnotationError


def test_lines_of_any_ends_are_those_written(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for data in (b"a\nb\x0cc\nd", b"a\r\nb\x0cc\r\nd\r\n", b"\xef\xbb\xbfa\nb\x0cc\nd\n\n \n"):
        path.write_bytes(data)
        assert read_lines(path) == ["a", "b\x0cc", "d"]
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"a\r\nb\x0cc\nd"))
    assert read_lines(tmp_path / "b.txt.gz") == ["a", "b\x0cc", "d"]


def test_first_name_that_exists_is_found_before_its_gzip(tmp_path: Path) -> None:
    assert find_file(tmp_path, ["a", "b"]) is None
    (tmp_path / "b.gz").touch()
    assert find_file(tmp_path, ["a", "b"]) == tmp_path / "b.gz"
    (tmp_path / "b").touch()
    assert find_file(tmp_path, ["a", "b"]) == tmp_path / "b"
    with pytest.raises(AnnotationError, match=r"labels missing; needs c or d there, got b, b\.gz"):
        need_file(tmp_path, ["c", "d"], "labels")
    with pytest.raises(AnnotationError, match=r"no such folder; needs the folder that holds c \(labels\)"):
        need_file(tmp_path / "none", ["c"], "labels")


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("a", b"one\ntwo \xff", r"a:2: needs UTF-8 text, got the byte 0xff at offset 8"),
        ("a", b"one\n\ntw\0o", r"a:3: needs text, got a NUL byte"),
        ("a.gz", b"plain", "not a whole gzip file"),
        ("a.gz", gzip.compress(b"whole", mtime=0)[:-3], "not a whole gzip file"),
    ],
)
def test_damaged_text_is_named_with_its_line(tmp_path: Path, name: str, data: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(AnnotationError, match=match):
        read_text(tmp_path / name)


def test_json_numbers_are_exact(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"a": 0.1, "b": [3, 1e1], "c": "0.1"}')
    assert read_json(tmp_path / "a") == {"a": Fraction(1, 10), "b": [3, Fraction(10)], "c": "0.1"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "the key 'c' occurs twice"),
        ('{"a": NaN}', "needs finite numbers, got NaN"),
        ('{"a": 1e999999}', "the number 1e999999 is out of any range"),
        ('{"a": 1,\n "b": }', r"a:2: not JSON at column 7.*"),
        ('{"a": 1,\n "b', "cut off"),
        ("[" * 100_000, "not JSON that an annotation file would hold"),
    ],
)
def test_json_that_is_not_strict_is_refused(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "a").write_text(text)
    with pytest.raises(AnnotationError, match=match):
        read_json(tmp_path / "a")


def test_values_of_another_kind_are_refused() -> None:
    assert need(3, (int, Fraction), "f", "seconds") == 3
    assert need(True, bool, "f", "a flag") is True
    with pytest.raises(AnnotationError, match=r"^f: needs seconds, got True$"):
        need(True, (int, Fraction), "f", "seconds")
    with pytest.raises(AnnotationError, match=r"^f: needs the field 'b' \(text\), got a$"):
        need_key({"a": 1}, "b", str, "f", "text")
    with pytest.raises(AnnotationError, match=r"^f, field 'a': needs text, got 1$"):
        need_key({"a": 1}, "a", str, "f", "text")


@pytest.mark.parametrize("id_", ["", " ", "a/b", "a\\b", "..", "a..b", "a\nb", "a\x7fb", "\ud800"])
def test_ids_unfit_for_a_file_name_are_refused(id_: str) -> None:
    with pytest.raises(AnnotationError, match="fit for a file name"):
        check_video_id(id_, "f")


@pytest.mark.parametrize("id_", ["a", "-a", "a b", "é日本", "a.b"])
def test_other_ids_are_taken(id_: str) -> None:
    assert check_video_id(id_, "f") == id_


@pytest.mark.parametrize(("text", "want"), [("7.0", 7), ("7e0", 7), ("7", 7), ("-2.0", -2)])
def test_whole_number_written_as_a_decimal_is_one(tmp_path: Path, text: str, want: int) -> None:
    (tmp_path / "a.json").write_text(text)
    got = need(read_json(tmp_path / "a.json"), int, "a", "a number")
    assert (got, type(got)) == (want, int)


@pytest.mark.parametrize(
    ("text", "kind", "got"),
    [
        ("7.5", int, "got 7.5"),
        ("1.5", str, "got 1.5"),
        ('[0.5, {"a": 0.25}]', dict, "got [0.5, {'a': 0.25}]"),
        ("true", int, "got True"),
    ],
)
def test_what_came_is_shown_as_the_file_has_it(tmp_path: Path, text: str, kind: type, got: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(AnnotationError, match=re.escape(f"a: needs a thing, {got}")):
        need(read_json(tmp_path / "a.json"), kind, "a", "a thing")
