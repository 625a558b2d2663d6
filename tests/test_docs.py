"""The pages of docs: every command runs as printed, in order, in an empty folder; every link leads somewhere.

A page's ```sh blocks are one script. A block that cannot run here has `<!-- not run: WHY -->` on the line before it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import random_weights

PROJECT = Path(__file__).resolve().parent.parent
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- not run: (?P<why>[^\n]+) -->\n)?```sh\n(?P<script>.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)")


def scripts(page: Path) -> list[str]:
    """The blocks of a page that are to run, in order."""
    return [found["script"] for found in BLOCK.finditer(page.read_text(encoding="utf-8")) if found["why"] is None]


def small_audioclip(folder: Path) -> None:
    """What `recipes.md` takes as given: a small checkpoint in AudioCLIP's layout and a file of class names."""
    made = random_weights.write("audioclip", "visual", folder, small=True)
    made["audioclip"].rename(folder / "small-audioclip.pt")
    (folder / "classes.txt").write_text("church bell\ndog barking\n", encoding="utf-8")


GIVEN: dict[str, Callable[[Path], None]] = {"recipes.md": small_audioclip}


def run_page(page: Path, tmp_path: Path) -> None:
    """Run the blocks of a page as one script in an empty folder."""
    programs, folder = tmp_path / "programs", tmp_path / "work"
    programs.mkdir()
    folder.mkdir()
    for name, words in (("avel", "-m jobs.cli.main"), ("python", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
    if page.name in GIVEN:
        GIVEN[page.name](folder)
    found = {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT), "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(scripts(page))],
        cwd=folder,
        env=os.environ | found,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("page", [page for page in PAGES[1:] if scripts(page)], ids=lambda page: page.name)
def test_commands_of_a_page_run_as_printed_in_an_empty_folder(page: Path, tmp_path: Path) -> None:
    run_page(page, tmp_path)


@pytest.mark.parametrize("page", [*PAGES, PROJECT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files_of_the_project(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).is_file(), f"{page.name} links to {target}"


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(LINK.findall((PROJECT / "README.md").read_text(encoding="utf-8")))
    assert {f"docs/{page.name}" for page in PAGES[1:]} <= linked
