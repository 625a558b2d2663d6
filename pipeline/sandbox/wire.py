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
Clock = Callable[[], float]


class Silence(Exception):
    """Nothing came within the time allowed."""


def send(fd: int, message: Message, arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Writes one message; blocks until the other side has taken it."""
    forms = [[_CODES[array.dtype], list(array.shape)] for array in arrays]
    header = json.dumps({**message, "arrays": forms}).encode()
    _write(fd, len(header).to_bytes(4, "big") + header)
    for array in arrays:
        if array.nbytes:
            _write(fd, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def receive(
    fd: int, *, idle_s: float = math.inf, deadline_s: float = math.inf, clock: Clock = time.monotonic
) -> tuple[Message, Arrays]:
    """Reads one message, its arrays straight into their own memory.

    Args:
        idle_s: how long to wait for each next byte.
        deadline_s: when all must have come, by `clock`.
        clock: seconds that only grow.

    Raises:
        EOFError: the other side is gone.
        Silence: nothing came for `idle_s`, or not all by `deadline_s`.
        ValueError: what came is not a message.
    """

    def fill(view: memoryview) -> None:
        _fill(fd, view, idle_s, deadline_s, clock)

    size = bytearray(4)
    fill(memoryview(size))
    length = int.from_bytes(size, "big")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"a message header of {length} bytes")
    header = bytearray(length)
    fill(memoryview(header))
    message = json.loads(header)
    arrays: Arrays = []
    for code, shape in message.pop("arrays"):
        array = np.empty(shape, DTYPES[code])
        fill(array.reshape(-1).view(np.uint8).data)
        arrays.append(array)
    return message, arrays


def _write(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _fill(fd: int, view: memoryview, idle_s: float, deadline_s: float, clock: Clock) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while view:
        until_s = min(deadline_s, clock() + idle_s)
        while not poll.poll(max(0.0, min(until_s - clock(), 3600.0)) * 1000):
            if clock() >= until_s:
                raise Silence
        count = os.readv(fd, [view])
        if not count:
            raise EOFError
        view = view[count:]
