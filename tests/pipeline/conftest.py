"""Encoders of a test's own beside the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import pipeline.encoders
from tests.pipeline.planted_encoders import clear


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A second folder in which encoders are found."""
    monkeypatch.setattr(pipeline.encoders, "__path__", [*pipeline.encoders.__path__, str(tmp_path)])
    clear()
    yield tmp_path
    clear()
