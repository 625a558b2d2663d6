"""The planted data set and store as a fixture: tests are not a package, so its module is loaded by path."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def load_planted() -> ModuleType:
    spec = importlib.util.spec_from_file_location("planted", Path(__file__).resolve().parent / "planted.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def planted() -> ModuleType:
    return load_planted()
