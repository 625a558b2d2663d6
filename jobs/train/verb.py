"""`avel train`: a head from a store's features and a data set's annotations, to a run folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.cli.head_options import add_how

if TYPE_CHECKING:
    from catalog.store.reader import FeatureStore
    from heads.training.order import Materials, Order
    from heads.training.run import TrainedRun

MAX_SEEDS = 1000

HELP = "train a head on a store's features"
EXAMPLES = """\
examples:
  avel train --store STORE --dataset ave --root AVE --out runs/linear
  avel train --store STORE --dataset ave --root AVE --recipe audioclip-1s --modality audio --out runs/audio
  avel train --store STORE --dataset ave --root AVE --head ave_clip --out runs/ave-clip
  avel train --store STORE --dataset unav100 --root UNAV --epochs 30 --lr 3e-4 --out runs/unav --overwrite
  avel train --store STORE --dataset ovavebench --root OV --head ov_avel --vocabulary ovavebench --out runs/ov
  avel train --store STORE --dataset ovavebench --root OV --head ov_avel --train-share 25 --out runs/ov-25
  avel train --store STORE --dataset unav100 --root UNAV --head loco --out runs/loco       events with times: mAP
  avel train --store STORE --dataset unav100 --root UNAV --head loco_texts --unseen 0.25 --out runs/loco-open
  avel train --store STORE --dataset ovavebench --root OV --head ov_avel_free --out runs/ov-free   nothing to train
  avel train --store STORE --dataset ave --root AVE --head ave_clip --set windows=10,5 --set shared=false --out runs/w
  avel train --store STORE --dataset ave --root AVE --head psp --seeds 5 --out runs/psp    mean and sd of five runs
The checkpoint is chosen on the validation split; the test split is looked at once, afterwards.
The same command again goes on after a kill and ends as the undisturbed run would, bit for bit; what it goes on from is
in RUN.partial until the run is written. TensorBoard: tensorboard --logdir runs.
Exit status: 0 trained; 1 failed; 2 bad arguments; 130/143 stopped by SIGINT/SIGTERM after the epoch in hand.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", required=True, help="path or s3:// URL of the feature store")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="ave, unav100, ovavebench, ...")
    parser.add_argument("--root", required=True, help="folder of the data set's annotation files")
    parser.add_argument("--media", help="folder or URL prefix of the videos, if not under --root")
    parser.add_argument("--recipe", metavar="NAME", help="features to use; may be left out if the store has one recipe")
    parser.add_argument(
        "--head", default="linear", metavar="NAME", help="default: %(default)s; any other word lists them"
    )
    parser.add_argument("--modality", default="both", choices=("both", "audio", "visual"), help="default: %(default)s")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the head's config; any other word lists them",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="NAME",
        help="class texts that `avel labels` stored, for heads that need them; may be left out if one fits",
    )
    parser.add_argument(
        "--train-share",
        type=int,
        choices=(25, 50, 75),
        help="per cent of the training items, by the data set's own list (ovavebench)",
    )
    parser.add_argument(
        "--unseen",
        metavar="SHARE|FILE",
        help="classes held out of training: a share such as 0.25, or a file with one class a line (unav100)",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="folder to make for the run")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that lies at --out")
    add_how(parser)
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="train this many, from --seed on, to RUN/seed-*; tells mean and sd"
    )
    parser.add_argument("--jobs", type=int, help="seeds trained at a time (as many as the cores have threads for)")
    parser.add_argument("--restart", action="store_true", help="begin anew where an interrupted training could go on")


def run(args: argparse.Namespace) -> int:
    from catalog.errors import BadArguments

    _check_names(args)
    from catalog.store.reader import open_store
    from heads.registry import spec
    from heads.runs.folder import check_free
    from heads.training.order import Order, check_head, gather
    from jobs.cli.head_settings import config_changes, settings_of

    settings = settings_of(args, args.head, seed=args.seed)
    changes = config_changes(args.head, args.set)
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
    if args.seeds is None:
        try:
            check_free(args.out, overwrite=args.overwrite)  # before an hour of training, not after it
        except ValueError as error:
            raise BadArguments(str(error)) from error
    store = open_store(args.store)
    order = Order(
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
    materials = gather(order)
    try:
        check_head(order, materials)
    except ValueError as error:
        raise BadArguments(f"--head {args.head}: {error}") from error
    if args.seeds is not None:
        from jobs.train.seeds import train_seeds

        return train_seeds(order, materials, num_seeds=args.seeds, jobs=args.jobs, as_json=args.json)
    return _train_one(order, materials, as_json=args.json)


def _train_one(order: Order, materials: Materials, *, as_json: bool) -> int:
    from heads.registry import spec
    from heads.runs.record import Numbers
    from heads.training.fit import TrainingStopped
    from heads.training.order import carry_out
    from jobs.cli.console import Progress, note, print_json
    from jobs.cli.signals import stoppable

    trains = spec(order.head).needs_training
    with (
        stoppable("avel train", "after the epoch in hand") as (stop, received),
        Progress("train", order.settings.epochs, "epochs", quiet=as_json or not trains) as progress,
    ):

        def on_epoch(row: Numbers) -> None:
            metric = next((name for name in row if name.startswith("val_") and name != "val_loss"), None)
            told = f"val loss {row['val_loss']:.3f}"
            if metric is not None:
                told = f"{metric.replace('_', ' ')} {100 * row[metric]:.2f} %"
            progress.advance(1, f"train loss {row['train_loss']:.3f}, {told}")

        try:
            trained = carry_out(order, materials, on_epoch=on_epoch, stop=stop.is_set)
        except TrainingStopped as stopped:
            note(f"avel train: {stopped}; the same command goes on")
            if as_json:
                print_json({"run": str(order.out), "stopped": True})
            return 128 + received[0]
    _tell(order, trained, trains=trains, as_json=as_json)
    return 0


def _tell(order: Order, trained: TrainedRun, *, trains: bool, as_json: bool) -> None:
    from jobs.cli.console import note, print_json, say
    from jobs.cli.score_table import print_scores

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
    print_scores(
        f"{record.head} ({order.modality}) on {record.dataset['name']}, recipe {record.recipe.name}, "
        + (f"epoch {record.training['best_epoch']} of {record.training['epochs_run']}" if trains else "not trained"),
        f"{record.head} ({order.modality})",
        record.metrics,
        trained.baselines,
    )
    say(f"run: {order.out}")


def anchored(place: str) -> str:
    """A path made absolute, so that a run still finds it from another folder; a URL as it is."""
    return place if "://" in place else str(Path(place).expanduser().absolute())


def _check_names(args: argparse.Namespace) -> None:
    """Refuse unknown names as bad arguments, before anything is read."""
    from catalog.errors import BadArguments
    from heads.registry import names as head_names

    check_data_set(args.dataset)
    if args.head not in head_names():
        raise BadArguments(f"--head: there is no {args.head!r}; there are {', '.join(head_names())}")


def check_data_set(name: str) -> None:
    """Refuse an unknown data set as a bad argument, before anything is read."""
    from catalog.dataset import names
    from catalog.errors import BadArguments

    if name not in names():
        raise BadArguments(f"--dataset: there is no {name!r}; there are {', '.join(names())}")


def _dataset_options(args: argparse.Namespace) -> dict[str, str]:
    from catalog.dataset import options_of
    from catalog.errors import BadArguments

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
    from catalog.errors import BadArguments

    held = sorted(store.recipes())
    if given is None and len(held) == 1:
        return held[0]
    if given is None or given not in held:
        wanted = "--recipe is needed" if given is None else f"--recipe: the store has no {given!r}"
        raise BadArguments(f"{wanted}; the store has {', '.join(held) or 'none yet, run `avel extract` first'}")
    return given
