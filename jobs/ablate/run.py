"""Trains what the tables ask for, measures the runs, and writes and prints the tables beside the paper's numbers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from catalog.errors import AvelError, BadArguments
from catalog.whole_file import write_atomically
from heads.ablation import table as tables
from heads.ablation.table import MEAN_OF_STD, Row, Table
from heads.data.split import Split, read_split
from heads.runs.record import Numbers
from heads.training.experiment import Materials, check_head, gather
from heads.training.order import Order, alone, is_there
from jobs.ablate.figure import draw
from jobs.ablate.orders import Orders, SkipReasons, orders_of
from jobs.ablate.results import PAPER, SPLIT, Result, as_csv, as_json, as_rows, compared, measured, trivial
from jobs.ablate.similarity import draw_similarity, measure_similarity
from jobs.cli.console import note, print_json, say
from jobs.cli.console import table as print_table
from jobs.cli.main import BAD_ARGUMENTS, OK
from jobs.cli.signals import stoppable
from jobs.train.parallel import carry_out_all


def run(args: argparse.Namespace) -> int:

    try:
        paper = tables.plugin(args.paper)
    except ValueError as error:
        raise BadArguments(str(error)) from error
    chosen = {name: paper.TABLES[name] for name in _chosen(args.table, paper.TABLES)}
    if args.list:
        return _list(args.paper, chosen, as_json=args.json)
    for option in ("store", "dataset", "root", "out"):
        if getattr(args, option) is None:
            raise BadArguments(f"--{option} is needed; `avel ablate {args.paper} --list` needs none")
    for option, number in (("--seeds", args.seeds), ("--jobs", args.jobs)):
        if number is not None and number < 1:
            raise BadArguments(f"{option} must be at least 1, got {number}")
    orders, skipped = orders_of(args, chosen)
    if args.dry_run:
        return _print_plan(args, orders, chosen, skipped)
    with alone(args.out, f"--out {args.out}: another `avel ablate` is at work there; choose another folder"):
        status, failed = _train(args, orders)
        if status is not None:
            return status
        shown: dict[str, Any] = {}
        for name, table in chosen.items():
            if MEAN_OF_STD in table.metrics:
                failed |= _similarity(args, name, table, orders, skipped | failed)
            results, baselines = _results(table, orders, skipped | failed)
            shown[name] = _write(args, name, table, results, baselines)
        keep_tables(args.out / "tables.json", args.paper, paper.SOURCE, shown)
    if args.json:
        print_json({"paper": args.paper, "source": paper.SOURCE, "out": str(args.out), "tables": shown})
    else:
        say(f"tables: {args.out}/table-*.csv, table-*.png, tables.json; runs: {args.out}/runs")
    return 1 if failed else 0


def _chosen(names: Sequence[str] | None, tables: Mapping[str, Table]) -> list[str]:

    for name in names or ():
        if name not in tables:
            raise BadArguments(f"--table: there is no {name!r}; there are {', '.join(tables)}")
    return list(dict.fromkeys(names or tables))


def _list(paper: str, chosen: Mapping[str, Table], *, as_json: bool) -> int:

    if as_json:
        shown = {
            name: {
                "title": table.title,
                "reading": table.reading,
                "roles": [role for role in table.roles() if role],
                "rows": [
                    {"labels": list(row.labels), "paper_percent": dict(row.paper), "built": row.variant is not None}
                    | {"paper_remembered": row.remembered}
                    for row in table.rows
                ],
            }
            for name, table in chosen.items()
        }
        print_json({"paper": paper, "tables": shown})
        return 0
    for name, table in chosen.items():
        metric = table.metrics[0]
        printed = [[_printed(row, metric)] if any(r.paper for r in table.rows) else [] for row in table.rows]
        rows = [
            [*row.labels, row.variant.head if row.variant else "not built here", *cell]
            for row, cell in zip(table.rows, printed, strict=True)
        ]
        columns = [*table.columns, "head", *([f"{metric} %, {PAPER}"] if printed[0] else [])]
        print_table(f"{paper}, table {name}: {table.title}", columns, rows)
        if table.reading:
            say(f"read as: {table.reading}")
        roles = [role for role in table.roles() if role]
        if roles:
            say("features: " + " ".join(f"--recipe {role}=NAME" for role in roles))
    return 0


def _printed(row: Row, metric: str) -> str:
    number = row.paper.get(metric)
    return "-" if number is None else f"{number:g}" + (" ?" if row.remembered else "")


def _print_plan(args: argparse.Namespace, orders: Orders, chosen: Mapping[str, Table], skipped: SkipReasons) -> int:

    cannot = _cannot_be(orders, {})
    there = sum((order.out / "run.json").exists() for order in orders.values())
    plan = {"tables": list(chosen), "runs": len(orders), "there": there, "left_out": len(skipped)}
    if args.json:
        print_json({"dry_run": True} | plan | {"cannot_be": cannot})
    else:
        say(
            f"tables {', '.join(chosen)}: {len(orders)} runs, {there} of them there already; "
            f"{len(skipped)} variants without features, {len(cannot)} that cannot be"
        )
    for key, why in cannot.items():
        note(f"avel ablate: error: {args.out / 'runs' / key}: {why}")
    return BAD_ARGUMENTS if cannot else OK


def _train(args: argparse.Namespace, orders: Orders) -> tuple[int | None, SkipReasons]:
    """Carries out what is not there; gives an exit status where it was stopped, and the variants that failed."""

    gathered: dict[tuple[str, str, str], Materials] = {}
    wanted: Orders = {}
    failed = _cannot_be(orders, gathered)
    for key, why in failed.items():
        note(f"avel ablate: error: {args.out / 'runs' / key}: {why}")
    for (key, seed), order in orders.items():
        if key in failed:
            continue
        try:
            if not is_there(order, _materials(order, gathered)):
                wanted[key, seed] = order
        except BadArguments:
            raise
        except (AvelError, ValueError, OSError) as error:  # something else is at the run's path
            failed[key] = f"failed: {error}"
            note(f"avel ablate: error: {order.out.parent}: {error}")
    gathered.clear()
    if wanted:
        with stoppable("avel ablate", "after the epochs in hand") as (stop, received):
            outcomes = carry_out_all(wanted, stop, jobs=args.jobs, what="runs")
        if any(outcome.stopped for outcome in outcomes.values()):
            note("avel ablate: stopped; the same command goes on")
            if args.json:
                print_json({"out": str(args.out), "stopped": True})
            return 128 + received[0], failed
        for (key, seed), outcome in outcomes.items():
            if outcome.error is not None:
                failed[key] = f"seed {seed} failed: {outcome.error}"
                note(f"avel ablate: error: {orders[key, seed].out}: {outcome.error}")
    return None, failed


def _cannot_be(orders: Orders, gathered: dict[tuple[str, str, str], Materials]) -> SkipReasons:
    """The variants that nothing can be trained for, and why: a reduced list that is not there, an impossible config.

    Raises:
        BadArguments: no vocabulary fits, or the store has lost a recipe.
    """

    found: SkipReasons = {}
    for key, order in {key: order for (key, _), order in orders.items()}.items():
        try:
            check_head(order, _materials(order, gathered))
        except BadArguments:
            raise
        except (AvelError, ValueError, OSError) as error:  # it fails its row alone
            found[key] = f"failed: {order.head}: {error}"
    return found


def _materials(order: Order, gathered: dict[tuple[str, str, str], Materials]) -> Materials:
    """What the order names, opened once for all orders that name the same."""

    # By head too: one that needs class texts has them looked for.
    key = (order.recipe, json.dumps(order.options), order.head)
    if key not in gathered:
        gathered[key] = gather(order)
    return gathered[key]


def _similarity(args: argparse.Namespace, name: str, table: Table, orders: Orders, skipped: SkipReasons) -> SkipReasons:
    """Measures the runs of the table, draws the first seed's; gives the variants of which that cannot be done."""

    splits: dict[str, Split] = {}
    drawn: dict[str, dict[str, Path]] = {}
    failed: SkipReasons = {}
    for row in table.rows:
        key = None if row.variant is None else row.variant.key()
        for (owner, seed), order in orders.items():
            if owner != key or owner in skipped or owner in failed:
                continue
            try:
                if order.recipe not in splits:
                    held = _materials(order, {})
                    splits[order.recipe] = read_split(held.store, order.recipe, held.dataset, SPLIT, pool_places=True)
                measure_similarity(order.out, splits[order.recipe])
            except ValueError as error:
                failed[owner] = f"failed: {error}"
                note(f"avel ablate: error: {order.out}: {error}")
            else:
                if seed == args.seed:
                    drawn.setdefault(order.recipe, {})[", ".join(row.labels)] = order.out
    for recipe, folders in drawn.items():
        title = f"{args.paper}, table {name}: cosines of audio and frames; {args.dataset}, {recipe}"
        draw_similarity(folders, splits[recipe], args.out / f"table-{name}-{recipe}.png", title=title)
    return failed


def _results(table: Table, orders: Orders, skipped: SkipReasons) -> tuple[list[Result], Numbers]:

    results: list[Result] = []
    baselines: Numbers = {}
    for row in table.rows:
        key = None if row.variant is None else row.variant.key()
        if key is None or key in skipped:
            results.append(Result(row=row, found={}, why="not built here" if key is None else skipped[key]))
            continue
        folders = [order.out for (owner, _), order in orders.items() if owner == key]
        results.append(measured(row, table, folders))
        baselines = baselines or trivial(folders[0])
    return compared(table, results), baselines


def _write(
    args: argparse.Namespace, name: str, table: Table, results: Sequence[Result], baselines: Numbers
) -> dict[str, Any]:

    title = f"{args.paper}, table {name}: {table.title}; {args.dataset}, {args.seeds} seeds"
    write_atomically(args.out / f"table-{name}.csv", as_csv(table, results, baselines))
    draw(table, results, baselines, args.out / f"table-{name}.png", title=title)
    if not args.json:
        print_table(title, *as_rows(table, results, baselines))
        if table.reading:
            say(f"read as: {table.reading}")
    return as_json(table, results, baselines)


def keep_tables(path: Path, paper: str, source: str, shown: Mapping[str, Any]) -> None:
    """Writes the tables, keeping those of earlier calls that this one did not run."""

    held: dict[str, Any] = {}
    if path.exists():
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error}); remove it, the runs are kept") from error
    earlier = held.get("tables", {}) if held.get("paper") == paper else {}
    value = {"paper": paper, "source": source, "tables": earlier | dict(shown)}
    write_atomically(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
