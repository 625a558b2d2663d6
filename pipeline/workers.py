"""Units on Ray: actors that decode and encode, or actors that decode and others that encode; bounded, and mortal.

An actor has one task in hand and is never restarted or retried by Ray: a dead one is replaced here and its unit is
run again, with the account of deaths kept in `suspects.py`. Results are small; clips go through the object store only
between decode and encode actors, a few windows at a time.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from catalog.errors import AvelError
from pipeline.actors import DecodeWorker, EncodeWorker, FusedWorker, Job
from pipeline.plan import Unit
from pipeline.suspects import Suspects, Task, WorkersKeepDying
from pipeline.unit import UnitResult

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("catalog", "pipeline")

GIB = 2**30
# What an actor and its decoding child are expected to take at most; less where the node has less to give.
WORKER_MEMORY_BYTES = 2 * GIB
# Results of fused workers are features only. Split ones put windows of up to 32 MB there: 2 made ahead by the decoder
# and 2 on their way to the encoder, for each decode actor.
OBJECT_STORE_BYTES = 256 * 2**20
SPLIT_OBJECT_STORE_BYTES = 192 * 2**20
WINDOWS_AHEAD = 2

# Deaths without any finished unit in between, beyond which something else is wrong (no memory, a broken node).
DEATHS_IN_A_ROW = 12

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


@dataclass(frozen=True, kw_only=True)
class RaySettings:
    """How to use Ray.

    Attributes:
        address: of a running cluster; None starts a local one that ends with this process. A Ray that this process
            has started or joined already is used as it is.
        encode_workers: 0 fuses decoding and encoding in one actor; N gives encoders N actors of their own.
        num_gpus: of each encode actor (each fused actor where there are none); 0 on a CPU.
        verbose: show what Ray and the workers print.
    """

    address: str | None = None
    encode_workers: int = 0
    num_gpus: float = 0.0
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.encode_workers < 0 or self.num_gpus < 0:
            raise ValueError(f"encode_workers and num_gpus must be 0 or more, got {self}")


class RayExecutor:
    """Runs units on `workers` actors. A context manager: entering starts or joins Ray, leaving ends the actors."""

    def __init__(self, job: Job, *, workers: int, settings: RaySettings) -> None:
        self._job = job
        self._workers = workers
        self._settings = settings
        self._todo: deque[Task] = deque()
        self._suspects = Suspects()
        self._deaths = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> RayExecutor:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_connected(self._settings, self._workers))
            stack.callback(self._end_actors)
            self._crew: _Crew = (
                _SplitCrew(self._job, self._workers, self._settings)
                if self._settings.encode_workers
                else _FusedCrew(self._job, self._workers, self._settings)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def submit(self, unit: Unit) -> None:
        """Queues a unit."""
        self._todo.append(Task(unit=unit))

    def wait(self, timeout_s: float) -> list[UnitResult]:
        """The units that have finished, after at most `timeout_s`; raises what a worker raised.

        Raises:
            WorkersKeepDying: worker processes die without a video to blame.
        """
        while self._todo and self._crew.idle:
            self._crew.give(self._todo.popleft())
        results = []
        for task, result in self._crew.finished(timeout_s):
            if task is None or result is None:
                self._died(task)
                continue
            self._deaths = 0
            # What follows from a trial goes first: the units behind it wait for their turn to be appended.
            self._todo.extendleft(reversed(self._suspects.passed(task)))
            if not task.trial:
                results.append(result)
        return results

    def _died(self, task: Task | None) -> None:
        self._deaths += 1
        if self._deaths > DEATHS_IN_A_ROW + 2 * self._workers:
            raise WorkersKeepDying(
                f"{self._deaths} worker processes died in a row; the last ones may say why with --verbose. "
                "Is the machine short of memory? Try fewer --workers"
            )
        if task is not None:
            self._todo.extendleft(reversed(self._suspects.died(task)))

    def _end_actors(self) -> None:
        if hasattr(self, "_crew"):
            self._crew.end()


# What a call came to: (the task, None where the worker was only starting; its result, None where the worker died).
Finished = tuple[Task | None, UnitResult | None]


class _Crew:
    """Actors of some arrangement. A finished task without a result is one whose worker died; a dead worker without a
    task died while it started."""

    @property
    def idle(self) -> bool:
        """Whether a worker waits for a task."""
        raise NotImplementedError

    def give(self, task: Task) -> None:
        """Gives an idle worker a task."""
        raise NotImplementedError

    def finished(self, timeout_s: float) -> list[Finished]:
        """What has come to an end, after at most `timeout_s`."""
        raise NotImplementedError

    def end(self) -> None:
        """Ends the actors."""
        raise NotImplementedError


class _FusedCrew(_Crew):
    """Each actor decodes and encodes."""

    def __init__(self, job: Job, workers: int, settings: RaySettings) -> None:
        self._make: Callable[[], Any] = lambda: _new_actor(FusedWorker, job, workers, num_gpus=settings.num_gpus)
        self._idle: list[Any] = []
        # reference of the call in hand -> (actor, its task; None while it starts)
        self._busy: dict[Any, tuple[Any, Task | None]] = {}
        for _ in range(workers):
            self._hire()

    @property
    def idle(self) -> bool:
        return bool(self._idle)

    def give(self, task: Task) -> None:
        actor = self._idle.pop()
        self._busy[actor.run.remote(task.unit)] = (actor, task)

    def finished(self, timeout_s: float) -> list[Finished]:
        found: list[Finished] = []
        for reference in _ready(list(self._busy), timeout_s):
            actor, task = self._busy.pop(reference)
            try:
                result = _ray().get(reference)
            except _deaths():
                _end(actor)
                self._hire()
                found.append((task, None))
                continue
            self._idle.append(actor)
            if task is not None:
                found.append((task, result))
        return found

    def end(self) -> None:
        for actor in [*self._idle, *(actor for actor, _ in self._busy.values())]:
            _end(actor)

    def _hire(self) -> None:
        actor = self._make()
        self._busy[actor.start.remote()] = (actor, None)


@dataclass
class _Decoding:
    """A task on its way through a decode actor and an encode actor.

    Attributes:
        key: names the attempt at the encode actor.
        events: Ray's generator of the unit's events; None once it is at its end.
        fed: calls of the encode actor that are not known to have ended, oldest first.
        finish: the call that gives the unit's result.
    """

    task: Task
    decoder: Any
    encoder: int
    key: int
    events: Any
    fed: deque[Any] = field(default_factory=deque)
    finish: Any = None


class _SplitCrew(_Crew):
    """Decode actors stream their clips, a window an object, to encode actors that hold the device."""

    def __init__(self, job: Job, workers: int, settings: RaySettings) -> None:
        self._make_decoder: Callable[[], Any] = lambda: _new_actor(DecodeWorker, job, workers)
        self._make_encoder: Callable[[], Any] = lambda: _new_actor(
            EncodeWorker, job, workers, num_gpus=settings.num_gpus
        )
        self._keys = itertools.count()
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._running: list[_Decoding] = []
        self._turn = 0
        self._encoders = [self._make_encoder() for _ in range(settings.encode_workers)]
        # A decoder begins only when the encoders are there: a broken checkpoint is then the first thing said.
        _ray().get([encoder.start.remote() for encoder in self._encoders])
        for _ in range(workers):
            self._hire()

    @property
    def idle(self) -> bool:
        return bool(self._idle)

    def give(self, task: Task) -> None:
        decoder = self._idle.pop()
        key = next(self._keys)
        self._turn = (self._turn + 1) % len(self._encoders)
        running = _Decoding(
            task=task,
            decoder=decoder,
            encoder=self._turn,
            key=key,
            events=decoder.decode.options(
                num_returns="streaming", _generator_backpressure_num_objects=WINDOWS_AHEAD
            ).remote(task.unit),
        )
        running.fed.append(self._encoders[self._turn].begin.remote(key, task.unit))
        self._running.append(running)

    def finished(self, timeout_s: float) -> list[Finished]:
        waited: dict[Any, _Decoding | None] = dict.fromkeys(self._starting)
        for running in self._running:
            for handle in self._awaited(running):
                waited[handle] = running
        found: list[Finished] = []
        lost: list[_Decoding] = []
        for handle in _ready(list(waited), timeout_s):
            running_or_none = waited[handle]
            if running_or_none is None:
                decoder = self._starting.pop(handle)
                try:
                    _ray().get(handle)
                    self._idle.append(decoder)
                except _deaths():
                    _end(decoder)
                    self._hire()
                    found.append((None, None))
            elif running_or_none not in lost:
                try:
                    result = self._advance(running_or_none, handle)
                except _deaths():
                    lost.append(running_or_none)
                    continue
                if result is not None:
                    found.append((running_or_none.task, result))
        if lost:
            found += self._replace(lost)
        return found

    def end(self) -> None:
        for actor in [
            *self._idle,
            *self._starting.values(),
            *(running.decoder for running in self._running),
            *self._encoders,
        ]:
            _end(actor)

    def _awaited(self, running: _Decoding) -> Iterator[Any]:
        if running.fed:
            yield running.fed[0]
        if running.events is not None and len(running.fed) < WINDOWS_AHEAD:
            yield running.events
        if running.finish is not None:
            yield running.finish

    def _advance(self, running: _Decoding, handle: Any) -> UnitResult | None:
        """One step: an event passed on, a call ended, or the result."""
        encoder = self._encoders[running.encoder]
        if handle is running.finish:
            result: UnitResult = _ray().get(handle)
            self._running.remove(running)
            return result
        if handle is running.events:
            try:
                event = next(running.events)
            except StopIteration:
                running.events = None
                running.finish = encoder.finish.remote(running.key)
                # The decoder is free for the next unit while the encoder ends this one.
                self._idle.append(running.decoder)
                running.decoder = None
                return None
            running.fed.append(encoder.feed.remote(running.key, event))
            return None
        _ray().get(running.fed.popleft())
        return None

    def _replace(self, lost: list[_Decoding]) -> list[Finished]:
        """New actors for dead ones; every task that touched one has died with it."""
        for number, encoder in enumerate(self._encoders):
            try:
                _ray().get(encoder.ping.remote())
            except _deaths():
                _end(encoder)
                self._encoders[number] = self._make_encoder()
                _ray().get(self._encoders[number].start.remote())
                lost += [running for running in self._running if running.encoder == number and running not in lost]
        for running in lost:
            self._running.remove(running)
            self._encoders[running.encoder].drop.remote(running.key)
            if running.decoder is not None:
                # It may be alive and in the middle of the unit: a new one is simpler than asking.
                _end(running.decoder)
                self._hire()
        return [(running.task, None) for running in lost]

    def _hire(self) -> None:
        decoder = self._make_decoder()
        self._starting[decoder.start.remote()] = decoder


def _new_actor(kind: type[Any], job: Job, workers: int, *, num_gpus: float = 0.0) -> Any:
    total_bytes = _ray().cluster_resources().get("memory", WORKER_MEMORY_BYTES)
    # Ray counts this memory, it does not enforce it: with too much asked for the actor would wait for ever.
    share_bytes = int(min(WORKER_MEMORY_BYTES, 0.8 * total_bytes / (workers + 1)))
    return (
        _ray()
        .remote(kind)
        .options(num_cpus=1, num_gpus=num_gpus, memory=share_bytes, max_restarts=0, max_task_retries=0)
        .remote(job)
    )


def _end(actor: Any) -> None:
    # An actor that is dead already cannot be killed again, and that is all that is wanted.
    with contextlib.suppress(*_deaths()):
        _ray().kill(actor, no_restart=True)


def _ready(handles: list[Any], timeout_s: float) -> list[Any]:
    if not handles:
        return []
    first, rest = _ray().wait(handles, num_returns=1, timeout=timeout_s, fetch_local=False)
    if first and rest:
        more, _ = _ray().wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)
        first += more
    return list(first)


def _ray() -> Any:
    """Ray, imported only where it is used: the command line's other verbs must not wait for it."""
    try:
        import ray
    except ImportError as error:
        raise AvelError(f"the Ray executor needs Ray ({error}); install it, or use --executor local") from error
    return ray


def _deaths() -> tuple[type[BaseException], ...]:
    """What Ray raises where a process has died or what it held is gone."""
    from ray import exceptions

    return (
        exceptions.RayActorError,
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
    )


@contextlib.contextmanager
def _connected(settings: RaySettings, workers: int) -> Iterator[None]:
    """Ray, started or joined; what this process had of it before is left as it was."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    # Ray sets its own SIGTERM handler, which would exit without a commit.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    options: dict[str, Any] = {
        "log_to_driver": settings.verbose,
        "logging_level": "INFO" if settings.verbose else "ERROR",
    }
    if settings.address is None:
        split = settings.encode_workers > 0
        options |= {
            "address": "local",
            "num_cpus": workers + settings.encode_workers,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES + (SPLIT_OBJECT_STORE_BYTES * workers if split else 0),
        }
    else:
        # The nodes have the dependencies; the project itself travels, so that they run this very code.
        packages = [str(PROJECT / name) for name in PACKAGES]
        options |= {"address": settings.address, "runtime_env": {"py_modules": packages}}
    try:
        ray.init(**options)
    except ConnectionError as error:
        raise AvelError(f"no Ray cluster answers at {settings.address}: {error}") from error
    try:
        if _in_main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
        yield
    finally:
        ray.shutdown()


def _in_main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()
