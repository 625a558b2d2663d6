"""Training runs side by side, each in a process of its own and to a run folder of its own.

A worker ignores signals and watches its parent: the parent stops all after the epoch in hand, and a worker
whose parent is gone, even by SIGKILL, ends at once. Progress goes through shared memory without locks, which a killed
process cannot leave held.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Hashable, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

from catalog.errors import AvelError
from heads.runs.record import Numbers
from heads.training.experiment import gather
from heads.training.fit import TrainingStopped
from heads.training.order import Order, carry_out
from jobs.cli.console import Progress

Name = TypeVar("Name", bound=Hashable)

# How often the parent looks at what the workers have done.
_LOOK_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of an order; an error as text, since not every exception survives the way between processes."""

    error: str | None = None
    stopped: bool = False
    warnings: tuple[str, ...] = ()


def carry_out_all(
    orders: Mapping[Name, Order], stop: threading.Event, *, jobs: int | None, what: str, quiet: bool = False
) -> dict[Name, Outcome]:
    """Carries out `orders`, some at a time.

    Args:
        stop: set to stop all after the epoch in hand.
        jobs: processes at a time; None takes as many as the cores have threads for.
        what: of which there are so many, for the progress: "seeds".
        quiet: without progress.

    Returns:
        The outcome of each, in the order given.
    """
    if jobs is None:
        jobs = max(1, len(os.sched_getaffinity(0)) // max(order.threads for order in orders.values()))
    jobs = min(jobs, len(orders))

    context = multiprocessing.get_context("spawn")
    epochs_done, stopping = context.RawArray("q", len(orders)), context.RawValue("b", 0)
    epochs = {name: order.settings.epochs for name, order in orders.items()}
    outcomes: dict[Name, Outcome] = {}
    with (
        Progress(f"train {len(orders)} {what}", sum(epochs.values()), "epochs", quiet=quiet) as progress,
        concurrent.futures.ProcessPoolExecutor(
            jobs, mp_context=context, initializer=_begin, initargs=(epochs_done, stopping)
        ) as pool,
    ):
        names = {pool.submit(_work, place, order): name for place, (name, order) in enumerate(orders.items())}
        waiting = set(names)
        while waiting:
            ended, waiting = concurrent.futures.wait(waiting, timeout=_LOOK_S)
            if stop.is_set():
                stopping.value = 1
            for future in ended:
                try:
                    outcomes[names[future]] = future.result()
                except BrokenProcessPool:
                    # A terminal's signal also reaches workers that are still starting and do not ignore it yet.
                    why = "a worker process died (out of memory?); the same command goes on, --jobs 1 takes less"
                    outcomes[names[future]] = Outcome(stopped=True) if stop.is_set() else Outcome(error=why)
            ended_names = {name for name, outcome in outcomes.items() if not outcome.stopped}
            # A run that patience ended has no epochs left to do.
            done = sum(epochs[name] if name in ended_names else epochs_done[i] for i, name in enumerate(orders))
            progress.advance(done - progress.done, f"{len(ended_names)} of {len(orders)} {what} done")
    return {name: outcomes[name] for name in orders}


# In the workers.

_epochs_done: Any = None
_stopping: Any = None


def _begin(epochs_done: Any, stopping: Any) -> None:
    global _epochs_done, _stopping
    _epochs_done, _stopping = epochs_done, stopping
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends them to all of the group: the parent decides
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _work(place: int, order: Order) -> Outcome:
    def on_epoch(row: Numbers) -> None:
        _epochs_done[place] = int(row["epoch"])

    if _stopping.value:
        return Outcome(stopped=True)
    try:
        trained = carry_out(order, gather(order), on_epoch=on_epoch, stop=lambda: bool(_stopping.value))
    except TrainingStopped:
        return Outcome(stopped=True)
    except (AvelError, ValueError, OSError) as error:
        return Outcome(error=str(error) or type(error).__name__)
    return Outcome(warnings=trained.warnings)
