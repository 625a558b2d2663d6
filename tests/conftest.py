"""What every test may use. `shared` is the folder of real media, annotations and goldens; it is not in the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# One thread a process, children included, before torch and BLAS are imported: the tests' arrays are small, and as many
# processes as there are cores run side by side.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# A test may take as long as the machine needs.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Says what runs side by side under pytest-xdist: a file's tests stay together, all that start Ray are one group.

    The groups that take longest come first, so that no core is left with one of them at the end.
    """
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)
    for item in items:
        name = "ray" if item.get_closest_marker("ray") is not None else str(item.path)
        item.add_marker(pytest.mark.xdist_group(name))
