"""Several seeds of one order side by side, each in a process of its own and to a run folder of its own.

OUT/seed-0, OUT/seed-1, ...   run folders; one that is there and is what was asked for is not trained again
OUT/seeds.json                each metric's values, mean and sample standard deviation
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from catalog.errors import AvelError, BadArguments
from catalog.whole_file import write_atomically
from heads.runs.folder import read_record
from heads.runs.record import Numbers, RunRecord
from heads.runs.seeds import Spread, spreads
from heads.training.experiment import Materials
from heads.training.order import Order, alone, is_there
from heads.training.task import make_task
from jobs.cli.console import note, print_json, say
from jobs.cli.score_table import print_scores
from jobs.cli.signals import stoppable
from jobs.train.parallel import carry_out_all

FORMAT = 1
SEEDS_FILE = "seeds.json"


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
        wanted = {seed: one for seed, one in orders.items() if not is_there(one, materials)}
        warnings: tuple[str, ...] = ()
        if wanted:
            with stoppable("avel train", "after the epochs in hand") as (stop, received):
                outcomes = carry_out_all(wanted, stop, jobs=jobs, what="seeds")
            if any(outcome.stopped for outcome in outcomes.values()):
                note("avel train: stopped; the same command goes on")
                if as_json:
                    print_json({"runs": str(order.out), "stopped": True})
                return 128 + received[0]
            failed = {seed: outcome.error for seed, outcome in outcomes.items() if outcome.error is not None}
            if failed:
                errors = "; ".join(f"seed {seed}: {error}" for seed, error in failed.items())
                raise AvelError(f"{len(failed)} of {num_seeds} seeds could not be trained: {errors}")
            warnings = tuple(dict.fromkeys(w for outcome in outcomes.values() for w in outcome.warnings))
        records = {seed: read_record(one.out) for seed, one in orders.items()}
        found = spreads([record.metrics for record in records.values()])
        summary = _summary(records, found, make_task(order.head, materials.dataset, order.settings).headline)
        write_atomically(order.out / SEEDS_FILE, json.dumps(summary, indent=1, allow_nan=False) + "\n")
    for warning in warnings:
        note(f"avel train: warning: {warning}")
    if as_json:
        print_json({"runs": str(order.out), "trained": list(wanted), "warnings": list(warnings)} | summary)
        return 0
    _print_summary(order, materials, summary, found, num_trained=len(wanted))
    return 0


def _summary(records: Mapping[int, RunRecord], found: dict[str, dict[str, Spread]], metric: str) -> dict[str, Any]:
    first = next(iter(records.values()))
    # Of the last split on which the number is defined, as in each run.
    split = next((split for split in reversed(found) if metric in found[split]), list(found)[-1])
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
        "baselines": {split: {name: {metric: value} for name, value in first.baselines.items()}},
    }


def _print_summary(
    order: Order,
    materials: Materials,
    summary: Mapping[str, Any],
    found: Mapping[str, Mapping[str, Spread]],
    *,
    num_trained: int,
) -> None:
    held = summary["baselines"]
    names = [name for numbers in held.values() for name in numbers]
    baselines: dict[str, dict[str, Numbers]] = {
        split: {name: held.get(split, {}).get(name, {}) for name in names} for split in found
    }
    there = len(summary["seeds"]) - num_trained
    print_scores(
        f"{order.head} ({order.modality}) on {materials.dataset.name}, recipe {order.recipe}: mean ± sd of "
        f"{len(summary['seeds'])} seeds",
        f"{order.head} ({order.modality})",
        {split: {name: _spell(spread) for name, spread in numbers.items()} for split, numbers in found.items()},
        baselines,
    )
    before = f" ({there} of them trained before)" if there else ""
    say(f"runs: {order.out}/seed-*{before}; numbers: {order.out / SEEDS_FILE}")


def _spell(spread: Spread) -> str:
    return f"{100 * spread.mean:.2f}" + ("" if spread.sd is None else f" ± {100 * spread.sd:.2f}")
