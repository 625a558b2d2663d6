"""A video that cannot be is refused; every reason is one word with an explanation."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest

from catalog.video import REASONS, STATUSES, Video


def test_video_with_odd_but_valid_names_is_kept_as_it_is() -> None:
    for id_ in ("-Qowmc0P9ic", "new\nline.mp4", "ünïcode \U0001f600.mp4", " "):
        assert Video(id=id_, uri=f"/data/{id_}").id == id_


@pytest.mark.parametrize(("id_", "uri"), [("", "/a.mp4"), ("a", ""), ("a\0b", "/a.mp4"), ("a", "/a\0.mp4")], ids=repr)
def test_video_with_an_empty_name_or_a_nul_is_refused(id_: str, uri: str) -> None:
    with pytest.raises(ValueError, match="without NUL"):
        Video(id=id_, uri=uri)


@pytest.mark.parametrize(("id_", "uri"), [("a\udcff", "/a.mp4"), ("a", "/\ud800.mp4")], ids=repr)
def test_video_whose_name_is_not_utf8_is_refused(id_: str, uri: str) -> None:
    with pytest.raises(ValueError, match="valid UTF-8"):
        Video(id=id_, uri=uri)


@pytest.mark.parametrize(("duration_s", "match"), [(0, "above 0"), (Fraction(-1), "above 0"), (1.5, "must be exact")])
def test_video_with_a_wrong_duration_is_refused(duration_s: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Video(id="a", uri="/a.mp4", duration_s=duration_s)  # type: ignore[arg-type] # the point of the test


def test_reasons_and_statuses_are_single_words() -> None:
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", word) for word in (*REASONS, *STATUSES))
    assert all(REASONS.values())
    assert len(set(STATUSES)) == 4
