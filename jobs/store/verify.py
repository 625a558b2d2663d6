"""`avel store verify`: whether a store is complete, finite, on its grid, and its media unchanged."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "check a store: complete, finite, on its grid, media unchanged"
EXAMPLES = """\
examples:
  avel store verify features
  avel store verify features --media videos/     also hashes each medium again

Exit status 0: nothing wrong; 1: problems, listed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="a folder or s3://bucket/prefix")
    parser.add_argument("--at", metavar="TAG", help="a tag or snapshot id (default: the newest commit)")
    parser.add_argument("--media", type=Path, metavar="DIR", help="the folder of the media, to hash them again")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    import dataclasses

    from catalog.store import open_store
    from jobs.cli import FAILED, OK
    from jobs.console import BadArguments, Progress, print_json, say, table
    from pipeline.verify import rows_to_check, verify_store

    if args.media is not None and not args.media.is_dir():
        raise BadArguments(f"--media needs a folder, {args.media} is none")
    store = open_store(args.store, at=args.at)
    total = rows_to_check(store, media=args.media is not None)
    with Progress("verify", total, "rows and media", quiet=args.json) as progress:
        found = verify_store(store, media=args.media, on_progress=progress.advance)
    if args.json:
        print_json({"store": store.uri, "snapshot": store.snapshot_id} | dataclasses.asdict(found))
        return FAILED if found.problems else OK
    looked = f"{found.videos} videos, {found.rows} rows, {found.values} values, {found.media_hashed} media hashed"
    if not found.problems:
        say(f"{store.uri}: all right: {looked}")
        return OK
    rows = [[problem.recipe, problem.video_id, problem.what] for problem in found.problems]
    table(f"{len(rows)} problems", ["recipe", "video", "what"], rows)
    say(f"{store.uri}: {len(rows)} problems in {looked}")
    return FAILED
