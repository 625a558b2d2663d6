"""Signals of long-running verbs: the first asks for an orderly stop, the second ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def stoppable(verb: str, when: str) -> Iterator[tuple[threading.Event, list[int]]]:
    """The first SIGINT or SIGTERM sets the event; the second ends the process at once (children die with it)."""
    stop = threading.Event()
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        received.append(number)
        if len(received) > 1:
            os._exit(128 + number)
        stop.set()
        os.write(2, f"{verb}: stopping {when}; a second signal stops at once\n".encode())

    if threading.current_thread() is not threading.main_thread():
        yield stop, received
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop, received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
