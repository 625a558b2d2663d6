"""Media without annotations: every entry with a media suffix becomes a video, whatever it is."""

from __future__ import annotations

import contextlib
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from catalog.datasets import folder
from catalog.errors import AnnotationError
from catalog.media import local_path


def ids(source: object) -> list[str]:
    return [video.id for video in folder.load(str(source)).videos]


def touch(top: Path, *names: str) -> Path:
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return top


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    if filesystem.exists("/folder"):
        filesystem.rm("/folder", recursive=True)


def test_folder_is_read_whole_in_order_of_ids(tmp_path: Path) -> None:
    touch(
        tmp_path, "b.mp4", "a/z.mkv", "a/b/c.WAV", ".hidden.mp4", ".h/x.webm", "B.MP4", "notes.txt", "a/x.jpg", "-d.ts"
    )
    found = folder.load(tmp_path)
    assert [video.id for video in found.videos] == sorted(
        ["b.mp4", "a/z.mkv", "a/b/c.WAV", ".hidden.mp4", ".h/x.webm", "B.MP4", "-d.ts"]
    )
    assert all(video.uri == str(tmp_path / video.id) for video in found.videos)
    assert found.oddities == ("2 file(s) without a media suffix left out: notes.txt, a/x.jpg.",)
    assert (found.name, found.items, found.classes, found.background) == ("folder", (), (), None)


def test_folder_with_links_to_nothing_loops_and_directories_gives_each_a_video(tmp_path: Path) -> None:
    touch(tmp_path, "good.mp4", "directory.mp4/inner.mp4")
    (tmp_path / "dangling.mp4").symlink_to("missing.mp4")
    (tmp_path / "loop_a.mp4").symlink_to("loop_b.mp4")
    (tmp_path / "loop_b.mp4").symlink_to("loop_a.mp4")
    (tmp_path / "link.mp4").symlink_to("good.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "dangling.txt").symlink_to("nothing")
    assert ids(tmp_path) == [
        *("dangling.mp4", "directory.mp4", "directory.mp4/inner.mp4", "good.mp4"),
        *("link.mp4", "loop_a.mp4", "loop_b.mp4", "pipe.mp4"),
    ]


def test_folder_with_the_corpus_of_odd_names_lists_them_all(shared: Path, tmp_path: Path) -> None:
    with tarfile.open(shared / "data" / "malformed" / "odd_paths.tar") as tar:
        wanted = {name for name in tar.getnames() if name.lower().endswith(".mp4")}
        tar.extractall(tmp_path, filter="fully_trusted")  # its dangling link is the point
    assert len(wanted) == 11
    assert set(ids(tmp_path)) == wanted


def test_folder_links_are_followed_once_and_real_paths_come_first(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "far.mp4")
    top = touch(tmp_path / "top", "real/a.mp4")
    (top / "0again").symlink_to("real")  # sorts before "real"
    (top / "real" / "up").symlink_to("..")
    (top / "far").symlink_to(tmp_path / "elsewhere")
    found = folder.load(top)
    assert [video.id for video in found.videos] == ["far/far.mp4", "real/a.mp4"]
    assert found.oddities == ("2 link(s) to folders already read not followed.",)


def test_folder_with_many_links_to_each_other_ends(tmp_path: Path) -> None:
    for i in range(12):
        touch(tmp_path, f"d{i}/a.mp4")
        for j in range(12):
            (tmp_path / f"d{i}" / f"to{j}").symlink_to(tmp_path / f"d{j}")
    assert ids(tmp_path) == sorted(f"d{i}/a.mp4" for i in range(12))


def test_folder_with_names_that_are_not_utf8_escapes_them_and_leads_back(tmp_path: Path) -> None:
    top = os.fsencode(tmp_path)
    for name in (b"caf\xe9.mp4", b"\xff%41.mp4", b"%FF.mp4", b"\xff.mp4", "é.mp4".encode()):
        with open(os.path.join(top, name), "wb") as file:
            file.write(name)
    found = folder.load(tmp_path).videos
    # The byte ff escapes to the name that another file has already; that one keeps its name.
    assert {video.id for video in found} == {"caf%E9.mp4", "%FF%2541.mp4", "%FF.mp4", "%FF.mp4%", "é.mp4"}
    for video in found:
        (video.id + video.uri).encode("utf-8")
        path = local_path(video.uri)
        assert path is not None
        content = Path(path).read_bytes()
        assert os.fsencode(path) == os.path.join(top, content)


def test_folder_below_a_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    inner = os.path.join(os.fsencode(tmp_path), b"\xe9")
    os.mkdir(inner)
    with open(os.path.join(inner, b"a.mp4"), "wb"):
        pass
    assert ids(tmp_path) == ["%E9/a.mp4"]
    assert ids(os.fsdecode(inner)) == ["a.mp4"]


def test_folder_with_new_lines_and_tabs_in_names_keeps_them(tmp_path: Path) -> None:
    touch(tmp_path, "new\nline.mp4", "tab\tname.mp4", "  .mp4")
    assert ids(tmp_path) == ["  .mp4", "new\nline.mp4", "tab\tname.mp4"]


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Root may list any folder, so root becomes nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_folder_that_cannot_be_listed_is_counted() -> None:
    # Not tmp_path: nobody may not enter pytest's own folder.
    with tempfile.TemporaryDirectory() as place:
        open_folder = Path(place)
        open_folder.chmod(0o755)
        touch(open_folder, "a.mp4", "closed/b.mp4")
        (open_folder / "closed").chmod(0)
        try:
            with nobody():
                assert folder.load(open_folder).oddities == ("1 folder(s) could not be listed: closed.",)
        finally:
            (open_folder / "closed").chmod(0o700)


def test_folder_without_media_says_which_suffixes_are_looked_for(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt")
    with pytest.raises(ValueError, match=r"no media found; looked for .*\.mp4, \.mkv.*\.wav.*; 1 file\(s\) without"):
        folder.load(tmp_path)


def test_folder_that_is_absent_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing there; needs a folder"):
        folder.load(tmp_path / "none")


def test_one_file_is_one_video_whatever_its_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.bin")
    assert ids(tmp_path / "a.mp4") == ["a.mp4"]
    assert ids(tmp_path / "b.bin") == ["b.bin"]
    (tmp_path / "dangling.mp4").symlink_to("nothing")
    assert ids(tmp_path / "dangling.mp4") == ["dangling.mp4"]


def test_relative_source_gives_absolute_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "m/a.mp4")
    monkeypatch.chdir(tmp_path)
    for source in ("m", "m/a.mp4", "m/*.mp4", "./m/"):
        (video,) = folder.load(source).videos
        assert (video.id, video.uri) == ("a.mp4", str(tmp_path / "m" / "a.mp4"))


def test_glob_ids_are_relative_to_its_fixed_part(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.mp4", "y/a.mp4", "y/.h.mp4", "y/deep/b.mkv", "y/b.txt")
    assert ids(tmp_path / "*" / "*.mp4") == ["x/a.mp4", "y/.h.mp4", "y/a.mp4"]
    assert ids(tmp_path / "y" / "**") == [".h.mp4", "a.mp4", "deep/b.mkv"]
    assert folder.load(tmp_path / "y" / "**").oddities == ("1 file(s) without a media suffix left out: b.txt.",)
    with pytest.raises(ValueError, match="no media found"):
        folder.load(tmp_path / "*.mov")


def test_path_with_brackets_that_exists_is_no_glob(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].mp4", "[b]/c.mp4")
    assert ids(tmp_path / "a[1].mp4") == ["a[1].mp4"]
    assert ids(tmp_path / "[b]") == ["c.mp4"]


def test_list_file_takes_paths_and_urls_with_bom_crlf_comments_and_no_last_line_end(tmp_path: Path) -> None:
    text = "\ufeff# mine\r\n\r\nsub/a.mp4\r\n/data/b.mp4\r\n  s3://bucket/c.mp4  \r\nsub/a.mp4\r\nodd.bin"
    (tmp_path / "list.txt").write_text(text, encoding="utf-8", newline="")
    found = folder.load(tmp_path / "list.txt")
    assert [(video.id, video.uri) for video in found.videos] == [
        ("sub/a.mp4", str(tmp_path / "sub/a.mp4")),
        ("/data/b.mp4", "/data/b.mp4"),
        ("s3://bucket/c.mp4", "s3://bucket/c.mp4"),
        ("odd.bin", str(tmp_path / "odd.bin")),
    ]
    assert found.oddities == ("1 line(s) naming a medium again left out.",)


def test_csv_list_of_one_column_or_with_header(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text('a.mp4\n# no\n"with, comma.mp4"\n', encoding="utf-8")
    assert ids(path) == ["a.mp4", "with, comma.mp4"]
    path.write_text('\ufeffid,uri\r\none,a.mp4\r\n"two\nlines","b, c.mp4"\r\n', encoding="utf-8", newline="")
    assert [(video.id, Path(video.uri).name) for video in folder.load(path).videos] == [
        ("one", "a.mp4"),
        ("two\nlines", "b, c.mp4"),
    ]
    path.write_text("Path\na.mp4\n", encoding="utf-8")
    assert ids(path) == ["a.mp4"]


def test_list_with_bytes_that_are_not_utf8_names_the_file_of_these_bytes(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.mp4\n")
    (video,) = folder.load(tmp_path / "list.txt").videos
    assert video.id == "caf%E9.mp4"
    path = local_path(video.uri)
    assert path is not None
    assert os.fsencode(path) == os.fsencode(tmp_path) + b"/caf\xe9.mp4"


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("l.txt", b"a.mp4\nb\0.mp4\n", r"l\.txt:2: .*NUL byte"),
        ("l.csv", b"a.mp4,b.mp4\n", r"l\.csv:1: needs 1 column.*got 2"),
        ("l.csv", b"id,uri\nx,a.mp4\nb.mp4\n", r"l\.csv:3: needs 2 column.*got 1"),
        ("l.csv", b"id,uri\nx,a.mp4\nx,b.mp4\n", r"l\.csv:3: ids must be distinct, got 'x' as in line 2"),
        ("l.csv", b"id,uri\nx,\n", r"l\.csv:2: needs a uri"),
        ("l.csv", b"id,uri\n,a.mp4\n", r"l\.csv:2: needs a uri"),
        ("l.csv", b'"a.mp4\n', r"l\.csv:1: not readable as CSV"),
    ],
)
def test_list_that_is_damaged_is_an_error_with_its_line(tmp_path: Path, name: str, data: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(AnnotationError, match=match):
        folder.load(tmp_path / name)


def test_list_without_entries_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no media found"):
        folder.load(tmp_path / "l.txt")


def test_url_of_a_directory_glob_file_and_list(memory: fsspec.AbstractFileSystem) -> None:
    for name in ("a.mp4", "sub/b.MKV", "sub/c.txt"):
        memory.pipe(f"/folder/{name}", b"1")
    memory.pipe("/folder/list.txt", b"a.mp4\nsub/b.MKV\n")
    found = folder.load("memory://folder")
    assert [video.id for video in found.videos] == ["a.mp4", "sub/b.MKV"]
    assert found.oddities == ("2 file(s) without a media suffix left out: list.txt, c.txt.",)
    assert all(memory.isfile(video.uri) for video in found.videos)
    assert ids("memory://folder/sub/*") == ["b.MKV"]
    assert ids("memory://folder/**/*.MKV") == ["sub/b.MKV"]
    assert ids("memory://folder/a.mp4") == ["a.mp4"]
    listed = folder.load("memory://folder/list.txt").videos
    assert [video.id for video in listed] == ["a.mp4", "sub/b.MKV"]
    assert all(memory.isfile(video.uri) for video in listed)


def test_url_of_a_medium_is_taken_without_asking_the_server() -> None:
    (video,) = folder.load("https://nowhere.invalid/clips/a%20b.mp4?token=x[1]").videos
    assert (video.id, video.uri) == ("a%20b.mp4", "https://nowhere.invalid/clips/a%20b.mp4?token=x[1]")
    (video,) = folder.load("s3://no-such-bucket/a.webm").videos
    assert (video.id, video.uri) == ("a.webm", "s3://no-such-bucket/a.webm")


def test_url_with_nothing_below_is_an_error(memory: fsspec.AbstractFileSystem) -> None:
    with pytest.raises(ValueError, match="memory://folder/none"):
        folder.load("memory://folder/none")


def test_file_url_is_the_local_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a b/c.mp4")
    assert folder.load(f"file://{tmp_path}/a%20b").videos == folder.load(tmp_path / "a b").videos


def test_folder_is_read_the_same_whatever_order_the_disk_gives(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    names = [f"{c}/{i}.mp4" for c in "zma" for i in range(20)]
    touch(one, *names)
    touch(other, *reversed(names))
    assert ids(one) == ids(other) == sorted(names)
