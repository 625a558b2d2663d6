"""Several seeds of one order side by side, each in a process of its own and to a run folder of its own.

    OUT/seed-0, OUT/seed-1, ...   run folders; one that is there and is what was asked for is not trained again
    OUT/seeds.json                each metric's values, mean and sample standard deviation

A worker ignores signals and watches its parent: the parent tells all to stop after the epoch in hand, and a worker
whose parent is gone, even by SIGKILL, ends at once. What they tell goes through shared memory without locks, which a
killed process cannot leave held.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from catalog.errors import AvelError
from heads.fit import TrainingStopped
from heads.protocol import headline
from heads.run_folder import Numbers, RunRecord, check_free, read_record, write_whole
from heads.seeds import Spread, spreads
from jobs.console import BadArguments, Progress, note, print_json, say
from jobs.scores import print_scores
from jobs.stopping import stoppable
from jobs.train_order import Materials, Order, alone, carry_out, differences_from, gather, identity

FORMAT = 1
SEEDS_FILE = "seeds.json"
# How often the parent looks at what the workers have done.
_LOOK_S = 0.2


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What came of a seed; an error as text, for not every exception survives the way between processes."""

    error: str | None = None
    stopped: bool = False
    warnings: tuple[str, ...] = ()


def train_seeds(order: Order, materials: Materials, *, num_seeds: int, jobs: int | None, as_json: bool) -> int:
    """Trains the order's seed and the `num_seeds` - 1 that follow it; prints the table; returns the exit status.

    Args:
        order: its `out` is the folder of all.
        jobs: processes at a time; None takes as many as the cores have threads for.

    Raises:
        BadArguments: the folder holds a run, or runs of other settings and not `overwrite`; or it is in use.
        AvelError: a seed could not be trained; names it. The others are.
    """
    if (order.out / "run.json").exists():
        raise BadArguments(f"{order.out} holds a run of one seed; choose another folder for several")
    orders = {
        seed: dataclasses.replace(
            order, out=order.out / f"seed-{seed}", settings=dataclasses.replace(order.settings, seed=seed)
        )
        for seed in range(order.settings.seed, order.settings.seed + num_seeds)
    }
    with alone(order.out, f"--out {order.out}: another `avel train --seeds` is at work there; choose another folder"):
        wanted = {seed: one for seed, one in orders.items() if not _is_there(one, materials)}
        warnings: tuple[str, ...] = ()
        if wanted:
            if jobs is None:
                jobs = max(1, len(os.sched_getaffinity(0)) // order.threads)
            with stoppable("avel train", "after the epochs in hand") as (stop, received):
                outcomes = _side_by_side(wanted, min(jobs, len(wanted)), stop, quiet=as_json)
            if any(outcome.stopped for outcome in outcomes.values()):
                note("avel train: stopped; the same command goes on")
                if as_json:
                    print_json({"runs": str(order.out), "stopped": True})
                return 128 + received[0]
            failed = {seed: outcome.error for seed, outcome in outcomes.items() if outcome.error is not None}
            if failed:
                told = "; ".join(f"seed {seed}: {error}" for seed, error in failed.items())
                raise AvelError(f"{len(failed)} of {num_seeds} seeds could not be trained: {told}")
            warnings = tuple(dict.fromkeys(w for outcome in outcomes.values() for w in outcome.warnings))
        records = {seed: read_record(one.out) for seed, one in orders.items()}
        found = spreads([record.metrics for record in records.values()])
        summary = _summary(records, found, headline(materials.dataset))
        write_whole(order.out / SEEDS_FILE, json.dumps(summary, indent=1, allow_nan=False) + "\n")
    for warning in warnings:
        note(f"avel train: warning: {warning}")
    if as_json:
        print_json({"runs": str(order.out), "trained": list(wanted), "warnings": list(warnings)} | summary)
        return 0
    _print(order, materials, summary, found, num_trained=len(wanted))
    return 0


def _is_there(order: Order, materials: Materials) -> bool:
    """Has this very order been carried out before?"""
    if not (order.out / "run.json").exists():
        check_free(order.out, overwrite=order.overwrite)
        return False
    differing = differences_from(read_record(order.out), identity(order, materials))
    if differing and not order.overwrite:
        raise BadArguments(
            f"{order.out} holds a run of other settings ({'; '.join(differing)}); choose another folder or pass "
            "--overwrite"
        )
    return not differing


def _side_by_side(orders: Mapping[int, Order], jobs: int, stop: threading.Event, *, quiet: bool) -> dict[int, _Outcome]:
    context = multiprocessing.get_context("spawn")
    epochs_done, stopping = context.RawArray("q", len(orders)), context.RawValue("b", 0)
    epochs = next(iter(orders.values())).settings.epochs
    outcomes: dict[int, _Outcome] = {}
    with (
        Progress(f"train {len(orders)} seeds", len(orders) * epochs, "epochs", quiet=quiet) as progress,
        concurrent.futures.ProcessPoolExecutor(
            jobs, mp_context=context, initializer=_begin, initargs=(epochs_done, stopping)
        ) as pool,
    ):
        seeds = {pool.submit(_work, place, order): seed for place, (seed, order) in enumerate(orders.items())}
        waiting = set(seeds)
        while waiting:
            ended, waiting = concurrent.futures.wait(waiting, timeout=_LOOK_S)
            if stop.is_set():
                stopping.value = 1
            for future in ended:
                try:
                    outcomes[seeds[future]] = future.result()
                except BrokenProcessPool:
                    outcomes[seeds[future]] = _Outcome(
                        error="a worker process died (out of memory?); the same command goes on, --jobs 1 takes less"
                    )
            # A seed that stopped early has no epochs left to do.
            places = list(orders)
            done = sum(epochs if seed in outcomes else epochs_done[places.index(seed)] for seed in orders)
            progress.advance(done - progress.done, f"{len(outcomes)} of {len(orders)} seeds done")
    return {seed: outcomes[seed] for seed in orders}


def _summary(
    records: Mapping[int, RunRecord], found: Mapping[str, Mapping[str, Spread]], metric: str
) -> dict[str, Any]:
    first = next(iter(records.values()))
    return {
        "format": FORMAT,
        "head": first.head,
        "modality": first.training["modality"],
        "recipe": first.recipe.name,
        "dataset": first.dataset["name"],
        "seeds": list(records),
        "metrics": {
            split: {
                name: {"values": list(spread.values), "mean": spread.mean, "sd": spread.sd}
                for name, spread in numbers.items()
            }
            for split, numbers in found.items()
        },
        "baselines": {list(found)[-1]: {name: {metric: value} for name, value in first.baselines.items()}},
    }


def _print(
    order: Order,
    materials: Materials,
    summary: Mapping[str, Any],
    found: Mapping[str, Mapping[str, Spread]],
    *,
    num_trained: int,
) -> None:
    baselines: dict[str, dict[str, Numbers]] = {
        split: {
            name: summary["baselines"].get(split, {}).get(name, {}) for name in summary["baselines"][list(found)[-1]]
        }
        for split in found
    }
    there = len(summary["seeds"]) - num_trained
    print_scores(
        f"{order.head} ({order.modality}) on {materials.dataset.name}, recipe {order.recipe}: mean ± sd of "
        f"{len(summary['seeds'])} seeds" + (f", {there} of them trained before" if there else ""),
        f"{order.head} ({order.modality})",
        {split: {name: _spell(spread) for name, spread in numbers.items()} for split, numbers in found.items()},
        baselines,
    )
    say(f"runs: {order.out}/seed-*; numbers: {order.out / SEEDS_FILE}")


def _spell(spread: Spread) -> str:
    return f"{100 * spread.mean:.2f}" + ("" if spread.sd is None else f" ± {100 * spread.sd:.2f}")


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


def _work(place: int, order: Order) -> _Outcome:
    def on_epoch(row: Numbers) -> None:
        _epochs_done[place] = int(row["epoch"])

    if _stopping.value:
        return _Outcome(stopped=True)
    try:
        trained = carry_out(order, gather(order), on_epoch=on_epoch, stop=lambda: bool(_stopping.value))
    except TrainingStopped:
        return _Outcome(stopped=True)
    except (AvelError, ValueError, OSError) as error:
        return _Outcome(error=str(error) or type(error).__name__)
    return _Outcome(warnings=trained.warnings)
