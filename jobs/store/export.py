"""`avel store export STORE OUT`: features in a layout that published code reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from catalog.dataset import Dataset
from catalog.errors import BadArguments
from catalog.store.reader import FeatureStore, open_store
from jobs.cli.chosen_dataset import optional_dataset
from jobs.cli.console import note, print_json, say
from jobs.cli.dataset_options import add_root
from jobs.cli.store_options import add_at, add_store
from jobs.store.choices import chosen_format, chosen_recipe_name

HELP = "write a recipe's features as AVE's HDF5, UnAV's .npy files or plain Zarr"

EXAMPLES = """\
examples:
  avel store export features out --format ave-h5 --recipe vgg19-vggish-1s --dataset ave --root AVE_Dataset
  avel store export features out --format unav-npy --recipe i3d-vggish-unav
  avel store export features out --format zarr --recipe descriptors-1s --json

videos.json, written beside the files, lets `avel store import` restore the same store. Segments that were not
computed are NaN; --fill 0 writes zeros for code that cannot take them.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("out", metavar="OUT", help="the folder to write into; made if absent")
    parser.add_argument("--format", required=True, metavar="F", help="ave-h5, unav-npy or zarr")
    parser.add_argument("--recipe", metavar="R", help="which features; may be left out where the store has one recipe")
    add_at(parser)
    parser.add_argument("--dataset", metavar="NAME", help="only this data set's videos, in its order")
    add_root(parser)
    parser.add_argument(
        "--fill", choices=("nan", "0"), default="nan", help="for segments not computed (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    exchange = chosen_format(args.format)
    dataset = optional_dataset(args)
    store = open_store(args.store, at=args.at)
    recipe = chosen_recipe_name(store, args.recipe)
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise BadArguments(f"{out} is a file; give a folder to write into")
    counts = exchange.export(store, recipe, out, dataset=dataset, fill=float(args.fill))
    if counts.get("absent_videos"):
        note(f"{counts['absent_videos']} videos of the data set are not in the store: nothing was computed for them")
    if counts.get("cut_videos"):
        note(
            f"{counts['cut_videos']} videos have more than {counts['segments']} segments: the rest is not in the files"
        )
    if empty := _empty_videos(store, recipe, dataset):
        counts["empty_videos"] = empty
        note(f"{empty:,} of the videos were quarantined: the files hold no features of them")
    if args.json:
        print_json({"store": store.uri, "recipe": recipe, "format": args.format, "out": str(out), **counts})
    else:
        texts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in counts.items())
        say(f"{out}: {recipe} as {args.format}: {texts}")
    return 0


def _empty_videos(store: FeatureStore, recipe: str, dataset: Dataset | None) -> int:
    """How many of the exported videos have no feature row."""
    wanted = None if dataset is None else {video.id for video in dataset.videos}
    rows = zip(store.video_ids(), store.outcomes(recipe).row_count, strict=True)
    return sum(int(count) == 0 for video_id, count in rows if wanted is None or video_id in wanted)
