"""`avel store log STORE`: the history of a store."""

from __future__ import annotations

import argparse

from catalog.store.reader import open_store
from jobs.cli.console import print_json, table
from jobs.cli.store_options import add_store

HELP = "the commits of a store, newest first, with its tags"

EXAMPLES = """\
examples:
  avel store log features
  avel store log features --at v1 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("--at", metavar="TAG", help="the history of a tag or snapshot instead of the newest commit")


def run(args: argparse.Namespace) -> int:
    store = open_store(args.store, at=args.at)
    tags: dict[str, list[str]] = {}
    for name, snapshot_id in store.tags().items():
        tags.setdefault(snapshot_id, []).append(name)
    commits = [
        {
            "snapshot": commit.snapshot_id,
            "written_at": commit.written_at.isoformat(timespec="seconds"),
            "message": commit.message,
            "tags": tags.get(commit.snapshot_id, []),
        }
        for commit in store.log()
    ]
    if args.json:
        print_json({"store": store.uri, "commits": commits})
    else:
        table(
            store.uri,
            ["snapshot", "written", "tags", "message"],
            [(c["snapshot"], c["written_at"], ", ".join(c["tags"]), c["message"]) for c in commits],
        )
    return 0
