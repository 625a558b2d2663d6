"""`avel evaluate`: the numbers of a trained head on a split, beside those of the trivial baselines."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catalog.store.reader import FeatureStore
    from heads.metrics.confusion_seen_unseen import SeenUnseenConfusion

HELP = "a run's metrics on a split"
EXAMPLES = """\
examples:
  avel evaluate runs/linear
  avel evaluate runs/linear --split val --json
  avel evaluate runs/ov --smooth 3                      the numbers after the run filter too
  avel evaluate runs/linear --store s3://bucket/ave     the store has moved, or another one of the same recipe
The store is read at the snapshot that the head was trained on; --newest takes what has been committed since.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="what `avel train` wrote")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"), help="default: %(default)s")
    parser.add_argument("--store", help="another place of the store, or another store of the same recipe")
    parser.add_argument("--newest", action="store_true", help="the store's newest commit, not the one trained on")
    parser.add_argument("--root", help="another place of the annotation files")
    parser.add_argument("--media", help="another place of the videos")
    parser.add_argument(
        "--smooth",
        type=int,
        metavar="W",
        help="also tell the numbers after the run filter: fewer than W equal neighbours are taken for mistakes",
    )
    parser.add_argument("--device", default="cpu", help="torch's name, such as cuda (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    from catalog.dataset import load
    from catalog.errors import BadArguments
    from heads.data.split import find_recipe, read_split
    from heads.evaluation.evaluate import baselines, evaluate
    from heads.evaluation.protocol import without_unseen_training
    from heads.registry import is_dense, spec
    from heads.runs.folder import read_run, update_run
    from heads.training.order import annotations_of
    from heads.training.run import split_warnings
    from jobs.cli.console import note, print_json, say
    from jobs.cli.head_settings import check_device
    from jobs.cli.score_table import print_scores

    if args.smooth is not None and args.smooth < 1:
        raise BadArguments(f"--smooth must be at least 1, got {args.smooth}")
    check_device(args.device)
    trained = read_run(args.run_folder)
    record = trained.record
    dense = is_dense(record.head)
    if args.smooth is not None and (record.background is None or dense):
        raise BadArguments("--smooth is for data sets with one class a segment")
    dataset_name = record.dataset["name"] or ""
    root, media = args.root or record.dataset["root"] or "", args.media or record.dataset["media"]
    # What was held out is what the run says: a file that named it may say something else today.
    options = {name: value for name, value in record.dataset_options.items() if name != "unseen"}
    dataset = load(dataset_name, root, media, options)
    if "unseen" in record.dataset_options:
        dataset = dataclasses.replace(dataset, unseen=record.unseen)
    if (dataset.classes, dataset.background) != (record.classes, record.background):
        raise ValueError(
            f"{args.run_folder} was trained on {len(record.classes)} classes of {dataset_name}, "
            f"the annotations at {args.root or record.dataset['root']} have others ({len(dataset.classes)})"
        )
    store = _open(args.store or record.store["uri"], record.store["snapshot"], newest=args.newest)
    recipe_name = find_recipe(store, record.recipe)
    split = read_split(store, recipe_name, dataset, args.split, pool_places=spec(record.head).pools_places)
    evaluation = evaluate(trained.head.to(args.device), split, dataset, device=args.device, smooth=args.smooth)
    found = baselines(split, without_unseen_training(dataset), dense=dense)
    warnings = split_warnings(dataset, {args.split: split}, training=False)

    others = []
    if store.snapshot_id != record.store["snapshot"]:
        others.append(
            f"of snapshot {store.snapshot_id} of {store.uri}, the head was trained on {record.store['snapshot']}"
        )
    annotations = record.training.get("annotations")
    if annotations is not None and annotations != annotations_of(dataset):
        others.append(
            f"by the annotations at {root}, which are not (or no longer) those that the head was trained with"
        )
    warnings += [f"these are the numbers {other}; the run's own numbers are left as they are" for other in others]
    kept = not others
    if kept:
        metrics = record.metrics | {args.split: evaluation.metrics}
        try:
            update_run(args.run_folder, dataclasses.replace(record, metrics=metrics), {args.split: evaluation.rows})
        except OSError as error:
            kept = False
            warnings.append(f"the run's own numbers are left as they are: {error}")
    for warning in warnings:
        note(f"avel evaluate: warning: {warning}")
    if args.json:
        confusion = None if evaluation.confusion is None else evaluation.confusion.tolist()
        print_json(
            {
                "run": str(args.run_folder),
                "split": args.split,
                "metrics": evaluation.metrics,
                "baselines": found,
                "smoothed": None
                if evaluation.smoothed is None
                else {"minimum": args.smooth, "metrics": evaluation.smoothed},
                "confusion": confusion,
                "confusion_seen_unseen": None
                if evaluation.halves is None
                else _halves(evaluation.halves, record.classes, record.unseen),
                "classes": [*record.classes, *([record.background] if record.background is not None else [])],
                "written": kept,
                "warnings": warnings,
            }
        )
        return 0
    metrics_shown = evaluation.metrics
    print_scores(
        f"{args.run_folder} on the {args.split} split of {dataset.name}: "
        f"{metrics_shown['items']} items, "
        + (f"{metrics_shown['events']} events" if dense else f"{metrics_shown['segments']} segments"),
        str(record.head),
        {args.split: metrics_shown},
        {
            args.split: found
            if evaluation.smoothed is None
            else {f"smoothed, {args.smooth}": evaluation.smoothed, **found}
        },
    )
    if evaluation.halves is not None:
        _print_halves(_halves(evaluation.halves, record.classes, record.unseen))
    if kept:
        say(f"written: {args.run_folder / f'predictions_{args.split}.json'}")
    return 0


def _halves(halves: SeenUnseenConfusion, classes: Sequence[str], unseen: Collection[str]) -> dict[str, Any]:
    """Both confusions, and what they come to: true groups by what was said, in segments."""
    import numpy as np

    from heads.metrics.confusion_seen_unseen import PREDICTED_GROUPS, TRUE_GROUPS, group_confusion

    counts = group_confusion(halves.seen_KK + halves.unseen_KK, np.array([label not in unseen for label in classes]))
    return {
        "seen": halves.seen_KK.tolist(),
        "unseen": halves.unseen_KK.tolist(),
        "groups": {
            true: dict(zip(PREDICTED_GROUPS, row, strict=True))
            for true, row in zip(TRUE_GROUPS, counts.tolist(), strict=True)
        },
    }


def _print_halves(halves: Mapping[str, Any]) -> None:
    from jobs.cli.console import table

    groups: Mapping[str, Mapping[str, int]] = halves["groups"]
    rows: list[list[object]] = [[true, *map(str, said.values())] for true, said in groups.items()]
    table("Segments: true class by what was said", ["", *next(iter(groups.values()))], rows)


def _open(uri: str, snapshot: str, *, newest: bool) -> FeatureStore:
    from catalog.errors import StoreError
    from catalog.store.reader import open_store

    latest = open_store(uri)  # says what is wrong where there is no store at all
    if newest:
        return latest
    try:
        return open_store(uri, at=snapshot)
    except StoreError:
        return latest  # another store of the same recipe; `run` says that it is another snapshot
