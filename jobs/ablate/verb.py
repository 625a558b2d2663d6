"""`avel ablate`: the tables of a paper, run on a store's features and printed beside the paper's numbers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cli.head_options import add_how

if TYPE_CHECKING:
    from heads.ablation.table import Row, Table
    from heads.runs.record import Numbers
    from heads.training.order import Materials, Order
    from jobs.ablate.orders import Orders, WhyNot
    from jobs.ablate.results import Result

HELP = "run the ablation tables of a paper; prints them beside the paper's numbers"
EXAMPLES = """\
examples:
  avel ablate ave-clip --list                                       the tables there are
  avel ablate ave-clip --table 5 --store STORE --dataset ave --root AVE --out runs/tables
  avel ablate ave-clip --store STORE --dataset ave --root AVE --seeds 5 --out runs/tables      all of them
  avel ablate ave-clip --table 2 --recipe frozen=audioclip-1s --recipe finetuned=audioclip-ave-1s \\
      --recipe vgg=vgg19-vggish-1s --store STORE --dataset ave --root AVE --out runs/tables
  avel ablate ov-avel --store STORE --dataset ovavebench --root OV --out runs/ov
  avel ablate planted --table ave --store PLANTED --dataset ave --root AVE --seeds 5 --out runs/planted \\
      --epochs 16 --patience 0 --batch 64 --lr 4e-3 --schedule one-cycle --set ave_clip.width=48
  avel ablate loco --table 2c --store STORE --dataset unav100 --root UNAV --out runs/loco
  avel ablate loco --table 1 --recipe onepeace-unav --recipe i3d=i3d-vggish-unav --store STORE --dataset unav100 \\
      --root UNAV --out runs/loco --device cuda
  avel ablate planted --table unav100 --store SMALL --dataset unav100 --root UNAV-small --seeds 2 --out runs/small \\
      --epochs 20 --patience 0 --lr 1.5e-3 --schedule one-cycle --ema 0.99 --crop-share 1 --set loco.width=48 \\
      --set loco.levels=4 --set loco.unimodal_layers=1 --set loco.decoder_layers=0 --set loco.drop_path=0 \\
      --set loco.lcc_stride=2
  avel ablate ave-clip --table 4 --set ave_clip.width=48 --epochs 16 --store S --dataset ave --root AVE --out runs/small
Each table is written as table-NAME.csv and table-NAME.png, all of them as tables.json; a table of similarities also as
table-NAME-RECIPE.png, with the test videos of the most events. The runs lie in OUT/runs; one that is there is not
trained again, also not for another table, so the same command goes on where it was stopped.
Exit status: 0 all rows with features done; 1 a run failed (its row says why); 2 bad arguments, and of --dry-run a row
that cannot be trained; 130/143 stopped.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paper", help="whose tables: ave-clip, ov-avel, loco; planted: what heads gain on planted features"
    )
    parser.add_argument("--table", action="append", metavar="NAME", help="may be repeated (default: all)")
    parser.add_argument("--list", action="store_true", help="list the paper's tables and rows; runs nothing")
    what = parser.add_argument_group("what")
    what.add_argument("--store", help="path or s3:// URL of the feature store")
    what.add_argument("--dataset", metavar="NAME", help="ave, ovavebench, unav100, ...")
    what.add_argument("--root", help="folder of the data set's annotation files")
    what.add_argument("--media", help="folder or URL prefix of the videos, if not under --root")
    what.add_argument(
        "--recipe",
        action="append",
        default=[],
        metavar="[ROLE=]NAME",
        help="features to use; ROLE=NAME for a table that compares several (may be left out if the store has one)",
    )
    what.add_argument("--vocabulary", metavar="NAME", help="class texts, for heads that need them")
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="HEAD.FIELD=VALUE",
        help="change a field of a head's config in every row; what a row is about wins",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the runs and tables; made if absent")
    parser.add_argument("--seed", type=int, default=0, help="the first (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs a row (default: %(default)s)")
    parser.add_argument("--jobs", type=int, help="runs at a time (as many as the cores have threads for)")
    parser.add_argument("--overwrite", action="store_true", help="train again where a run of other settings lies")
    add_how(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be trained")


def run(args: argparse.Namespace) -> int:
    from catalog.errors import BadArguments
    from heads.ablation import table as tables
    from heads.ablation.table import MEAN_OF_STD
    from heads.training.order import alone
    from jobs.ablate.orders import orders_of
    from jobs.cli.console import print_json, say

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
    orders, why_not = orders_of(args, chosen)
    if args.dry_run:
        return _tell_plan(args, orders, chosen, why_not)
    with alone(args.out, f"--out {args.out}: another `avel ablate` is at work there; choose another folder"):
        status, failed = _train(args, orders)
        if status is not None:
            return status
        told: dict[str, Any] = {}
        for name, table in chosen.items():
            if MEAN_OF_STD in table.metrics:
                failed |= _similarity(args, name, table, orders, why_not | failed)
            results, baselines = _results(table, orders, why_not | failed)
            told[name] = _write(args, name, table, results, baselines)
        _keep(args.out / "tables.json", args.paper, paper.SOURCE, told)
    if args.json:
        print_json({"paper": args.paper, "source": paper.SOURCE, "out": str(args.out), "tables": told})
    else:
        say(f"tables: {args.out}/table-*.csv, table-*.png, tables.json; runs: {args.out}/runs")
    return 1 if failed else 0


def _chosen(names: Sequence[str] | None, tables: Mapping[str, Table]) -> list[str]:
    from catalog.errors import BadArguments

    for name in names or ():
        if name not in tables:
            raise BadArguments(f"--table: there is no {name!r}; there are {', '.join(tables)}")
    return list(dict.fromkeys(names or tables))


def _list(paper: str, chosen: Mapping[str, Table], *, as_json: bool) -> int:
    from jobs.ablate.results import PAPER
    from jobs.cli.console import print_json, say
    from jobs.cli.console import table as print_table

    if as_json:
        told = {
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
        print_json({"paper": paper, "tables": told})
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


def _tell_plan(args: argparse.Namespace, orders: Orders, chosen: Mapping[str, Table], why_not: WhyNot) -> int:
    from jobs.cli.console import note, print_json, say
    from jobs.cli.main import BAD_ARGUMENTS, OK

    cannot = _cannot_be(orders, {})
    there = sum((order.out / "run.json").exists() for order in orders.values())
    plan = {"tables": list(chosen), "runs": len(orders), "there": there, "left_out": len(why_not)}
    if args.json:
        print_json({"dry_run": True} | plan | {"cannot_be": cannot})
    else:
        say(
            f"tables {', '.join(chosen)}: {len(orders)} runs, {there} of them there already; "
            f"{len(why_not)} variants without features, {len(cannot)} that cannot be"
        )
    for key, why in cannot.items():
        note(f"avel ablate: error: {args.out / 'runs' / key}: {why}")
    return BAD_ARGUMENTS if cannot else OK


def _train(args: argparse.Namespace, orders: Orders) -> tuple[int | None, WhyNot]:
    """Carries out what is not there; gives an exit status where it was stopped, and the variants that failed."""
    from catalog.errors import AvelError, BadArguments
    from heads.training.order import is_there
    from jobs.cli.console import note, print_json
    from jobs.cli.signals import stoppable
    from jobs.train.parallel import carry_out_all

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
        except (AvelError, ValueError, OSError) as error:  # something else lies at the run's place
            failed[key] = f"failed: {error}"
            note(f"avel ablate: error: {order.out.parent}: {error}")
    gathered.clear()
    if wanted:
        with stoppable("avel ablate", "after the epochs in hand") as (stop, received):
            outcomes = carry_out_all(wanted, stop, jobs=args.jobs, what="runs", quiet=args.json)
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


def _cannot_be(orders: Orders, gathered: dict[tuple[str, str, str], Materials]) -> WhyNot:
    """The variants that nothing can be trained for, and why: a reduced list that is not there, an impossible config.

    Raises:
        BadArguments: no vocabulary fits, or the store has lost a recipe.
    """
    from catalog.errors import AvelError, BadArguments
    from heads.training.order import check_head

    found: WhyNot = {}
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
    from heads.training.order import gather

    # By head too: one that needs class texts has them looked for.
    key = (order.recipe, json.dumps(order.options), order.head)
    if key not in gathered:
        gathered[key] = gather(order)
    return gathered[key]


def _similarity(args: argparse.Namespace, name: str, table: Table, orders: Orders, why_not: WhyNot) -> WhyNot:
    """Measures the runs of the table, draws the first seed's; gives the variants of which that cannot be done."""
    from heads.data.split import Split, read_split
    from jobs.ablate.results import SPLIT
    from jobs.ablate.similarity import draw_similarity, measure_similarity
    from jobs.cli.console import note

    splits: dict[str, Split] = {}
    drawn: dict[str, dict[str, Path]] = {}
    failed: WhyNot = {}
    for row in table.rows:
        key = None if row.variant is None else row.variant.key()
        for (owner, seed), order in orders.items():
            if owner != key or owner in why_not or owner in failed:
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
        title = f"{args.paper}, table {name}: cosines of sound and picture; {args.dataset}, {recipe}"
        draw_similarity(folders, splits[recipe], args.out / f"table-{name}-{recipe}.png", title=title)
    return failed


def _results(table: Table, orders: Orders, why_not: WhyNot) -> tuple[list[Result], Numbers]:
    from jobs.ablate.results import Result, compared, measured, trivial

    results: list[Result] = []
    baselines: Numbers = {}
    for row in table.rows:
        key = None if row.variant is None else row.variant.key()
        if key is None or key in why_not:
            results.append(Result(row=row, found={}, why="not built here" if key is None else why_not[key]))
            continue
        folders = [order.out for (owner, _), order in orders.items() if owner == key]
        results.append(measured(row, table, folders))
        baselines = baselines or trivial(folders[0])
    return compared(table, results), baselines


def _write(
    args: argparse.Namespace, name: str, table: Table, results: Sequence[Result], baselines: Numbers
) -> dict[str, Any]:
    from heads.runs.folder import write_whole
    from jobs.ablate.figure import draw
    from jobs.ablate.results import as_csv, as_json, as_rows
    from jobs.cli.console import say
    from jobs.cli.console import table as print_table

    title = f"{args.paper}, table {name}: {table.title}; {args.dataset}, {args.seeds} seeds"
    write_whole(args.out / f"table-{name}.csv", as_csv(table, results, baselines))
    draw(table, results, baselines, args.out / f"table-{name}.png", title=title)
    if not args.json:
        print_table(title, *as_rows(table, results, baselines))
        if table.reading:
            say(f"read as: {table.reading}")
    return as_json(table, results, baselines)


def _keep(path: Path, paper: str, source: str, told: Mapping[str, Any]) -> None:
    """Writes the tables, keeping those of earlier calls that this one did not run."""
    from heads.runs.folder import write_whole

    held: dict[str, Any] = {}
    if path.exists():
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error}); remove it, the runs are kept") from error
    earlier = held.get("tables", {}) if held.get("paper") == paper else {}
    value = {"paper": paper, "source": source, "tables": earlier | dict(told)}
    write_whole(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
