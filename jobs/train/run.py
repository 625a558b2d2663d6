"""Trains what `avel train` was asked for, and prints its scores."""

from __future__ import annotations

import argparse
from pathlib import Path

from catalog.dataset import names as dataset_names
from catalog.dataset import options_of
from catalog.errors import BadArguments
from catalog.store.reader import FeatureStore, open_store
from heads.registry import names as head_names
from heads.registry import spec
from heads.runs.folder import check_free
from heads.runs.record import Numbers
from heads.training.experiment import Materials, check_head, gather
from heads.training.fit import TrainingStopped
from heads.training.order import Order, carry_out
from heads.training.run import TrainedRun
from jobs.cli.console import Progress, note, print_json, say
from jobs.cli.head_settings import config_changes, settings_of
from jobs.cli.score_table import print_scores
from jobs.cli.signals import stoppable
from jobs.train.seeds import train_seeds

MAX_SEEDS = 1000


def run(args: argparse.Namespace) -> int:
    """`avel train`; the exit status."""
    check_data_set(args.dataset)
    if args.head not in head_names():
        raise BadArguments(f"--head: there is no {args.head!r}; there are {', '.join(head_names())}")
    order = _order(args)
    materials = gather(order)
    try:
        check_head(order, materials)
    except ValueError as error:
        raise BadArguments(f"--head {args.head}: {error}") from error
    if args.seeds is not None:
        return train_seeds(order, materials, num_seeds=args.seeds, jobs=args.jobs, as_json=args.json)
    return _train_one(order, materials, as_json=args.json)


def check_data_set(name: str) -> None:
    """Refuse an unknown data set as a bad argument, before anything is read."""
    if name not in dataset_names():
        raise BadArguments(f"--dataset: there is no {name!r}; there are {', '.join(dataset_names())}")


def anchored(place: str) -> str:
    """A path made absolute, so that a run still finds it from another folder; a URL as it is."""
    return place if "://" in place else str(Path(place).expanduser().absolute())


def _order(args: argparse.Namespace) -> Order:
    """What the arguments ask for.

    Raises:
        BadArguments: they do not go together, or --out is taken.
    """
    settings = settings_of(args, args.head, seed=args.seed)
    changes = config_changes(args.head, args.set)
    _check_options(args)
    if args.seeds is None:
        try:
            check_free(args.out, overwrite=args.overwrite)  # before an hour of training, not after it
        except ValueError as error:
            raise BadArguments(str(error)) from error
    store = open_store(args.store)
    return Order(
        store=anchored(args.store),
        snapshot=store.snapshot_id,
        dataset=args.dataset,
        root=anchored(args.root),
        media=args.media and anchored(args.media),
        options=_dataset_options(args),
        recipe=_recipe_name(store, args.recipe),
        head=args.head,
        modality=args.modality,
        changes=changes,
        vocabulary=args.vocabulary,
        settings=settings,
        threads=args.threads,
        out=args.out,
        overwrite=args.overwrite,
        restart=args.restart,
    )


def _check_options(args: argparse.Namespace) -> None:
    for option, number in (("--seeds", args.seeds), ("--jobs", args.jobs)):
        if number is not None and number < 1:
            raise BadArguments(f"{option} must be at least 1, got {number}")
    if args.seeds is not None and args.seeds > MAX_SEEDS:
        raise BadArguments(f"--seeds must be at most {MAX_SEEDS}, got {args.seeds}")
    if args.jobs is not None and args.seeds is None:
        raise BadArguments("--jobs is for --seeds: one training is one process")
    if args.seeds is not None and not spec(args.head).needs_training:
        raise BadArguments(f"--seeds: head {args.head} has nothing to train, all seeds would be the same")
    if args.vocabulary is not None and not spec(args.head).needs_texts:
        raise BadArguments(f"--vocabulary: head {args.head} does not choose among class texts")


def _dataset_options(args: argparse.Namespace) -> dict[str, str]:
    known, found = options_of(args.dataset), {}
    if args.train_share is not None:
        if "train_list" not in known:
            raise BadArguments(f"--train-share: {args.dataset} has no reduced training lists")
        found["train_list"] = f"{args.train_share / 100:g}"
    if args.unseen is not None:
        if "unseen" not in known:
            raise BadArguments(f"--unseen: {args.dataset} has no choice of unseen classes")
        found["unseen"] = str(Path(args.unseen).absolute()) if Path(args.unseen).is_file() else args.unseen
    return found


def _recipe_name(store: FeatureStore, given: str | None) -> str:
    held = sorted(store.recipes())
    if given is None and len(held) == 1:
        return held[0]
    if given is None or given not in held:
        wanted = "--recipe is needed" if given is None else f"--recipe: the store has no {given!r}"
        raise BadArguments(f"{wanted}; the store has {', '.join(held) or 'none yet, run `avel extract` first'}")
    return given


def _train_one(order: Order, materials: Materials, *, as_json: bool) -> int:
    trains = spec(order.head).needs_training
    with (
        stoppable("avel train", "after the epoch in hand") as (stop, received),
        Progress("train", order.settings.epochs, "epochs", quiet=not trains) as progress,
    ):

        def on_epoch(row: Numbers) -> None:
            metric = next((name for name in row if name.startswith("val_") and name != "val_loss"), None)
            score = f"val loss {row['val_loss']:.3f}"
            if metric is not None:
                score = f"{metric.replace('_', ' ')} {100 * row[metric]:.2f} %"
            progress.advance(1, f"train loss {row['train_loss']:.3f}, {score}")

        try:
            trained = carry_out(order, materials, on_epoch=on_epoch, stop=stop.is_set)
        except TrainingStopped as stopped:
            note(f"avel train: {stopped}; the same command goes on")
            if as_json:
                print_json({"run": str(order.out), "stopped": True})
            return 128 + received[0]
    _print_summary(order, trained, as_json=as_json)
    return 0


def _print_summary(order: Order, trained: TrainedRun, *, as_json: bool) -> None:
    record = trained.record
    for warning in trained.warnings:
        note(f"avel train: warning: {warning}")
    if as_json:
        print_json(
            {
                "run": str(order.out),
                "head": record.head,
                "modality": order.modality,
                "recipe": record.recipe.name,
                "metrics": record.metrics,
                "baselines": trained.baselines,
                "best_epoch": record.training["best_epoch"],
                "epochs_run": record.training["epochs_run"],
                "unseen": list(record.unseen),
                "texts": record.texts,
                "warnings": list(trained.warnings),
            }
        )
        return
    epoch = f"epoch {record.training['best_epoch']} of {record.training['epochs_run']}"
    print_scores(
        f"{record.head} ({order.modality}) on {record.dataset['name']}, recipe {record.recipe.name}, "
        + (epoch if spec(order.head).needs_training else "not trained"),
        f"{record.head} ({order.modality})",
        record.metrics,
        trained.baselines,
    )
    say(f"run: {order.out}")
