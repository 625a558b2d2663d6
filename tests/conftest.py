"""What every test may use. `shared` is the folder of real media, annotations and goldens; it is not in the project."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that start Ray come first: they take longest, and no core is to be left with them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduler | None:
    """Which tests run side by side under `--dist loadscope`."""
    return Scheduler(config, log) if config.getvalue("dist") == "loadscope" else None


class Scheduler(LoadScopeScheduling):  # type: ignore[misc]  # untyped
    """A file's tests stay in one process, and all that start Ray in the same one: clusters do not fight for the cores.

    `--dist loadgroup`, which does that by marks, groups nothing with xdist 3.8 under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", maxsplit=1)[0]
        return "ray" if _starts_ray(file) else file


@functools.cache
def _starts_ray(file: str) -> bool:
    return "pytest.mark.ray" in (PROJECT / file).read_text(encoding="utf-8")
