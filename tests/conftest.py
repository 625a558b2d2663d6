"""What every test may use. `shared` is the folder of real media, annotations and goldens; it is not in the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent


def shared_folder() -> Path | None:
    """The folder of real media and goldens: $AVEL_SHARED, or `shared` beside the project; None where absent."""
    folder = Path(os.environ.get("AVEL_SHARED", PROJECT.parent / "shared"))
    return folder if (folder / "data").is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = shared_folder()
    if folder is None:
        pytest.skip("the folder of real media is not here; set AVEL_SHARED to it")
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=None, help="how often test_kills.py kills each executor")
