"""A file replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from catalog.whole_file import replacing, write_atomically


def test_write_atomically_replaces_the_text_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    for text in ("old", "grün\n"):
        write_atomically(path, text)
    assert path.read_bytes() == "grün\n".encode()
    assert os.listdir(tmp_path) == ["page.html"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_write_atomically_is_readable_by_whom_the_umask_lets(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "x", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_replacing_interrupted_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "weights"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as draft:
            draft.write_text("half")
            assert path.read_text() == "old"
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["weights"]


def test_replacing_with_a_fixed_draft_takes_up_the_one_left_by_a_kill(tmp_path: Path) -> None:
    path, part = tmp_path / "weights", tmp_path / "weights.part"
    part.write_text("left by a kill, and longer")
    with replacing(path, draft=part) as draft:
        assert draft == part
        draft.write_text("new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["weights"]
