"""Arrangements of Ray actors: each decodes and encodes, or some decode and others encode.

Clips go through Ray's object store only from decode to encode actors, a few windows at a time; results are small.
"""

from __future__ import annotations

import abc
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.executors.ray_actors import DecodeWorker, EncodeWorker, FusedWorker, Job
from pipeline.executors.ray_cluster import (
    RaySettings,
    alive,
    await_start,
    deaths,
    end_actor,
    get,
    new_actor,
    ready,
    refuse_broken_start,
)
from pipeline.executors.suspects import Task, WorkersKeepDying
from pipeline.unit import UnitResult

# Windows that a decode actor may make ahead, and as many on their way to the encode actor.
WINDOWS_AHEAD = 2
ENCODER_STARTS = 3

# What a call came to: (the task, None where the worker had none; its result, None where the worker died).
Finished = tuple[Task | None, UnitResult | None]


class Crew(abc.ABC):
    """Actors of some arrangement. A finished task without a result is one whose worker died; a dead worker without a
    task died while it started or waited."""

    def __init__(self) -> None:
        self._idle: list[Any] = []
        self._died_idle = 0  # workers, not told yet

    @property
    def idle(self) -> bool:
        """Whether a living worker waits for a task.

        One that was killed while it waited is replaced: given a task, its death would be charged to that task.
        """
        while self._idle:
            if alive(self._idle[-1]):
                return True
            end_actor(self._idle.pop())
            self._hire()
            self._died_idle += 1
        return False

    @abc.abstractmethod
    def give(self, task: Task) -> None:
        """Gives an idle worker a task."""

    @abc.abstractmethod
    def finished(self, timeout_s: float) -> list[Finished]:
        """What has come to an end, after at most `timeout_s`."""

    @abc.abstractmethod
    def end(self) -> None:
        """Ends the actors."""

    @abc.abstractmethod
    def _hire(self) -> None:
        """Starts another worker; it becomes idle when it has started."""

    def _told_idle_deaths(self) -> list[Finished]:
        told: list[Finished] = [(None, None)] * self._died_idle
        self._died_idle = 0
        return told


class FusedCrew(Crew):
    """Each actor decodes and encodes."""

    def __init__(self, job: Job, workers: int, settings: RaySettings) -> None:
        super().__init__()
        self._make: Callable[[], Any] = lambda: new_actor(FusedWorker, job, workers, num_gpus=settings.num_gpus)
        # reference of the call in hand -> (actor, its task; None while it starts)
        self._busy: dict[Any, tuple[Any, Task | None]] = {}
        for _ in range(workers):
            self._hire()
        await_start(list(self._busy))

    def give(self, task: Task) -> None:
        actor = self._idle.pop()
        self._busy[actor.run.remote(task.unit)] = (actor, task)

    def finished(self, timeout_s: float) -> list[Finished]:
        found = self._told_idle_deaths()
        for reference in ready(list(self._busy), timeout_s):
            actor, task = self._busy.pop(reference)
            try:
                result = get(reference)
            except deaths() as error:
                refuse_broken_start(error)
                end_actor(actor)
                self._hire()
                found.append((task, None))
                continue
            self._idle.append(actor)
            if task is not None:
                found.append((task, result))
        return found

    def end(self) -> None:
        for actor in [*self._idle, *(actor for actor, _ in self._busy.values())]:
            end_actor(actor)

    def _hire(self) -> None:
        actor = self._make()
        self._busy[actor.start.remote()] = (actor, None)


@dataclass(eq=False)
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


_Step = Literal["start", "fed", "event", "finish"]


class SplitCrew(Crew):
    """Decode actors stream their clips, a window an object, to encode actors that hold the device."""

    def __init__(self, job: Job, workers: int, settings: RaySettings) -> None:
        super().__init__()
        self._make_decoder: Callable[[], Any] = lambda: new_actor(DecodeWorker, job, workers)
        self._make_encoder: Callable[[], Any] = lambda: new_actor(
            EncodeWorker, job, workers, num_gpus=settings.num_gpus
        )
        self._keys = itertools.count()
        self._starting: dict[Any, Any] = {}
        self._running: list[_Decoding] = []
        self._turn = 0
        # Decoders begin when the encoders are there: a broken checkpoint is then the first thing said.
        self._encoders = [self._started_encoder() for _ in range(settings.encode_workers)]
        for _ in range(workers):
            self._hire()
        await_start(list(self._starting))

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
        awaited: dict[Any, tuple[_Step, _Decoding | None]] = dict.fromkeys(self._starting, ("start", None))
        for running in self._running:
            awaited |= {handle: (step, running) for step, handle in _awaited(running)}
        found = self._told_idle_deaths()
        lost: list[_Decoding] = []
        for handle in ready(list(awaited), timeout_s):
            step, task_in_hand = awaited[handle]
            if task_in_hand is None:
                found += self._start_ended(handle)
            elif task_in_hand not in lost:
                try:
                    result = self._advance(task_in_hand, step)
                except deaths():
                    lost.append(task_in_hand)
                    continue
                if result is not None:
                    found.append((task_in_hand.task, result))
        if lost:
            found += self._replace(lost)
        return found

    def end(self) -> None:
        for actor in [
            *self._idle,
            *self._starting.values(),
            *(running.decoder for running in self._running if running.decoder is not None),
            *self._encoders,
        ]:
            end_actor(actor)

    def _start_ended(self, reference: Any) -> list[Finished]:
        decoder = self._starting.pop(reference)
        try:
            get(reference)
        except deaths() as error:
            refuse_broken_start(error)
            end_actor(decoder)
            self._hire()
            return [(None, None)]
        self._idle.append(decoder)
        return []

    def _advance(self, running: _Decoding, step: _Step) -> UnitResult | None:
        """One step: an event passed on, a call ended, or the result."""
        encoder = self._encoders[running.encoder]
        if step == "finish":
            result: UnitResult = get(running.finish)
            self._running.remove(running)
            return result
        if step == "fed":
            get(running.fed.popleft())
            return None
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

    def _replace(self, lost: list[_Decoding]) -> list[Finished]:
        """New actors for dead ones; every task that touched one has died with it."""
        for number, encoder in enumerate(self._encoders):
            if not alive(encoder):
                end_actor(encoder)
                self._encoders[number] = self._started_encoder()
                lost += [running for running in self._running if running.encoder == number and running not in lost]
        for running in lost:
            self._running.remove(running)
            self._encoders[running.encoder].drop.remote(running.key)
            if running.decoder is not None:
                # It may be alive and in the middle of the unit: a new one is simpler than asking.
                end_actor(running.decoder)
                self._hire()
        return [(running.task, None) for running in lost]

    def _started_encoder(self) -> Any:
        for _ in range(ENCODER_STARTS):
            encoder = self._make_encoder()
            try:
                get(encoder.start.remote())
            except deaths() as error:
                refuse_broken_start(error)
                end_actor(encoder)
            else:
                return encoder
        raise WorkersKeepDying(f"encode workers die while they start; {ENCODER_STARTS} did in a row")

    def _hire(self) -> None:
        decoder = self._make_decoder()
        self._starting[decoder.start.remote()] = decoder


def _awaited(running: _Decoding) -> Iterator[tuple[_Step, Any]]:
    """What the task in hand waits for: its oldest call, its next event (while few are on their way), its result.

    The result counts once every call is known to have ended well: of a decoder that died, events may be lost on the
    way, and the encode actor would end the unit without them.
    """
    if running.fed:
        yield "fed", running.fed[0]
    elif running.finish is not None:
        yield "finish", running.finish
    if running.events is not None and len(running.fed) < WINDOWS_AHEAD:
        yield "event", running.events
