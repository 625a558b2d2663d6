"""Arrangements of Ray actors: each decodes and encodes, or some decode and others encode.

Clips go through Ray's object store only from decode to encode actors, a few windows at a time; results are small.
"""

from __future__ import annotations

import abc
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from pipeline.executors.job import Job
from pipeline.executors.ray_actors import DecodeWorker, EncodeWorker, FusedWorker
from pipeline.executors.ray_cluster import (
    Actor,
    RayCluster,
    RaySettings,
    Reference,
    StartWatch,
    refuse_broken_start,
)
from pipeline.executors.suspects import Assignment, WorkersKeepDying
from pipeline.unit import UnitResult

# Windows that a decode actor may make ahead, and as many on their way to the encode actor.
WINDOWS_AHEAD = 2
ENCODER_STARTS = 3
_LOOK_S = 1.0

# (the assignment, None where the worker had none; its result, None where the worker died)
Finished = tuple[Assignment | None, UnitResult | None]


class Crew(abc.ABC):
    """Actors of some arrangement.

    A finished assignment without a result is one whose worker died; a dead worker without an assignment died while it
    started or waited.
    """

    def __init__(self, cluster: RayCluster, workers: int) -> None:
        self._cluster = cluster
        self._watch = StartWatch(cluster, workers)
        self._idle: list[Actor] = []
        self._died_idle = 0  # workers, not yet reported by `finished`

    @property
    def idle(self) -> bool:
        """Whether a living worker waits for an assignment.

        One that was killed while it waited is replaced: its death would be charged to the assignment that it gets.
        """
        while self._idle:
            if self._cluster.alive(self._idle[-1]):
                return True
            self._cluster.end(self._idle.pop())
            self._hire()
            self._died_idle += 1
        return False

    @property
    @abc.abstractmethod
    def starting(self) -> int:
        """Workers that are hired and not up yet."""

    def watch(self) -> None:
        """Says so where workers have not started for long."""
        self._watch.look(self.starting)

    @abc.abstractmethod
    def give(self, assignment: Assignment) -> None:
        """Gives an idle worker an assignment."""

    @abc.abstractmethod
    def finished(self, timeout_s: float) -> list[Finished]:
        """The assignments that have ended, after at most `timeout_s`."""

    @abc.abstractmethod
    def end(self) -> None:
        """Ends the actors."""

    @abc.abstractmethod
    def _hire(self) -> None:
        """Starts another worker; it becomes idle when it has started."""

    def _idle_deaths(self) -> list[Finished]:
        found: list[Finished] = [(None, None)] * self._died_idle
        self._died_idle = 0
        return found


class FusedCrew(Crew):
    """Each actor decodes and encodes."""

    def __init__(self, cluster: RayCluster, job: Job, workers: int, settings: RaySettings) -> None:
        super().__init__(cluster, workers)
        self._make: Callable[[], Actor] = lambda: cluster.hire(FusedWorker, job, workers, num_gpus=settings.num_gpus)
        # reference of the call in hand -> (actor, its assignment; None while it starts)
        self._busy: dict[Reference, tuple[Actor, Assignment | None]] = {}
        for _ in range(workers):
            self._hire()
        self._cluster.await_start(list(self._busy))

    @property
    def starting(self) -> int:
        return sum(assignment is None for _, assignment in self._busy.values())

    def give(self, assignment: Assignment) -> None:
        actor = self._idle.pop()
        self._busy[actor.run.remote(assignment.unit)] = (actor, assignment)

    def finished(self, timeout_s: float) -> list[Finished]:
        found = self._idle_deaths()
        for reference in self._cluster.ready(list(self._busy), timeout_s):
            actor, assignment = self._busy.pop(reference)
            try:
                result = self._cluster.get(reference)
            except self._cluster.deaths as error:
                refuse_broken_start(error)
                self._cluster.end(actor)
                self._hire()
                found.append((assignment, None))
                continue
            self._idle.append(actor)
            if assignment is not None:
                found.append((assignment, result))
        return found

    def end(self) -> None:
        for actor in [*self._idle, *(actor for actor, _ in self._busy.values())]:
            self._cluster.end(actor)

    def _hire(self) -> None:
        actor = self._make()
        self._busy[actor.start.remote()] = (actor, None)


@dataclass(eq=False)
class _Decoding:
    """An assignment on its way through a decode actor and an encode actor.

    Attributes:
        key: names the attempt at the encode actor.
        events: Ray's generator of the unit's events; None once it is at its end.
        fed: calls of the encode actor that are not known to have ended, oldest first.
        finish: the call that gives the unit's result.
    """

    assignment: Assignment
    decoder: Actor
    encoder: int
    key: int
    events: Reference
    fed: deque[Reference] = field(default_factory=deque)
    finish: Reference = None


_Step = Literal["fed", "event", "finish"]


class SplitCrew(Crew):
    """Decode actors stream their clips, a window an object, to encode actors that hold the device."""

    def __init__(self, cluster: RayCluster, job: Job, workers: int, settings: RaySettings) -> None:
        super().__init__(cluster, workers + settings.encode_workers)
        self._make_decoder: Callable[[], Actor] = lambda: cluster.hire(DecodeWorker, job, workers)
        self._make_encoder: Callable[[], Actor] = lambda: cluster.hire(
            EncodeWorker, job, workers, num_gpus=settings.num_gpus
        )
        self._keys = itertools.count()
        self._starting: dict[Reference, Actor] = {}
        self._running: list[_Decoding] = []
        self._turn = 0
        # Decoders begin when the encoders are there: a broken checkpoint is then the first thing said.
        self._encoders = [self._started_encoder() for _ in range(settings.encode_workers)]
        for _ in range(workers):
            self._hire()
        self._cluster.await_start(list(self._starting))

    @property
    def starting(self) -> int:
        return len(self._starting)

    def give(self, assignment: Assignment) -> None:
        decoder = self._idle.pop()
        key = next(self._keys)
        self._turn = (self._turn + 1) % len(self._encoders)
        running = _Decoding(
            assignment=assignment,
            decoder=decoder,
            encoder=self._turn,
            key=key,
            events=decoder.decode.options(
                num_returns="streaming", _generator_backpressure_num_objects=WINDOWS_AHEAD
            ).remote(assignment.unit),
        )
        running.fed.append(self._encoders[self._turn].begin.remote(key, assignment.unit))
        self._running.append(running)

    def finished(self, timeout_s: float) -> list[Finished]:
        awaited: dict[Reference, tuple[_Step, _Decoding]] = {}
        for running in self._running:
            awaited |= {handle: (step, running) for step, handle in _awaited(running)}
        found = self._idle_deaths()
        lost: list[_Decoding] = []
        for handle in self._cluster.ready([*self._starting, *awaited], timeout_s):
            if handle in self._starting:
                found += self._start_ended(handle)
                continue
            step, running = awaited[handle]
            if running in lost:
                continue
            try:
                result = self._advance(running, step)
            except self._cluster.deaths:
                lost.append(running)
                continue
            if result is not None:
                found.append((running.assignment, result))
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
            self._cluster.end(actor)

    def _start_ended(self, reference: Reference) -> list[Finished]:
        decoder = self._starting.pop(reference)
        try:
            self._cluster.get(reference)
        except self._cluster.deaths as error:
            refuse_broken_start(error)
            self._cluster.end(decoder)
            self._hire()
            return [(None, None)]
        self._idle.append(decoder)
        return []

    def _advance(self, running: _Decoding, step: _Step) -> UnitResult | None:
        """One step: an event passed on, a call ended, or the result."""
        encoder = self._encoders[running.encoder]
        if step == "finish":
            result: UnitResult = self._cluster.get(running.finish)
            self._running.remove(running)
            return result
        if step == "fed":
            self._cluster.get(running.fed.popleft())
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
        """New actors for dead ones; every assignment that touched one has died with it."""
        for number, encoder in enumerate(self._encoders):
            if not self._cluster.alive(encoder):
                self._cluster.end(encoder)
                self._encoders[number] = self._started_encoder()
                lost += [running for running in self._running if running.encoder == number and running not in lost]
        for running in lost:
            self._running.remove(running)
            self._encoders[running.encoder].drop.remote(running.key)
            if running.decoder is not None:
                # It may be alive and in the middle of the unit: a new one is simpler than asking.
                self._cluster.end(running.decoder)
                self._hire()
        return [(running.assignment, None) for running in lost]

    def _started_encoder(self) -> Actor:
        for _ in range(ENCODER_STARTS):
            encoder = self._make_encoder()
            start = encoder.start.remote()
            while not self._cluster.ready([start], _LOOK_S):
                self._watch.look(1)
            try:
                self._cluster.get(start)
            except self._cluster.deaths as error:
                refuse_broken_start(error)
                self._cluster.end(encoder)
            else:
                return encoder
        raise WorkersKeepDying(f"encode workers die while they start; {ENCODER_STARTS} did in a row")

    def _hire(self) -> None:
        decoder = self._make_decoder()
        self._starting[decoder.start.remote()] = decoder


def _awaited(running: _Decoding) -> Iterator[tuple[_Step, Reference]]:
    """What the assignment waits for: its oldest call, its next event (while few are on their way), its result.

    The result counts once every call is known to have ended well: of a decoder that died, events may be lost on the
    way, and the encode actor would end the unit without them.
    """
    if running.fed:
        yield "fed", running.fed[0]
    elif running.finish is not None:
        yield "finish", running.finish
    if running.events is not None and len(running.fed) < WINDOWS_AHEAD:
        yield "event", running.events
