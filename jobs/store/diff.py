"""`avel store diff STORE BEFORE [AFTER]`: what changed between two snapshots."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from catalog.store.diff import diff
from catalog.store.reader import open_store
from jobs.cli.console import note, print_json, say, table
from jobs.cli.store_options import add_store

HELP = "what changed between two snapshots: videos added or changed, outcomes and rows per recipe"

EXAMPLES = """\
examples:
  avel store diff features v1
  avel store diff features v1 v2 --json
"""

_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("before", metavar="BEFORE", help="a tag or snapshot id; `avel store log` lists them")
    parser.add_argument("after", metavar="AFTER", nargs="?", help="likewise (default: the newest commit)")


def run(args: argparse.Namespace) -> int:
    changed = diff(open_store(args.store, at=args.before), open_store(args.store, at=args.after))
    if args.json:
        print_json({"store": args.store, **asdict(changed)})
        return 0
    say(
        f"{args.store} from {changed.before} to {changed.after}: {len(changed.added):,} videos added, "
        f"{len(changed.changed):,} changed, {len(changed.removed):,} removed"
    )
    if changed.recipes:
        table(
            "recipes",
            ["recipe", "rows before", "rows after", "videos done", "retried"],
            [
                (name, f"{r.rows_before:,}", f"{r.rows_after:,}", f"{len(r.done):,}", f"{len(r.retried):,}")
                for name, r in changed.recipes.items()
            ],
        )
    changes = [("added", v) for v in changed.added] + [("changed", v) for v in changed.changed]
    changes += [("removed", v) for v in changed.removed]
    if changes:
        table("videos", ["change", "video"], changes[:_SHOWN])
        if len(changes) > _SHOWN:
            note(f"{len(changes) - _SHOWN:,} more; --json lists all")
    return 0
