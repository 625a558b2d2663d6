"""`avel store tag STORE NAME`: a name for a snapshot, for ever."""

from __future__ import annotations

import argparse

from catalog.store.reader import open_store
from jobs.cli.console import print_json, say
from jobs.cli.store_options import add_store

HELP = "name the newest commit (or another snapshot); a tag never moves"

EXAMPLES = """\
examples:
  avel store tag features v1
  avel store tag features before-retry --at ZS6Z8X37TWJGM41V0EQG
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the tag")
    parser.add_argument("--at", metavar="SNAPSHOT", help="the snapshot id or tag to name (default: the newest commit)")


def run(args: argparse.Namespace) -> int:
    store = open_store(args.store, at=args.at)
    snapshot = store.tag(args.name)
    if args.json:
        print_json({"store": store.uri, "tag": args.name, "snapshot": snapshot})
    else:
        say(f"{store.uri}: {args.name} is snapshot {snapshot}")
    return 0
