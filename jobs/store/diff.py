"""`avel store diff STORE BEFORE [AFTER]`: what changed between two snapshots."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from catalog.store.reader import open_store
from jobs.cli.console import note, print_json, say, table

HELP = "what changed between two snapshots: videos added or changed, outcomes and rows per recipe"

EXAMPLES = """\
examples:
  avel store diff features v1
  avel store diff features v1 v2 --json
"""

_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="a folder or s3://bucket/prefix")
    parser.add_argument("before", metavar="BEFORE", help="a tag or snapshot id; `avel store log` lists them")
    parser.add_argument("after", metavar="AFTER", nargs="?", help="likewise (default: the newest commit)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    told = open_store(args.store).diff(args.before, args.after)
    if args.json:
        print_json({"store": args.store, **asdict(told)})
        return 0
    say(
        f"{args.store} from {told.before} to {told.after}: {len(told.added):,} videos added, "
        f"{len(told.changed):,} changed, {len(told.removed):,} removed"
    )
    if told.recipes:
        table(
            "recipes",
            ["recipe", "rows before", "rows after", "videos done", "retried"],
            [
                (name, f"{r.rows_before:,}", f"{r.rows_after:,}", f"{len(r.done):,}", f"{len(r.retried):,}")
                for name, r in told.recipes.items()
            ],
        )
    marks = [("added", v) for v in told.added] + [("changed", v) for v in told.changed]
    marks += [("removed", v) for v in told.removed]
    if marks:
        table("videos", ["change", "video"], marks[:_SHOWN])
        if len(marks) > _SHOWN:
            note(f"{len(marks) - _SHOWN:,} more; --json lists all")
    return 0
