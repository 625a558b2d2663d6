"""`avel store export`: features in the file formats of published code."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a recipe's features as AVE's HDF5, UnAV-100's npy files or plain Zarr"
EXAMPLES = """\
examples:
  avel store export features out/ --format ave-h5 --recipe descriptors-1s --dataset ave --root AVE
  avel store export features out/ --format unav-npy --recipe descriptors-1s
  avel store export features out.zarr --format zarr --recipe descriptors-1s

A sidecar beside the files keeps ids, validity, times and the recipe, so that `avel store import` gives the store back.
"""
FORMATS = {"ave-h5": "ave_hdf5", "unav-npy": "unav_npy", "zarr": "plain_zarr"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="a folder or s3://bucket/prefix")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write; must be free")
    parser.add_argument("--format", choices=tuple(FORMATS), required=True)
    parser.add_argument("--recipe", metavar="R", help="which (default: the store's only one)")
    parser.add_argument("--at", metavar="TAG", help="a tag or snapshot id (default: the newest commit)")
    parser.add_argument("--dataset", metavar="NAME", help="only its videos, in the order of its items")
    parser.add_argument("--root", metavar="DIR", help="where the data set's official files are")
    parser.add_argument(
        "--fill", type=float, default=float("nan"), metavar="X", help="stands where nothing was computed (default: nan)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    import importlib

    from catalog.dataset import load
    from catalog.store import open_store
    from jobs.cli import OK
    from jobs.console import BadArguments, print_json, say

    if (args.dataset is None) != (args.root is None):
        raise BadArguments("--dataset and --root go together")
    store = open_store(args.store, at=args.at)
    held = list(store.recipes())
    if args.recipe is None and len(held) != 1:
        raise BadArguments(f"--recipe must name one of: {', '.join(held) or 'none, the store is empty'}")
    recipe = args.recipe or held[0]
    dataset = load(args.dataset, args.root) if args.dataset else None
    exchange = importlib.import_module(f"catalog.exchange.{FORMATS[args.format]}")
    counts = exchange.export(store, recipe, args.out, dataset=dataset, fill=args.fill)
    if args.json:
        print_json({"store": store.uri, "recipe": recipe, "format": args.format, "out": str(args.out)} | counts)
    else:
        say(f"{args.out}: {recipe} as {args.format}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    return OK
