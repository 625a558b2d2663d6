"""`avel store import SOURCE STORE`: features made elsewhere (or exported) into a store."""

from __future__ import annotations

import argparse
from pathlib import Path

from catalog import dataset as datasets
from catalog.errors import BadArguments
from catalog.exchange.sidecar import formats
from catalog.grid import GridRule, exact_seconds
from catalog.store.reader import exists, open_store
from jobs.cli.console import print_json, say
from jobs.cli.store_options import add_wait

HELP = "read features in AVE's HDF5, UnAV's .npy or plain Zarr layout into a store"

EXAMPLES = """\
examples:
  avel store import out features --format ave-h5                        what `avel store export` wrote: exact
  avel store import AVE_features features --format ave-h5 --as vgg19 --window 1 --hop 1 --dataset ave --root AVE_Dataset
  avel store import av_features features --format unav-npy --as i3d --window 24/25 --hop 8/25

Features of others say neither what a row spans nor how frames were taken: give --window and --hop; the recipe's card
notes where they came from. Nothing is ever unpickled.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="the folder with the files")
    parser.add_argument("store", metavar="STORE", help="a folder or s3://bucket/prefix; made if absent")
    parser.add_argument("--format", required=True, metavar="F", help="ave-h5, unav-npy or zarr")
    parser.add_argument(
        "--as", dest="name", default="imported", metavar="NAME", help="the recipe's name, for features of others"
    )
    parser.add_argument("--window", metavar="S", help="seconds that a row sees, such as 1 or 24/25")
    parser.add_argument("--hop", metavar="S", help="seconds between rows")
    parser.add_argument("--dataset", metavar="NAME", help="whose rows they are: ave, unav100, ...")
    parser.add_argument("--root", metavar="DIR", help="where the data set's official files are")
    add_wait(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    if args.format not in formats():
        raise BadArguments(f"no format {args.format!r}; there are {', '.join(sorted(formats()))}")
    if (args.dataset is None) != (args.root is None):
        raise BadArguments("--dataset and --root go together")
    if (args.window is None) != (args.hop is None):
        raise BadArguments("--window and --hop go together")
    source = Path(args.source)
    if not source.is_dir():
        raise BadArguments(f"SOURCE needs a folder, got {args.source!r}")
    dataset, grid = None, None
    try:
        if args.window is not None:
            grid = GridRule(window_s=exact_seconds(args.window), hop_s=exact_seconds(args.hop), tail="drop")
    except ValueError as error:
        raise BadArguments(f"--window and --hop: {error}") from error
    if args.dataset is not None:
        if args.dataset not in datasets.names():
            raise BadArguments(f"no data set {args.dataset!r}; there are {', '.join(datasets.names())}")
        dataset = datasets.load(args.dataset, args.root)
    before = _recipes(args.store)
    store = formats()[args.format].import_(
        source, args.store, name=args.name, grid=grid, dataset=dataset, wait_s=args.wait
    )
    recipes = {name: entry.rows for name, entry in store.recipes().items() if entry.rows != before.get(name)}
    if args.json:
        print_json(
            {
                "store": store.uri,
                "snapshot": store.snapshot_id,
                "format": args.format,
                "rows": recipes,
                "videos": len(store),
            }
        )
    else:
        rows = ", ".join(f"{name} with {count:,} rows" for name, count in recipes.items()) or "no rows"
        say(f"{store.uri}: {rows}; {len(store):,} videos in the store, snapshot {store.snapshot_id}")
    return 0


def _recipes(uri: str) -> dict[str, int]:
    return {name: entry.rows for name, entry in open_store(uri).recipes().items()} if exists(uri) else {}
