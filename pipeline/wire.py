"""Messages between the sandbox and its child: a JSON header, then raw array bytes. Nothing is ever unpickled.

On the pipe: 4 bytes (big-endian) length of the header, the header (UTF-8 JSON), the arrays' bytes in the order of its
"arrays" list of [dtype, shape]. Only the dtypes below exist on the wire.
"""

from __future__ import annotations

import json
import math
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = {"u1": np.uint8, "i4": np.int32, "f4": np.float32, "b1": np.bool_}
_CODES = {np.dtype(kind): code for code, kind in DTYPES.items()}
# A header lists a window's clips; one beyond this is no header of ours.
_MAX_HEADER_BYTES = 64 << 20

Message = dict[str, Any]
Arrays = list[NDArray[Any]]


class Silence(Exception):
    """Nothing came within the time allowed."""


def send(fd: int, message: Message, arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Writes one message; blocks until the other side has taken it."""
    forms = [[_CODES[array.dtype], list(array.shape)] for array in arrays]
    header = json.dumps({**message, "arrays": forms}).encode()
    _write(fd, len(header).to_bytes(4, "big") + header)
    for array in arrays:
        if array.nbytes:
            _write(fd, memoryview(np.ascontiguousarray(array)).cast("B"))


def receive(fd: int, wait_s: Callable[[], float] = lambda: math.inf) -> tuple[Message, Arrays]:
    """Reads one message, its arrays straight into their own memory.

    Args:
        wait_s: asked before each wait: how long it may last.

    Raises:
        EOFError: the other side is gone.
        Silence: nothing came for that long.
        ValueError: what came is not a message.
    """
    length = int.from_bytes(_read(fd, 4, wait_s), "big")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"a message header of {length} bytes")
    message = json.loads(bytes(_read(fd, length, wait_s)))
    arrays: Arrays = []
    for code, shape in message.pop("arrays"):
        array = np.empty(shape, DTYPES[code])
        if array.nbytes:
            _fill(fd, memoryview(array).cast("B"), wait_s)
        arrays.append(array)
    return message, arrays


def _write(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _read(fd: int, size: int, wait_s: Callable[[], float]) -> bytearray:
    data = bytearray(size)
    if size:
        _fill(fd, memoryview(data), wait_s)
    return data


def _fill(fd: int, view: memoryview, wait_s: Callable[[], float]) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while view:
        deadline_s = time.monotonic() + wait_s()
        while not poll.poll(_milliseconds(deadline_s - time.monotonic())):
            if time.monotonic() >= deadline_s:
                raise Silence
        count = os.readv(fd, [view])
        if not count:
            raise EOFError
        view = view[count:]


def _milliseconds(seconds: float) -> float:
    return max(0.0, min(seconds, 3600.0)) * 1000
