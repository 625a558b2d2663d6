"""`avel store export STORE OUT`: features in a layout that published code reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from catalog import dataset as datasets
from catalog.errors import BadArguments
from catalog.exchange.sidecar import formats
from catalog.store.reader import open_store
from jobs.cli.console import note, print_json, say

HELP = "write a recipe's features as AVE's HDF5, UnAV's .npy files or plain Zarr"

EXAMPLES = """\
examples:
  avel store export features out --format ave-h5 --recipe vgg19-vggish-1s --dataset ave --root AVE_Dataset
  avel store export features out --format unav-npy --recipe i3d-vggish-unav
  avel store export features out --format zarr --recipe descriptors-1s --json

Beside the files lies videos.json, by which `avel store import` gives the same store again. Segments that were not
computed are NaN; --fill 0 writes zeros for code that cannot take them.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="a folder or s3://bucket/prefix")
    parser.add_argument("out", metavar="OUT", help="the folder to write into; made if absent")
    parser.add_argument("--format", required=True, metavar="F", help="ave-h5, unav-npy or zarr")
    parser.add_argument("--recipe", metavar="R", help="which features; may be left out where the store has one recipe")
    parser.add_argument("--at", metavar="TAG", help="a tag or snapshot id instead of the newest commit")
    parser.add_argument("--dataset", metavar="NAME", help="only this data set's videos, in its order")
    parser.add_argument("--root", metavar="DIR", help="where the data set's official files are")
    parser.add_argument(
        "--fill", choices=("nan", "0"), default="nan", help="for segments not computed (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    if args.format not in formats():
        raise BadArguments(f"no format {args.format!r}; there are {', '.join(sorted(formats()))}")
    if (args.dataset is None) != (args.root is None):
        raise BadArguments("--dataset and --root go together")
    dataset = None
    if args.dataset is not None:
        if args.dataset not in datasets.names():
            raise BadArguments(f"no data set {args.dataset!r}; there are {', '.join(datasets.names())}")
        dataset = datasets.load(args.dataset, args.root)
    store = open_store(args.store, at=args.at)
    held = list(store.recipes())
    recipe = args.recipe if args.recipe is not None else held[0] if len(held) == 1 else None
    if recipe not in held:
        raise BadArguments(f"{store.uri} has the recipes {', '.join(held) or '(none)'}; say which with --recipe")
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise BadArguments(f"{out}: a file lies there; give a folder to write into")
    told = formats()[args.format].export(store, recipe, out, dataset=dataset, fill=float(args.fill))
    if told.get("absent_videos"):
        note(f"{told['absent_videos']} videos of the data set are not in the store: nothing was computed for them")
    if told.get("cut_videos"):
        note(f"{told['cut_videos']} videos have more than {told['segments']} segments: the rest is not in the files")
    if args.json:
        print_json({"store": store.uri, "recipe": recipe, "format": args.format, "out": str(out), **told})
    else:
        counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in told.items())
        say(f"{out}: {recipe} as {args.format}: {counts}")
    return 0
