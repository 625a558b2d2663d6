"""The planted data set and store as a fixture: tests are not a package, so its module is loaded by path."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.heads import planted as planted_module


@pytest.fixture(scope="session")
def planted() -> ModuleType:
    return planted_module


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors: a second thread only waits, and on a busy machine it waits long."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
