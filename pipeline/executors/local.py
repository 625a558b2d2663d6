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

from pipeline.executors.job import Job
from pipeline.plan import Unit
from pipeline.unit import DecodingSandbox, Event, Stopped, UnitEncoder, UnitResult, decode_unit, one_thread

CHANNEL_BYTES = 32 * 2**20
CHANNEL_ITEMS = 64
# For an encoder's batch or a remote file's copy in hand; the thread is a daemon and ends with the process anyway.
JOIN_S = 5.0


class LocalExecutor:
    """Runs units on `workers` lanes of this process. A context manager: entering loads the encoders, leaving ends all.

    Args:
        job: its encoders are shared by all lanes; each lane has a decoding child, which its own thread starts: the
            kernel ties the child's life to that thread.
        workers: how many lanes.
    """

    def __init__(self, job: Job, *, workers: int) -> None:
        self._job = job
        self._recipes = job.by_name()
        self._workers = self.workers_up = workers
        self._todo: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[UnitResult | BaseException] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._channels: list[Channel] = []
        self._sandboxes: list[DecodingSandbox] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> LocalExecutor:
        self._encoders = self._job.load_encoders()
        self._stack.enter_context(one_thread())
        self._stack.callback(self._end_lanes)
        for lane in range(self._workers):
            channel = Channel()
            self._channels.append(channel)
            for name, work in (("decode", self._decode), ("encode", self._encode)):
                # Daemons: a second signal must be able to end the process while a lane is busy.
                thread = threading.Thread(target=work, args=(channel,), name=f"{name}-{lane}", daemon=True)
                self._threads.append(thread)
                thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

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

    def _end_lanes(self) -> None:
        """Units in hand are given up."""
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

    def _decode(self, channel: Channel) -> None:
        try:
            with self._job.new_sandbox() as sandbox:
                self._sandboxes.append(sandbox)
                while (unit := self._todo.get()) is not None and not self._stopping.is_set():
                    channel.put(unit)
                    for event in decode_unit(
                        unit, self._recipes, sandbox, self._job.local_copy, stopping=self._stopping.is_set
                    ):
                        channel.put(event)
                    channel.put(None)
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  # handed to the driver, which raises it in its own thread
            self._results.put(error)

    def _encode(self, channel: Channel) -> None:
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


class Channel:
    """The queue between a lane's two threads: bounded by bytes of clips, but one window always fits.

    Args:
        max_bytes: of clips; max_items: units and events.
    """

    def __init__(self, *, max_bytes: int = CHANNEL_BYTES, max_items: int = CHANNEL_ITEMS) -> None:
        self._max_bytes, self._max_items = max_bytes, max_items
        self._items: deque[tuple[Unit | Event | None, int]] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: Unit | Event | None) -> None:
        """Waits for room; raises Stopped once closed."""
        size = item.nbytes if item is not None and not isinstance(item, Unit) else 0
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.has_room(size))
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

    def has_room(self, size: int) -> bool:
        return len(self._items) < self._max_items and (self._bytes == 0 or self._bytes + size <= self._max_bytes)
