"""Evaluates a run as `avel evaluate` asks for, and keeps the numbers where they are of what it was trained on."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from catalog.dataset import Dataset, load
from catalog.errors import BadArguments, StoreError
from catalog.store.reader import FeatureStore, open_store
from heads.data.split import find_recipe, read_split
from heads.data.split_warnings import split_warnings
from heads.evaluation.evaluate import Evaluation
from heads.evaluation.protocol import without_unseen_training
from heads.metrics.confusion_seen_unseen import PREDICTED_GROUPS, TRUE_GROUPS, SeenUnseenConfusion, group_confusion
from heads.registry import spec
from heads.runs.folder import read_run, update_run
from heads.runs.record import Numbers, RunRecord
from heads.training.order import annotations_of
from heads.training.settings import Settings
from heads.training.task import make_task
from jobs.cli.console import note, print_json, say, table
from jobs.cli.head_settings import check_device
from jobs.cli.score_table import print_scores


def run(args: argparse.Namespace) -> int:
    """`avel evaluate`; the exit status."""
    if args.smooth is not None and args.smooth < 1:
        raise BadArguments(f"--smooth must be at least 1, got {args.smooth}")
    check_device(args.device)
    trained = read_run(args.run_folder)
    record = trained.record
    dataset = _annotations(args, record)
    task = make_task(record.head, without_unseen_training(dataset), Settings(device=args.device))
    if args.smooth is not None and not task.uses_run_filter:
        raise BadArguments("--smooth is for data sets with one class a segment")
    store = _open(args.store or record.store["uri"], record.store["snapshot"], newest=args.newest)
    recipe_name = find_recipe(store, record.recipe)
    split = read_split(store, recipe_name, dataset, args.split, pool_places=spec(record.head).pools_places)
    evaluation = task.evaluate(trained.head.to(args.device), split, smooth=args.smooth)
    baselines = task.baselines(split)

    foreign = _foreign(args, record, store, dataset)
    warnings = split_warnings(dataset, {args.split: split}, training=False)
    warnings += [f"these are the numbers {why}; the run's own numbers are left as they are" for why in foreign]
    kept = not foreign
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
        print_json(_as_json(args, record, evaluation, baselines) | {"written": kept, "warnings": warnings})
        return 0
    title = (
        f"{args.run_folder} on the {args.split} split of {dataset.name}: {evaluation.metrics['items']} items, "
        f"{task.size(evaluation.metrics)}"
    )
    _print_summary(args, record, evaluation, baselines, title)
    if kept:
        say(f"written: {args.run_folder / f'predictions_{args.split}.json'}")
    return 0


def _annotations(args: argparse.Namespace, record: RunRecord) -> Dataset:
    """The data set that the run was trained on, where it is now.

    Raises:
        ValueError: the annotations have other classes.
    """
    name = record.dataset["name"] or ""
    root, media = args.root or record.dataset["root"] or "", args.media or record.dataset["media"]
    # What was held out is what the run says: a file that named it may say something else today.
    options = {key: value for key, value in record.dataset_options.items() if key != "unseen"}
    dataset = load(name, root, media, options)
    if "unseen" in record.dataset_options:
        dataset = dataclasses.replace(dataset, unseen=record.unseen)
    if (dataset.classes, dataset.background) != (record.classes, record.background):
        raise ValueError(
            f"{args.run_folder} was trained on {len(record.classes)} classes of {name}, "
            f"the annotations at {args.root or record.dataset['root']} have others ({len(dataset.classes)})"
        )
    return dataset


def _open(uri: str, snapshot: str, *, newest: bool) -> FeatureStore:
    latest = open_store(uri)  # says what is wrong where there is no store at all
    if newest:
        return latest
    try:
        return open_store(uri, at=snapshot)
    except StoreError:
        return latest  # another store of the same recipe; `_foreign` says that it is another snapshot


def _foreign(args: argparse.Namespace, record: RunRecord, store: FeatureStore, dataset: Dataset) -> list[str]:
    """Why numbers are not the run's own: of other features, or by other annotations, than it was trained with."""
    found = []
    if store.snapshot_id != record.store["snapshot"]:
        found.append(
            f"of snapshot {store.snapshot_id} of {store.uri}, the head was trained on {record.store['snapshot']}"
        )
    annotations = record.training.get("annotations")
    if annotations is not None and annotations != annotations_of(dataset):
        root = args.root or record.dataset["root"] or ""
        found.append(f"by the annotations at {root}, which are not (or no longer) those that the head was trained with")
    return found


def _as_json(
    args: argparse.Namespace, record: RunRecord, evaluation: Evaluation, baselines: Mapping[str, Numbers]
) -> dict[str, Any]:
    smoothed, halves = evaluation.smoothed, evaluation.seen_unseen
    return {
        "run": str(args.run_folder),
        "split": args.split,
        "metrics": evaluation.metrics,
        "baselines": baselines,
        "smoothed": None if smoothed is None else {"minimum": args.smooth, "metrics": smoothed},
        "confusion": None if evaluation.confusion is None else evaluation.confusion.tolist(),
        "confusion_seen_unseen": None
        if halves is None
        else {"seen": halves.seen_KK.tolist(), "unseen": halves.unseen_KK.tolist()}
        | {"groups": _groups(halves, record.classes, record.unseen)},
        "classes": [*record.classes, *([record.background] if record.background is not None else [])],
    }


def _print_summary(
    args: argparse.Namespace,
    record: RunRecord,
    evaluation: Evaluation,
    baselines: Mapping[str, Numbers],
    title: str,
) -> None:
    smoothed = {} if evaluation.smoothed is None else {f"smoothed, {args.smooth}": evaluation.smoothed}
    print_scores(title, record.head, {args.split: evaluation.metrics}, {args.split: {**smoothed, **baselines}})
    if evaluation.seen_unseen is not None:
        groups = _groups(evaluation.seen_unseen, record.classes, record.unseen)
        rows: list[list[object]] = [[true, *map(str, counts.values())] for true, counts in groups.items()]
        table("Segments: true class by what was said", ["", *next(iter(groups.values()))], rows)


def _groups(
    confusion: SeenUnseenConfusion, classes: Sequence[str], unseen: Collection[str]
) -> dict[str, dict[str, int]]:
    """Segments by their true group and the group that was predicted."""
    seen_C = np.array([label not in unseen for label in classes])
    counts = group_confusion(confusion.seen_KK + confusion.unseen_KK, seen_C)
    return {
        true: dict(zip(PREDICTED_GROUPS, row, strict=True))
        for true, row in zip(TRUE_GROUPS, counts.tolist(), strict=True)
    }
