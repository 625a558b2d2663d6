"""Class names out of the files in which they are published."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.vocabulary import read_vocabulary


def test_vocabulary_of_published_files(shared: Path) -> None:
    folder = shared / "data/annotations"
    ov = read_vocabulary(folder / "ovavel/ovave_total_close_open_categories.csv")
    assert (len(ov), ov[0], ov[-1]) == (68, "airplane flyby", "other")
    ave = read_vocabulary(folder / "ave/categories.txt")
    assert len(ave) == 28
    audioset = read_vocabulary(folder / "labels/audioset_class_labels_indices.csv")
    assert (len(audioset), audioset[1]) == (527, "Male speech, man speaking")
    assert len(read_vocabulary(folder / "labels/kinetics400_label_map.txt")) == 400


def test_vocabulary_line_with_commas_is_one_name(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_bytes("\ufeffMale speech, man speaking\r\nBark\r\n\r\n".encode())
    assert read_vocabulary(tmp_path / "v.txt") == ("Male speech, man speaking", "Bark")


def test_vocabulary_json_list(tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text(' ["Ziege", "über"]', encoding="utf-8")
    assert read_vocabulary(tmp_path / "v.json") == ("Ziege", "über")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no class name"),
        (b"a\n\nb\n", "line 2: no class name"),
        (b"a\nb\na\n", "'a' stands at 1 and at 3"),
        (b"\xff\xfe", "UTF-8"),
        (b'["a", 3]', "entry 2 needs a name"),
        (b'["a"', "damaged JSON"),
        (b"name,id\nx,1\n,2\n", "line 3: no class name"),
    ],
)
def test_vocabulary_that_cannot_be_says_where(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "v.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_vocabulary(tmp_path / "v.txt")
