"""`avel store verify STORE`: every promise of the store checked, value by value."""

from __future__ import annotations

import argparse

HELP = "check that a store is complete, finite where valid, on its grid, and made of these media"

EXAMPLES = """\
examples:
  avel store verify features
  avel store verify features --media videos/                     also hashes the media again
  avel store verify features --dataset ave --root AVE_Dataset    every video of the data set must have a row
  avel store verify features --json

Exit status: 0 nothing is wrong; 1 something is, or the store cannot be opened; 2 bad arguments.
"""

_SHOWN = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="a folder or s3://bucket/prefix")
    parser.add_argument("--at", metavar="TAG", help="a tag or snapshot id instead of the newest commit")
    parser.add_argument("--media", metavar="DIR", help="the folder of the media: read them and compare their hashes")
    parser.add_argument("--dataset", metavar="NAME", help="a data set whose videos must all have a row")
    parser.add_argument("--root", metavar="DIR", help="where the data set's official files are")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict
    from pathlib import Path

    from catalog.store import open_store
    from jobs.console import BadArguments, Progress, note, print_json, say, table
    from pipeline.verify import verify

    if (args.dataset is None) != (args.root is None):
        raise BadArguments("--dataset and --root go together")
    if args.media is not None and not Path(args.media).is_dir():
        raise BadArguments(f"--media needs a folder, got {args.media!r}")
    wanted = None
    if args.dataset is not None:
        from catalog import dataset

        if args.dataset not in dataset.names():
            raise BadArguments(f"no data set {args.dataset!r}; there are {', '.join(dataset.names())}")
        wanted = [video.id for video in dataset.load(args.dataset, args.root).videos]
    store = open_store(args.store, at=args.at)
    total = 1 + len(store.recipes())
    if args.media is not None:
        total += sum(1 for digest in store.videos().sha256 if digest)
    with Progress("verify", total, "checks", quiet=args.json) as progress:
        told = verify(
            store,
            wanted=wanted,
            media=None if args.media is None else Path(args.media),
            progress=lambda name: progress.advance(1, name),
        )
    if args.json:
        print_json({"store": store.uri, "snapshot": store.snapshot_id, "ok": not told.problems, **asdict(told)})
        return 1 if told.problems else 0
    if told.problems:
        table(
            f"{len(told.problems):,} problems",
            ["where", "video", "what"],
            [(p.where, "" if p.video_id is None else p.video_id, p.what) for p in told.problems[:_SHOWN]],
        )
        if len(told.problems) > _SHOWN:
            note(f"{len(told.problems) - _SHOWN:,} more; --json lists all")
    rows = ", ".join(f"{count:,} rows of {name}" for name, count in told.rows.items()) or "no recipe"
    hashed = f", {told.hashed:,} media hashed" if args.media is not None else ""
    verdict = f"{len(told.problems):,} problems" if told.problems else "sound"
    say(f"{store.uri} at {store.snapshot_id}: {verdict}; {told.videos:,} videos, {rows}{hashed}")
    return 1 if told.problems else 0
