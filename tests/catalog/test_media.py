"""Names of media: suffixes, text and URIs of any file name, and videos found by one listing."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.media import MEDIA_SUFFIXES, local_path, locate, media_folder, media_suffix, text_of, uri_of

# Media: names


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.mp4", ".mp4"),
        ("UPPER.MP4", ".mp4"),
        ("a.tar.webm", ".webm"),
        (".hidden.mp4", ".mp4"),
        (".mp4", ".mp4"),
        ("dir.mp4/a.txt", None),
        ("a.mp4.part", None),
        ("mp4", None),
        ("a", None),
        ("-dash.Mkv", ".mkv"),
        ("", None),
    ],
)
def test_media_suffix_goes_by_the_end_of_the_name(name: str, suffix: str | None) -> None:
    assert media_suffix(name) == suffix


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name and b"/" not in name))
def test_any_file_name_has_a_valid_text_and_a_uri_that_leads_back(name: bytes) -> None:
    text = text_of(os.fsdecode(name))
    text.encode("utf-8")
    uri = uri_of(os.fsdecode(b"/data/x" + name))
    uri.encode("utf-8")
    found = local_path(uri)
    assert found is not None
    assert os.fsencode(found) == b"/data/x" + name
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        assert "%" in text
        assert uri.startswith("file:///data/")
    else:
        assert text == name.decode("utf-8")
        assert uri == "/data/x" + name.decode("utf-8")


def test_local_path_of_remote_and_file_urls() -> None:
    assert local_path("s3://bucket/a.mp4") is None
    assert local_path("rel/a%20b.mp4") == "rel/a%20b.mp4"
    assert local_path("file:///data/a%20b#c?d.mp4") == "/data/a b#c?d.mp4"
    assert local_path("file://localhost/a.mp4") == "/a.mp4"
    with pytest.raises(ValueError, match="needs an absolute path"):
        local_path("file://data/a.mp4")


# Media: places


def _touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_locate_finds_any_suffix_and_leaves_the_absent_where_expected(tmp_path: Path) -> None:
    _touch(tmp_path, "-a.MP4", "b.webm", "c.txt", "d.mkv", "d.mp4", "e_000034.mp4", "f_34000_44000.mkv", "g.mp4.part")
    ids = ["-a", "b", "c", "d", "e", "f", "g"]
    videos, odd = locate(dict.fromkeys(ids, Fraction(10)), str(tmp_path))
    assert [video.id for video in videos] == ids
    assert {video.duration_s for video in videos} == {Fraction(10)}
    names = ["-a.MP4", "b.webm", "c.mp4", "d.mp4", "e_000034.mp4", "f_34000_44000.mkv", "g.mp4"]
    assert [video.uri for video in videos] == [str(tmp_path / name) for name in names]
    assert odd == (f"2 of 7 videos are not in {tmp_path}.", f"d has several media files in {tmp_path}.")


def test_locate_prefers_the_id_as_given_to_a_span(tmp_path: Path) -> None:
    _touch(tmp_path, "a_000034.mp4", "a_000050.mp4", "a.mkv", "b_000001.mp4", "b_000002.mp4")
    videos, odd = locate({"a": None, "a_000050": None, "b": None}, str(tmp_path))
    assert [os.path.basename(video.uri) for video in videos] == ["a.mkv", "a_000050.mp4", "b_000001.mp4"]
    assert odd == (f"b has several media files in {tmp_path}.",)


def test_locate_in_a_folder_that_is_absent_expects_all_there(tmp_path: Path) -> None:
    videos, odd = locate({"a": None}, str(tmp_path / "none"))
    assert videos[0].uri == str(tmp_path / "none" / "a.mp4")
    assert odd == (f"No media: {tmp_path / 'none'} cannot be listed; all 1 videos are expected there as ID.mp4.",)


def test_locate_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path / "m", "a.mp4")
    monkeypatch.chdir(tmp_path)
    videos, _ = locate({"a": None, "b": None}, "m")
    assert [video.uri for video in videos] == [str(tmp_path / "m" / "a.mp4"), str(tmp_path / "m" / "b.mp4")]


def test_locate_below_a_url_prefix() -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/locate/media/a.mkv", b"1")
    try:
        videos, odd = locate({"a": None, "b": None}, "memory://locate/media/")
        assert [video.uri for video in videos] == ["memory://locate/media/a.mkv", "memory://locate/media/b.mp4"]
        assert odd == ("1 of 2 videos are not in memory://locate/media/.",)
        videos, odd = locate({"a": None}, "memory://nowhere")
        assert videos[0].uri == "memory://nowhere/a.mp4"
        assert odd[0].startswith("No media")
    finally:
        filesystem.rm("/locate", recursive=True)


def test_locate_asks_the_file_system_no_oftener_for_24800_ids_than_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"-id{number:08d}" for number in range(24_800)]
    for id_ in ids[::50]:
        (tmp_path / f"{id_}.mp4").touch()
    calls: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*given: Any, **more: Any) -> Any:
            calls.append(name)
            return real(*given, **more)

        return call

    for name in ("stat", "lstat", "listdir", "scandir"):
        monkeypatch.setattr(os, name, counted(name))
    locate(dict.fromkeys(ids[:1]), str(tmp_path))
    of_one = len(calls)
    videos, _ = locate(dict.fromkeys(ids), str(tmp_path))
    assert 0 < len(calls) - of_one <= of_one
    assert len(videos) == 24_800


def test_media_folder_is_the_first_that_exists(tmp_path: Path) -> None:
    assert media_folder(tmp_path, "s3://b/m") == "s3://b/m"
    assert media_folder(tmp_path, None) == str(tmp_path / "videos")
    (tmp_path / "a.MP4").touch()
    assert media_folder(tmp_path, None) == str(tmp_path)
    (tmp_path / "AVE").mkdir()
    assert media_folder(tmp_path, None, ("videos", "AVE")) == str(tmp_path / "AVE")
    (tmp_path / "videos").mkdir()
    assert media_folder(tmp_path, None, ("videos", "AVE")) == str(tmp_path / "videos")


def test_media_suffixes_are_lower_case_and_distinct() -> None:
    assert len(set(MEDIA_SUFFIXES)) == len(MEDIA_SUFFIXES)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in MEDIA_SUFFIXES)
