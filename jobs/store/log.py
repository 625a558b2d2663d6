"""`avel store log`: the commits of a store."""

from __future__ import annotations

import argparse

HELP = "the commits of a store, newest first"
EXAMPLES = """\
examples:
  avel store log features
  avel store log features --at v1 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="a folder or s3://bucket/prefix")
    parser.add_argument("--at", metavar="TAG", help="a tag or snapshot id (default: the newest commit)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from catalog.store import open_store
    from jobs.cli import OK
    from jobs.console import print_json, table

    store = open_store(args.store, at=args.at)
    tags: dict[str, list[str]] = {}
    for tag, snapshot in store.tags().items():
        tags.setdefault(snapshot, []).append(tag)
    commits = [
        {
            "snapshot": commit.snapshot_id,
            "written_at": commit.written_at.isoformat(timespec="seconds"),
            "tags": tags.get(commit.snapshot_id, []),
            "message": commit.message,
        }
        for commit in store.log()
    ]
    if args.json:
        print_json({"store": store.uri, "commits": commits})
    else:
        rows = [[c["snapshot"], c["written_at"], ", ".join(c["tags"]), c["message"]] for c in commits]
        table(store.uri, ["snapshot", "written at", "tags", "message"], rows)
    return OK
