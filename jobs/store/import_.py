"""`avel store import SOURCE STORE`: features made elsewhere (or exported) into a store."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from catalog.dataset import Dataset
from catalog.errors import BadArguments
from catalog.exchange.importing import Stated, import_features
from catalog.exchange.sidecar import NAME as SIDECAR
from catalog.store.reader import FeatureStore, exists, open_store
from jobs.cli.chosen_dataset import optional_dataset
from jobs.cli.console import note, print_json, say
from jobs.cli.dataset_options import add_root
from jobs.cli.store_options import add_store, add_wait
from jobs.store.choices import chosen_format, chosen_grid
from pipeline.recipes import presets

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
    add_store(parser, made=True)
    parser.add_argument("--format", required=True, metavar="F", help="ave-h5, unav-npy or zarr")
    parser.add_argument(
        "--as", dest="name", default="imported", metavar="NAME", help="the recipe's name, for features of others"
    )
    parser.add_argument("--window", metavar="S", help="seconds that a row sees, such as 1 or 24/25")
    parser.add_argument("--hop", metavar="S", help="seconds between rows")
    parser.add_argument("--dataset", metavar="NAME", help="whose rows they are: ave, unav100, ...")
    add_root(parser)
    add_wait(parser)


def run(args: argparse.Namespace) -> int:
    exchange = chosen_format(args.format)
    source = Path(args.source)
    if not source.is_dir():
        raise BadArguments(f"SOURCE needs a folder, got {args.source!r}")
    if args.name in presets() and not (source / SIDECAR).exists():
        raise BadArguments(f"--as {args.name}: the name of a recipe that makes features here; give these another")
    grid = chosen_grid(args)
    dataset = optional_dataset(args)
    before = _recipes(args.store)
    stated = Stated(name=args.name, grid=grid, dataset=dataset)
    store = import_features(exchange, source, args.store, stated, wait_s=args.wait)
    recipes = {name: entry.rows for name, entry in store.recipes().items() if entry.rows != before.get(name)}
    outcomes = {name: _outcomes(store, name) for name in recipes}
    absent = [] if dataset is None else _without_rows(store, dataset, recipes)
    if absent and dataset is not None:
        note(
            f"{len(absent):,} of the {len(dataset.videos):,} videos of {dataset.name} have no features in {source}: "
            f"{', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''}"
        )
    if args.json:
        print_json(
            {
                "store": store.uri,
                "snapshot": store.snapshot_id,
                "format": args.format,
                "rows": recipes,
                "outcomes": outcomes,
                "absent_videos": len(absent),
                "videos": len(store),
            }
        )
    else:
        rows = ", ".join(f"{name} with {count:,} rows" for name, count in recipes.items()) or "no rows"
        say(f"{store.uri}: {rows}; {len(store):,} videos in the store, snapshot {store.snapshot_id}")
        for name, counts in outcomes.items():
            told = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
            say(f"{name}: {told}")
    return 0


def _outcomes(store: FeatureStore, recipe: str) -> dict[str, int]:
    """How many videos are "extracted", "partial: no_audio", "quarantined: missing_file", ..."""
    table = store.outcomes(recipe)
    told = (f"{s}: {r}" if r else s for s, r in zip(table.status, table.reason, strict=True))
    return dict(Counter(told).most_common())


def _without_rows(store: FeatureStore, dataset: Dataset, recipes: Iterable[str]) -> list[str]:
    """The data set's videos that have no feature row under any of the recipes."""
    ids, held = store.video_ids(), set[str]()
    for name in recipes:
        held |= {ids[i] for i in np.flatnonzero(store.outcomes(name).row_count)}
    return [video.id for video in dataset.videos if video.id not in held]


def _recipes(uri: str) -> dict[str, int]:
    return {name: entry.rows for name, entry in open_store(uri).recipes().items()} if exists(uri) else {}
