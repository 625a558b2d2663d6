"""The in-process executor: lanes of two threads, one that drives a decoding child and one that encodes.

While a lane encodes one unit its child decodes the next, so a lane takes as long as the slower of the two. Between
them at most `CHANNEL_BYTES` of clips wait.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from catalog.recipe import Recipe
from pipeline.plan import Unit
from pipeline.unit import ClipEncoder, DecodingSandbox, Event, Stopped, UnitEncoder, UnitResult, decode_unit

CHANNEL_BYTES = 32 * 2**20
MAX_EVENTS = 64
# For an encoder's batch or a remote file's copy in hand; the thread is a daemon and ends with the process anyway.
JOIN_S = 5.0


class Lanes:
    """Runs units on `workers` lanes of this process.

    Args:
        recipes: by name; encoders: by the same names, shared by all lanes.
        workers: how many lanes, each with its decoding child.
        new_sandbox: makes a decoding child's context manager; called in the lane's own thread, which outlives the
            child, because the kernel ties the child's life to the thread that started it.
        local_copy: brings a uri's medium to a local path.
    """

    def __init__(
        self,
        recipes: Sequence[Recipe],
        encoders: Mapping[str, ClipEncoder],
        *,
        workers: int,
        new_sandbox: Callable[[], AbstractContextManager[DecodingSandbox]],
        local_copy: Callable[[str], AbstractContextManager[Path | str]],
    ) -> None:
        self._recipes = {recipe.name: recipe for recipe in recipes}
        self._encoders = encoders
        self._new_sandbox = new_sandbox
        self._local_copy = local_copy
        self._todo: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[UnitResult | BaseException] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._channels: list[_Channel] = []
        self._sandboxes: list[DecodingSandbox] = []
        for lane in range(workers):
            channel = _Channel()
            self._channels.append(channel)
            for name, work in (("decode", self._decode), ("encode", self._encode)):
                # Daemons: a second signal must be able to end the process while a lane is busy.
                thread = threading.Thread(target=work, args=(channel,), name=f"{name}-{lane}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def submit(self, unit: Unit) -> None:
        """Queues a unit."""
        self._todo.put(unit)

    def wait(self, timeout_s: float) -> list[UnitResult]:
        """The units that have finished, after at most `timeout_s`; raises what a lane raised."""
        try:
            found = [self._results.get(timeout=timeout_s)]
        except queue.Empty:
            return []
        while not self._results.empty():
            found.append(self._results.get())
        for item in found:
            if isinstance(item, BaseException):
                raise item
        return [item for item in found if isinstance(item, UnitResult)]

    def close(self) -> None:
        """Ends the lanes; units in hand are given up."""
        self._stopping.set()
        for channel in self._channels:
            channel.close()
            self._todo.put(None)
        for sandbox in self._sandboxes:
            # A lane that waits for its child sees it die and then sees that it is to stop.
            if (pid := sandbox.child_pid) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for thread in self._threads:
            thread.join(timeout=JOIN_S)

    def _decode(self, channel: _Channel) -> None:
        try:
            with self._new_sandbox() as sandbox:
                self._sandboxes.append(sandbox)
                while (unit := self._todo.get()) is not None and not self._stopping.is_set():
                    channel.put(unit)
                    for event in decode_unit(
                        unit, self._recipes, sandbox, self._local_copy, stopping=self._stopping.is_set
                    ):
                        channel.put(event)
                    channel.put(None)
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  # handed to the driver, which raises it in its own thread
            self._results.put(error)

    def _encode(self, channel: _Channel) -> None:
        try:
            encoder: UnitEncoder | None = None
            while True:
                item = channel.get()
                if isinstance(item, Unit):
                    encoder = UnitEncoder(item, self._encoders)
                    continue
                assert encoder is not None, "an event came before its unit"
                if item is None:
                    self._results.put(encoder.finish())
                    encoder = None
                else:
                    encoder.add(item)
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  # handed to the driver, which raises it in its own thread
            self._results.put(error)


class _Channel:
    """What lies between a lane's two threads: bounded by bytes of clips, but never less than one window."""

    def __init__(self) -> None:
        self._items: deque[tuple[Unit | Event | None, int]] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: Unit | Event | None) -> None:
        """Waits for room; raises Stopped once closed."""
        size = item.nbytes if item is not None and not isinstance(item, Unit) else 0
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(size))
            if self._closed:
                raise Stopped
            self._items.append((item, size))
            self._bytes += size
            self._changed.notify_all()

    def get(self) -> Unit | Event | None:
        """Waits for an item; raises Stopped once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._items))
            if self._closed:
                raise Stopped
            item, size = self._items.popleft()
            self._bytes -= size
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Both ends raise Stopped from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        return len(self._items) < MAX_EVENTS and (self._bytes == 0 or self._bytes + size <= CHANNEL_BYTES)
