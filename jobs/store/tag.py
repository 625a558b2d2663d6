"""`avel store tag`: a name for a snapshot, for ever."""

from __future__ import annotations

import argparse

HELP = "name a snapshot for ever, so that others can pin it"
EXAMPLES = """\
examples:
  avel store tag features v1
  avel store tag features paper --at 8C2F7Y9G1JDXHNET0REG

A tag never moves, and a deleted tag's name never comes back.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="a folder or s3://bucket/prefix")
    parser.add_argument("name", metavar="TAG", help="the new name")
    parser.add_argument("--at", metavar="SNAPSHOT", help="a tag or snapshot id (default: the newest commit)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from catalog.store import open_store
    from jobs.cli import OK
    from jobs.console import print_json, say

    store = open_store(args.store, at=args.at)
    snapshot = store.tag(args.name)
    if args.json:
        print_json({"store": store.uri, "tag": args.name, "snapshot": snapshot})
    else:
        say(f"{store.uri}: {args.name} is snapshot {snapshot}")
    return OK
