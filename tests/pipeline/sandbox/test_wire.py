"""Messages over a pipe: they come back equal, and silence, an end and nonsense are different errors."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.sandbox import wire


def test_wire_message_and_arrays_come_back_equal() -> None:
    read, write = os.pipe()
    arrays: list[NDArray[Any]] = [
        np.arange(24, dtype=np.uint8).reshape(2, 4, 3)[:, ::2],
        np.zeros((0, 5, 3), np.uint8),
        np.array([[-1, 7]], np.int32),
        np.array([0.5, np.inf], np.float32),
        np.array([True, False]),
    ]
    wire.send(write, {"kind": "x", "path": "a\udcffb"}, arrays)
    message, got = wire.receive(read)
    assert message == {"kind": "x", "path": "a\udcffb"}
    for array, want in zip(got, arrays, strict=True):
        assert array.dtype == want.dtype
        np.testing.assert_array_equal(array, want)
    os.close(write)
    with pytest.raises(EOFError):
        wire.receive(read)
    os.close(read)


def test_wire_silence_and_nonsense_are_told_apart() -> None:
    read, write = os.pipe()
    with pytest.raises(wire.Silence):
        wire.receive(read, idle_s=0.01)
    with pytest.raises(wire.Silence):
        wire.receive(read, deadline_s=time.monotonic())
    os.write(write, b"\xff\xff\xff\xff")
    with pytest.raises(ValueError, match="header of 4294967295 bytes"):
        wire.receive(read)
    os.close(read)
    os.close(write)
