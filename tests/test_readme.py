"""README: every command in it runs as printed, in order, in an empty folder."""

from __future__ import annotations

from pathlib import Path

from tests.test_docs import PAGES, run_page


def test_commands_of_the_readme_run_as_printed_in_an_empty_folder(tmp_path: Path) -> None:
    run_page(PAGES[0], tmp_path)
