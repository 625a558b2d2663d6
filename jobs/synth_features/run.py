"""`avel synth-features` at work: settings, annotations, and the store.

Everything goes in with one commit: an interrupted run leaves the store as it was, and is run again.
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from catalog.dataset import SPLITS, Dataset, load, plugin
from catalog.errors import AvelError, BadArguments
from catalog.recipe import Recipe
from catalog.store.reader import FeatureStore, create_store, exists, open_store
from catalog.store.rows import VideoResult
from catalog.store.writer import open_writer
from catalog.synthetic import planting
from catalog.synthetic.planting import PlantedSettings, World
from jobs.cli.console import Progress, duration, print_json, say
from jobs.cli.recipe_options import changes

# Most bytes drawn before they are handed to the store.
_BATCH_BYTES = 32 * 2**20

_SEEDS = ("seed", "noise_seed")
_SHORT = (*_SEEDS, "width", "places", "points", "scale_to")  # settings that have an option of their own


def run(args: argparse.Namespace) -> int:
    benchmark = _benchmark(args.protocol)
    if args.dataset not in (None, benchmark.DATASET):
        raise BadArguments(
            f"{args.protocol} plants its signal in the annotations of data set {benchmark.DATASET}, got --dataset "
            f"{args.dataset}"
        )
    settings = _settings(args, benchmark)
    dataset = _dataset(args, benchmark, settings)
    world = benchmark.World(dataset, settings)
    name = args.name or f"planted-{args.protocol}"
    try:
        recipe = planting.recipe_of(args.protocol, settings, world, dataset, name=name, storage=args.storage)
    except ValueError as error:
        raise BadArguments(f"--as: {error}") from error
    _check_store(args.store, recipe, overwrite=args.overwrite)

    summary = _summary(args, recipe, world, dataset)
    began_s = time.monotonic()
    if not args.dry_run:
        with Progress("synth-features", len(dataset.videos), "videos") as progress:
            store = _write(args, recipe, world, dataset, progress)
        summary |= {"snapshot": store.snapshot_id}
        if args.reduced is not None:
            plugin(dataset.name).write(dataset, args.reduced)
    spent_s = time.monotonic() - began_s
    summary |= {"dry_run": args.dry_run, "seconds": round(spent_s, 3)}
    if args.json:
        print_json(summary)
        return 0
    verb = "would write" if args.dry_run else "wrote"
    say(
        f"{verb} {name} ({recipe.fingerprint()[:12]}): {summary['videos']:,} videos, {summary['rows']:,} rows, "
        f"visual {summary['visual_shape']} and audio {summary['audio_shape']}, {summary['bytes'] / 2**20:.1f} MiB: "
        f"{args.store}"
    )
    if args.dry_run:
        say("settings: " + ", ".join(f"{key}={value}" for key, value in summary["settings"].items()))
    else:
        root = args.root if args.reduced is None else args.reduced
        say(f"in {duration(spent_s)}; train on it with --dataset {dataset.name} --root {root} --recipe {name}")
    return 0


def _benchmark(name: str) -> planting.Benchmark:
    try:
        return planting.plugin(name)
    except ValueError as error:
        raise BadArguments(str(error)) from error


def _settings(args: argparse.Namespace, benchmark: planting.Benchmark) -> PlantedSettings:
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
        return planting.settings_from(benchmark, texts)
    except ValueError as error:
        raise BadArguments(f"{args.protocol}: {error}") from error


def _dataset(args: argparse.Namespace, benchmark: planting.Benchmark, settings: PlantedSettings) -> Dataset:
    """The data set, reduced if that is asked for."""
    reduce = getattr(benchmark, "reduced", None)
    if args.reduced is not None and reduce is None:
        raise BadArguments(f"--reduced: {args.protocol} has no smaller data set; leave it out")
    videos = _videos(args.videos)
    if args.reduced is None and (videos or args.classes is not None):
        option = "--videos" if videos else "--classes"
        raise BadArguments(f"{option} goes with --reduced DIR, where such annotations are written")
    dataset = load(benchmark.DATASET, args.root)
    if reduce is None or args.reduced is None:
        return dataset
    num_classes = {} if args.classes is None else {"num_classes": args.classes}
    try:
        found: Dataset = reduce(dataset, settings, videos=videos, **num_classes)
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
    found: dict[str, int] = {}
    for part in (text or "").split(",") if text is not None else ():
        split, equals, number = part.partition("=")
        if not equals or split not in SPLITS or split in found or not (number.isascii() and number.isdigit()):
            raise BadArguments(f"--videos needs SPLIT=N,... with {', '.join(SPLITS)}, each once, got {text!r}")
        found[split] = int(number)
    return found


def _summary(args: argparse.Namespace, recipe: Recipe, world: World, dataset: Dataset) -> dict[str, Any]:
    """What is written, for `--json`."""
    rows = sum(planting.grid_of(world, dataset, video.id).count for video in dataset.videos)
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


def _check_store(uri: str, recipe: Recipe, *, overwrite: bool) -> None:
    """Refuse a store in which features would be lost or mixed.

    Raises:
        BadArguments: the store holds this recipe, and may not or cannot be replaced.
    """
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
    encoder = held[recipe.name].recipe.encoder
    reasons = {
        f"it also holds {', '.join(others)}": bool(others),
        f"it has the tags {', '.join(store.tags())}": bool(store.tags()),
        "it is not local": store.place.path is None,
        f"its {recipe.name} was made with encoder {encoder}": encoder != planting.ENCODER,
    }
    why = next((reason for reason, applies in reasons.items() if applies), None)
    if why is not None:
        raise BadArguments(f"--overwrite: {uri} is left as it is: {why}; give another name with --as")


def _write(
    args: argparse.Namespace, recipe: Recipe, world: World, dataset: Dataset, progress: Progress
) -> FeatureStore:
    if not exists(args.store):
        store = create_store(args.store)
        _fill(store, args, recipe, world, dataset, progress)
        return store
    old = open_store(args.store)
    if recipe.name not in old.recipes():
        _fill(old, args, recipe, world, dataset, progress)
        return old
    assert old.place.path is not None  # checked by _check_store
    path = old.place.path
    with (
        open_writer(old, wait_s=args.wait),
        tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder,
    ):
        # Written beside the old store and renamed when complete: after a kill before that, the old store is there.
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
    store: FeatureStore, args: argparse.Namespace, recipe: Recipe, world: World, dataset: Dataset, progress: Progress
) -> None:
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
        for result in planting.results(world, dataset, recipe.name):
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
