"""`avel store import`: features from the file formats of published code."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "read features from AVE's HDF5, UnAV-100's npy files or plain Zarr into a store"
EXAMPLES = """\
examples:
  avel store import out/ features --format ave-h5           what `avel store export` wrote: exact
  avel store import AVE/data features --format ave-h5 --dataset ave --root AVE --window 1 --hop 1 --as vgg19-vggish
  avel store import unav features --format unav-npy --window 1 --hop 1/4 --as onepeace

Files without our sidecar need --window and --hop (seconds, 8/25 or 0.32), AVE's also the data set.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from jobs.store.export import FORMATS

    parser.add_argument("source", type=Path, metavar="SOURCE", help="the folder of the files")
    parser.add_argument("store", metavar="STORE", help="a folder or s3://bucket/prefix; made if absent")
    parser.add_argument("--format", choices=tuple(FORMATS), required=True)
    parser.add_argument("--as", dest="name", default="imported", metavar="NAME", help="recipe name (default: imported)")
    parser.add_argument("--window", metavar="S", help="seconds that one row spans")
    parser.add_argument("--hop", metavar="S", help="seconds between rows")
    parser.add_argument("--dataset", metavar="NAME", help="whose rows they are")
    parser.add_argument("--root", metavar="DIR", help="where the data set's official files are")
    parser.add_argument("--wait", type=float, default=0.0, metavar="S", help="for another writer of the store to end")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    import importlib

    from catalog.dataset import load
    from catalog.grid import GridRule, exact_seconds
    from jobs.cli import OK
    from jobs.console import BadArguments, print_json, say
    from jobs.store.export import FORMATS

    if (args.dataset is None) != (args.root is None):
        raise BadArguments("--dataset and --root go together")
    if (args.window is None) != (args.hop is None):
        raise BadArguments("--window and --hop go together")
    grid = None
    if args.window is not None:
        try:
            grid = GridRule(window_s=exact_seconds(args.window), hop_s=exact_seconds(args.hop), tail="drop")
        except ValueError as error:
            raise BadArguments(str(error)) from error
    dataset = load(args.dataset, args.root) if args.dataset else None
    exchange = importlib.import_module(f"catalog.exchange.{FORMATS[args.format]}")
    store = exchange.import_(args.source, args.store, name=args.name, grid=grid, dataset=dataset, wait_s=args.wait)
    told = {"store": store.uri, "snapshot": store.snapshot_id, "videos": len(store)}
    told["recipes"] = {name: entry.rows for name, entry in store.recipes().items()}
    if args.json:
        print_json(told)
    else:
        rows = ", ".join(f"{name} ({count} rows)" for name, count in told["recipes"].items())
        say(f"{store.uri}: {len(store)} videos; {rows}; snapshot {store.snapshot_id}")
    return OK
