"""Ray's place taken by one process in which calls run when, and only when, a test's policy picks them.

As in Ray, the calls of one actor run in the order in which they were made, a generator runs as far ahead as its
backpressure allows (here: not at all), and a call to a dead actor raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class Died(Exception):
    """Ray's error for what was lost with a process."""


@dataclass(eq=False)
class Call:
    """One call of an actor: what `remote` returns."""

    actor: Actor
    method: str
    arguments: tuple[Any, ...]
    done: bool = False
    value: Any = None
    error: BaseException | None = None

    def run(self) -> None:
        self.done = True
        try:
            if self.actor.dead or self.actor.ray.loses(self):
                raise Died(self.method)
            arguments = [argument.value if isinstance(argument, Call) else argument for argument in self.arguments]
            self.value = getattr(self.actor.worker, self.method)(*arguments)
        except Exception as error:  # noqa: BLE001 - kept for whoever asks for the value
            self.error = error


@dataclass(eq=False)
class Events:
    """A call of a generator; ready where its next item, or its end, is there."""

    actor: Actor
    items: Iterator[Any]

    def __next__(self) -> Call:
        if self.actor.dead:
            raise Died("decode")
        return Call(actor=self.actor, method="event", arguments=(), done=True, value=next(self.items))


@dataclass(eq=False)
class Actor:
    """A worker of the crew's class and the calls that it has not run yet."""

    ray: ScriptedRay
    worker: Any
    calls: list[Call] = field(default_factory=list)
    dead: bool = False

    def __getattr__(self, method: str) -> Any:
        def remote(*arguments: Any) -> Any:
            if method == "decode":
                return Events(actor=self, items=self.worker.decode(*arguments))
            call = Call(actor=self, method=method, arguments=arguments)
            self.calls.append(call)
            return call

        return SimpleNamespace(remote=remote, options=lambda **_: SimpleNamespace(remote=remote))

    def run_to(self, call: Call) -> None:
        while not call.done:
            self.calls.pop(0).run()


# Which of the handles that could be ready is: a call with all those before it, or a generator's next item.
Policy = Callable[[Sequence[Call | Events]], Call | Events]


class ScriptedRay:
    """What `RayCluster` needs of the package ray.

    Args:
        policy: picks the handle that becomes ready next.
        loses: whether a call dies; asked once a call, as it runs.
    """

    exceptions = SimpleNamespace(
        RayActorError=Died, WorkerCrashedError=Died, NodeDiedError=Died, OutOfMemoryError=Died, ObjectLostError=Died
    )

    def __init__(self, policy: Policy, loses: Callable[[Call], bool] = lambda call: False) -> None:
        self._policy = policy
        self.loses = loses
        self.actors: list[Actor] = []

    def cluster_resources(self) -> dict[str, float]:
        return {}

    def remote(self, kind: type[Any]) -> Any:
        def make(job: Any) -> Actor:
            self.actors.append(Actor(ray=self, worker=kind(job)))
            return self.actors[-1]

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=make))

    def wait(
        self, handles: Sequence[Call | Events], *, num_returns: int, timeout: float, fetch_local: bool
    ) -> tuple[list[Call | Events], list[Call | Events]]:
        """One handle, as the policy says; where nothing may be waited for, those that are ready anyhow."""
        ready: list[Call | Events] = [handle for handle in handles if isinstance(handle, Call) and handle.done]
        if timeout and not ready:
            chosen = self._policy(handles)
            if isinstance(chosen, Call):
                chosen.actor.run_to(chosen)
            ready = [chosen]
        return ready, [handle for handle in handles if handle not in ready]

    def get(self, call: Call) -> Any:
        call.actor.run_to(call)
        if call.error is not None:
            raise call.error
        return call.value

    def kill(self, actor: Actor, *, no_restart: bool) -> None:
        actor.dead = True
        actor.worker._stack.close()
