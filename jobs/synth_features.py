"""`avel synth-features`: a store of planted features under a data set's annotations.

Everything goes in with one commit: an interrupted run leaves the store as it was, and is run again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cli.recipe_options import add_set
from jobs.cli.store_options import add_wait

if TYPE_CHECKING:
    from catalog.dataset import Dataset
    from catalog.recipe import Recipe
    from catalog.store.reader import FeatureStore
    from catalog.synthetic.planting import PlantedSettings, World

HELP = "write a store of planted features with a data set's real annotations, to see what heads learn"
EXAMPLES = """\
examples:
  avel synth-features ave --root AVE_Dataset --store planted
  avel synth-features ave --root AVE_Dataset --store full --places 49 --scale-to 1024 --dry-run
  avel synth-features ovavebench --root OV-AVEBench --store planted-ov --set gap=0.7
  avel synth-features unav100 --root UnAV --store planted-unav --reduced UnAV-short
  avel synth-features unav100 --root UnAV --store small-unav --reduced UnAV-small --videos train=1000,val=60,test=160
  avel train --store planted --dataset ave --root AVE_Dataset --recipe planted-ave --head ave_clip --out runs/planted
The recipe, planted-PROTOCOL unless --as names it, holds every number that decides a value; --set changes any of them
(`avel synth-features PROTOCOL ... --dry-run` lists them). A video's features depend on the seeds and its id alone.
These features show that a head learns what it is for. They say nothing about real media.
"""

# What is drawn and not yet handed to the store.
_BATCH_BYTES = 32 * 2**20

_SEEDS = ("seed", "noise_seed")
_SHORT = (*_SEEDS, "width", "places", "points", "scale_to")  # settings that have an option of their own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("protocol", metavar="PROTOCOL", help="ave, ovavebench or unav100: a planted benchmark")
    parser.add_argument("--dataset", metavar="NAME", help="whose annotations (default: the protocol's)")
    parser.add_argument("--root", required=True, metavar="DIR", help="where the data set's official files are")
    parser.add_argument(
        "--store", required=True, metavar="STORE", help="a folder or s3://bucket/prefix; made if absent"
    )
    parser.add_argument("--as", dest="name", metavar="NAME", help="the recipe's name (default: planted-PROTOCOL)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the classes' prototypes (default: 0)")
    parser.add_argument("--noise-seed", type=int, metavar="N", help="of all drawn for a video (default: as --seed)")
    parser.add_argument("--width", type=int, metavar="D", help="of the features (default: the protocol's)")
    parser.add_argument(
        "--scale-to", type=int, metavar="D", help="embed the signals in D dimensions, with noise of the same norm"
    )
    parser.add_argument(
        "--places", type=int, metavar="R", help="ave: vectors a picture (4; 49 as VGG's maps; 1: no map)"
    )
    parser.add_argument("--points", type=int, metavar="T", help="unav100: segments of a video of 60 s (96)")
    parser.add_argument(
        "--reduced", type=Path, metavar="DIR", help="unav100: also write annotations of few classes and equal lengths"
    )
    parser.add_argument(
        "--videos",
        metavar="SPLIT=N,...",
        help="with --reduced: keep so many videos of a split, such as train=1000,val=100,test=160 (default: all)",
    )
    parser.add_argument("--classes", type=int, metavar="K", help="with --reduced: so many classes at most (10)")
    add_set(parser)
    parser.add_argument(
        "--storage", choices=("float32", "float16"), default="float32", help="of the numbers (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a store that holds this recipe and no other")
    add_wait(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, write nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from catalog.dataset import plugin
    from catalog.errors import BadArguments
    from catalog.synthetic import planting
    from jobs.cli.console import Progress, duration, print_json, say

    if args.protocol not in planting.names():
        raise BadArguments(f"no planted benchmark {args.protocol!r}; there are {', '.join(planting.names())}")
    benchmark = planting.plugin(args.protocol)
    if args.dataset not in (None, benchmark.DATASET):
        raise BadArguments(
            f"{args.protocol} plants its signal in the annotations of data set {benchmark.DATASET}, got --dataset "
            f"{args.dataset}"
        )
    settings = _settings(args)
    dataset = _dataset(args, settings)
    world = benchmark.World(dataset, settings)
    name = args.name or f"planted-{args.protocol}"
    try:
        recipe = planting.recipe_of(args.protocol, settings, world, dataset, name=name, storage=args.storage)
    except ValueError as error:
        raise BadArguments(f"--as: {error}") from error
    _check_place(args.store, recipe, overwrite=args.overwrite)

    told = _told(args, recipe, world, dataset)
    began_s = time.monotonic()
    if not args.dry_run:
        with Progress("synth-features", len(dataset.videos), "videos", quiet=args.json) as progress:
            store = _write(args, recipe, world, dataset, progress)
        told |= {"snapshot": store.snapshot_id}
        if args.reduced is not None:
            plugin(dataset.name).write(dataset, args.reduced)
    spent_s = time.monotonic() - began_s
    told |= {"dry_run": args.dry_run, "seconds": round(spent_s, 3)}
    if args.json:
        print_json(told)
        return 0
    verb = "would write" if args.dry_run else "wrote"
    say(
        f"{verb} {name} ({recipe.fingerprint()[:12]}): {told['videos']:,} videos, {told['rows']:,} rows, visual "
        f"{told['visual_shape']} and audio {told['audio_shape']}, {told['bytes'] / 2**20:.1f} MiB: {args.store}"
    )
    if args.dry_run:
        say("settings: " + ", ".join(f"{key}={value}" for key, value in told["settings"].items()))
    else:
        root = args.root if args.reduced is None else args.reduced
        say(f"in {duration(spent_s)}; train on it with --dataset {dataset.name} --root {root} --recipe {name}")
    return 0


def _settings(args: argparse.Namespace) -> PlantedSettings:
    from dataclasses import fields

    from catalog.errors import BadArguments
    from catalog.synthetic.planting import plugin, settings_from
    from jobs.cli.recipe_options import changes

    benchmark = plugin(args.protocol)
    known = [spec.name for spec in fields(benchmark.Settings)]
    texts = changes(args.set)
    for name in _SHORT:
        option, value = "--" + name.replace("_", "-"), getattr(args, name)
        if name == "noise_seed" and value is None:
            value = args.seed
        if name in texts:
            raise BadArguments(f"--set {name}: give it as {option}")
        if value is None:
            continue
        if name not in known:
            raise BadArguments(f"{option}: {args.protocol} has no such setting; it has {', '.join(known)}")
        texts[name] = str(value)
    try:
        return settings_from(benchmark, texts)
    except ValueError as error:
        raise BadArguments(f"{args.protocol}: {error}") from error


def _dataset(args: argparse.Namespace, settings: PlantedSettings) -> Dataset:
    """The data set, reduced if that is asked for."""
    from catalog.dataset import load
    from catalog.errors import AvelError, BadArguments
    from catalog.synthetic.planting import plugin

    benchmark: Any = plugin(args.protocol)
    if args.reduced is not None and not hasattr(benchmark, "reduced"):
        raise BadArguments(f"--reduced: {args.protocol} has no smaller data set; leave it out")
    videos = _videos(args.videos)
    if args.reduced is None and (videos or args.classes is not None):
        option = "--videos" if videos else "--classes"
        raise BadArguments(f"{option} goes with --reduced DIR, where such annotations are written")
    choice: dict[str, Any] = {"videos": videos} | ({} if args.classes is None else {"num_classes": args.classes})
    dataset = load(benchmark.DATASET, args.root)
    if args.reduced is None:
        return dataset
    try:
        found: Dataset = benchmark.reduced(dataset, settings, **choice)
    except ValueError as error:
        raise BadArguments(f"--reduced: {error}") from error
    if args.reduced.is_file() or (args.reduced.is_dir() and any(args.reduced.iterdir())):
        # Such as the real annotations; those of an earlier run are the same again.
        try:
            there = load(benchmark.DATASET, args.reduced)
        except AvelError:
            there = None
        if there is None or (there.items, there.classes) != (found.items, found.classes):
            raise BadArguments(f"--reduced {args.reduced}: holds something else; give an empty or a new folder")
    return found


def _videos(text: str | None) -> dict[str, int]:
    """Split to the number of its videos."""
    from catalog.dataset import SPLITS
    from catalog.errors import BadArguments

    found: dict[str, int] = {}
    for part in (text or "").split(",") if text is not None else ():
        split, equals, number = part.partition("=")
        if not equals or split not in SPLITS or split in found or not (number.isascii() and number.isdigit()):
            raise BadArguments(f"--videos needs SPLIT=N,... with {', '.join(SPLITS)}, each once, got {text!r}")
        found[split] = int(number)
    return found


def _told(args: argparse.Namespace, recipe: Recipe, world: World, dataset: Dataset) -> dict[str, Any]:
    import math

    import numpy as np

    from catalog.synthetic.planting import grid_of

    rows = sum(grid_of(world, dataset, video.id).count for video in dataset.videos)
    row_values = math.prod(world.visual_shape) + math.prod(world.audio_shape)
    texts = world.texts()
    return {
        "store": str(args.store),
        "protocol": args.protocol,
        "recipe": recipe.name,
        "fingerprint": recipe.fingerprint(),
        "settings": dict(recipe.settings),
        "videos": len(dataset.videos),
        "rows": rows,
        "visual_shape": list(world.visual_shape),
        "audio_shape": list(world.audio_shape),
        "bytes": rows * row_values * np.dtype(recipe.storage).itemsize,
        "labels": None if texts is None else {"vocabulary": dataset.name, "names": len(texts)},
        "reduced": None if args.reduced is None else str(args.reduced),
    }


def _check_place(uri: str, recipe: Recipe, *, overwrite: bool) -> None:
    """Refuses to write where features would be lost or mixed.

    Raises:
        BadArguments: says what is there and what to do.
    """
    from catalog.errors import BadArguments
    from catalog.store.reader import exists, open_store
    from catalog.synthetic.planting import ENCODER

    if not exists(uri):
        return
    store = open_store(uri)
    held = store.recipes()
    if recipe.name not in held:
        return
    if not overwrite:
        raise BadArguments(
            f"{uri} holds recipe {recipe.name!r} already; give another name with --as, or replace it with --overwrite"
        )
    # A store's rows are never written in place: a recipe is replaced by replacing a store that is nothing else.
    others = [name for name in held if name != recipe.name]
    if others or store.tags() or held[recipe.name].recipe.encoder != ENCODER or store.place.path is None:
        why = (
            f"it also holds {', '.join(others)}"
            if others
            else f"it has the tags {', '.join(store.tags())}"
            if store.tags()
            else "it is not local"
            if store.place.path is None
            else f"its {recipe.name} was made with encoder {held[recipe.name].recipe.encoder}"
        )
        raise BadArguments(f"--overwrite: {uri} is left as it is: {why}; give another name with --as")


def _write(args: argparse.Namespace, recipe: Recipe, world: World, dataset: Dataset, progress: Any) -> FeatureStore:
    import shutil
    import tempfile

    from catalog.store.reader import create_store, exists, open_store
    from catalog.store.writer import open_writer

    if not exists(args.store):
        store = create_store(args.store)
        _fill(store, args, recipe, world, dataset, progress)
        return store
    old = open_store(args.store)
    if recipe.name not in old.recipes():
        _fill(old, args, recipe, world, dataset, progress)
        return old
    assert old.place.path is not None  # _check_place
    path = old.place.path
    with (
        open_writer(old, wait_s=args.wait),
        tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder,
    ):
        # Made beside it and put in its place when it is whole: killed before that, the old one is there.
        _fill(create_store(Path(folder) / "new"), args, recipe, world, dataset, progress)
        path.rename(Path(folder) / "old")
        try:
            (Path(folder) / "new").rename(path)
        except BaseException:
            (Path(folder) / "old").rename(path)
            raise
        shutil.rmtree(Path(folder) / "old")
    return open_store(args.store)


def _fill(
    store: FeatureStore, args: argparse.Namespace, recipe: Recipe, world: World, dataset: Dataset, progress: Any
) -> None:
    from catalog.store.rows import VideoResult
    from catalog.store.writer import open_writer
    from catalog.synthetic.planting import results

    card = {
        "planted": args.protocol,
        "note": "made-up features with planted events; they say nothing about real media",
        "annotations": str(args.root),
    }
    texts = world.texts()
    with open_writer(store, wait_s=args.wait) as writer:
        writer.ensure_recipe(recipe, visual_shape=world.visual_shape, audio_shape=world.audio_shape, card=card)
        pending: list[VideoResult] = []
        held_bytes = 0
        for result in results(world, dataset, recipe.name):
            pending.append(result)
            held_bytes += result.features[recipe.name].nbytes
            progress.advance()
            if held_bytes >= _BATCH_BYTES:
                writer.append(pending, [recipe.name])
                pending, held_bytes = [], 0
        writer.append(pending, [recipe.name])
        if texts is not None:
            names = (*dataset.classes, dataset.background or "other")
            writer.write_labels(recipe.name, dataset.name, names, texts)
        writer.commit(f"planted {recipe.name}: {len(dataset.videos)} videos of {dataset.name}")
