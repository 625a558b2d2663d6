"""What lives in Ray's worker processes: plain classes over `unit.py`.

Their constructors do nothing that can fail: an error while an encoder is loaded must reach the driver as an error with
a message, not as a worker that died.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pipeline.executors.job import Job
from pipeline.plan import Unit
from pipeline.unit import Event, UnitEncoder, UnitResult, decode_unit, one_thread, run_unit


class _Worker:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._recipes = job.by_name()
        self._stack = contextlib.ExitStack()

    def ping(self) -> None:
        """Answers if alive."""


class FusedWorker(_Worker):
    """Decodes and encodes whole units: on a machine without GPU frames need not travel."""

    def start(self) -> None:
        """Loads the encoders and starts the decoding child."""
        self._encoders = self._job.load_encoders()
        self._stack.enter_context(one_thread())
        self._sandbox = self._stack.enter_context(self._job.new_sandbox())

    def run(self, unit: Unit) -> UnitResult:
        """One unit, or one video alone on trial."""
        return run_unit(unit, self._recipes, self._encoders, self._sandbox, self._job.local_copy)


class DecodeWorker(_Worker):
    """Decodes units for encoders in other processes."""

    def start(self) -> None:
        """Starts the decoding child."""
        self._stack.enter_context(one_thread())
        self._sandbox = self._stack.enter_context(self._job.new_sandbox())

    def decode(self, unit: Unit) -> Iterator[Event]:
        """The unit's events, one object each."""
        yield from decode_unit(unit, self._recipes, self._sandbox, self._job.local_copy)


class EncodeWorker(_Worker):
    """Encodes the events of several units at a time, each unit's apart: batches never mix units."""

    def start(self) -> None:
        """Loads the encoders."""
        self._open: dict[int, UnitEncoder] = {}
        self._encoders = self._job.load_encoders()
        self._stack.enter_context(one_thread())

    def begin(self, key: int, unit: Unit) -> None:
        """A unit's events follow under `key`."""
        self._open[key] = UnitEncoder(unit, self._encoders)

    def feed(self, key: int, event: Event) -> None:
        """One event, in order."""
        self._open[key].add(event)

    def finish(self, key: int) -> UnitResult:
        """The unit's result."""
        return self._open.pop(key).finish()

    def drop(self, key: int) -> None:
        """The unit's decoder died; the unit comes again under another key."""
        self._open.pop(key, None)
