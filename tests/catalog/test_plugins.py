"""Plug-ins are found by the names of files and folders; finding them imports nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from catalog.plugins import Plugins


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "rooms_of_plugins"
    for name in ("whole", "partial", "not-a-name"):
        (folder / name).mkdir(parents=True)
    for path in ("__init__", "single", "broken", "_private", "not-a-name", "whole/part", "partial/other"):
        (folder / f"{path}.py").write_text("raise ImportError" if path == "broken" else f"NAME = {path!r}")
    (folder / "not-a-name" / "part.py").touch()
    (folder / "text.txt").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder.name


def test_names_are_those_of_files_and_of_folders_with_the_part(package: str) -> None:
    assert Plugins(package=package, part="part", noun="room").names() == ("broken", "single", "whole")
    assert Plugins(package=package, noun="room").names() == ("broken", "single")
    assert not {name for name in sys.modules if name.startswith(f"{package}.")}


def test_load_gives_the_file_or_the_folders_part(package: str) -> None:
    rooms = Plugins(package=package, part="part", noun="room")
    assert [rooms.load(name).NAME for name in ("single", "whole")] == ["single", "whole/part"]


@pytest.mark.parametrize("name", ["partial", "_private", "whole.part", "os", ""])
def test_load_of_another_name_lists_those_there_are(package: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"there is no room {name!r}; there are broken, single, whole"):
        Plugins(package=package, part="part", noun="room").load(name)
