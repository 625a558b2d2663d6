"""`avel train`: a head from a store's features and a data set's annotations, to a run folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catalog.dataset import Dataset
    from catalog.store import FeatureStore
    from heads.vocabulary import Vocabulary

HELP = "train a head on a store's features"
EXAMPLES = """\
examples:
  avel train --store STORE --dataset ave --root AVE --out runs/linear
  avel train --store STORE --dataset ave --root AVE --recipe audioclip-1s --modality audio --out runs/audio
  avel train --store STORE --dataset ave --root AVE --head ave_clip --out runs/ave-clip
  avel train --store STORE --dataset unav100 --root UNAV --epochs 30 --lr 3e-4 --out runs/unav --overwrite
  avel train --store STORE --dataset ovavebench --root OV --head ov_avel --vocabulary ovavebench --out runs/ov
  avel train --store STORE --dataset ovavebench --root OV --head ov_avel --train-share 25 --out runs/ov-25
  avel train --store STORE --dataset ovavebench --root OV --head ov_avel_free --out runs/ov-free   nothing to train
The checkpoint is chosen on the validation split; the test split is looked at once, afterwards.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", required=True, help="path or s3:// URL of the feature store")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="ave, unav100, ovavebench, ...")
    parser.add_argument("--root", required=True, help="folder of the data set's annotation files")
    parser.add_argument("--media", help="folder or URL prefix of the videos, if not under --root")
    parser.add_argument("--recipe", metavar="NAME", help="features to use; may be left out if the store has one recipe")
    parser.add_argument("--head", default="linear", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--modality", default="both", choices=("both", "audio", "visual"), help="default: %(default)s")
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
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="folder to make for the run")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that lies at --out")
    how = parser.add_argument_group(
        "how", "Defaults are those that the head was published with; of linear: in brackets."
    )
    how.add_argument("--epochs", type=int, help="at most (100)")
    how.add_argument("--lr", type=float, help="learning rate (3e-3)")
    how.add_argument("--weight-decay", type=float, help="(1e-2)")
    how.add_argument("--batch", type=int, help="items a step (16)")
    how.add_argument("--optimiser", choices=("adam", "adamw"), help="(adamw)")
    how.add_argument("--schedule", choices=("constant", "cosine", "one-cycle", "psp"), help="of the rate (constant)")
    how.add_argument("--clip-norm", type=float, help="hold the gradient's norm below this (not held)")
    parser.add_argument(
        "--patience",
        type=int,
        default=15,
        help="stop after so many epochs without a better validation; 0: never (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="torch's CPU threads; heads are small, and more of them wait for one another (default: %(default)s)",
    )
    parser.add_argument("--device", default="cpu", help="torch's name, such as cuda (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from jobs.console import BadArguments, Progress, note, print_json, say
    from jobs.scores import print_scores

    _check_names(args)
    import torch

    from catalog.dataset import load
    from catalog.store import open_store
    from heads.fit import published_settings
    from heads.model import plugin
    from heads.run_folder import Numbers, check_free, write_run
    from heads.train import train_run

    try:
        settings = published_settings(
            args.head,
            epochs=args.epochs,
            learning_rate=args.lr,
            weight_decay=args.weight_decay,
            batch_size=args.batch,
            patience=args.patience,
            seed=args.seed,
            device=args.device,
            optimiser=args.optimiser,
            schedule=args.schedule,
            clip_norm=args.clip_norm,
        )
        check_free(args.out, overwrite=args.overwrite)  # before an hour of training, not after it
    except ValueError as error:
        raise BadArguments(str(error)) from error
    if args.threads < 1:
        raise BadArguments(f"--threads must be at least 1, got {args.threads}")
    torch.set_num_threads(args.threads)
    store = open_store(args.store)
    recipe_name = _recipe_name(store, args.recipe)
    options = _dataset_options(args)
    dataset = load(args.dataset, args.root, args.media, options)
    texts = _texts(args, store, recipe_name, dataset)
    trains = getattr(plugin(args.head), "NEEDS_TRAINING", True)

    with Progress("train", settings.epochs, "epochs", quiet=args.json or not trains) as progress:

        def on_epoch(row: Numbers) -> None:
            metric = next((name for name in row if name.startswith("val_") and name != "val_loss"), None)
            told = f"val loss {row['val_loss']:.3f}"
            if metric is not None:
                told = f"{metric.replace('_', ' ')} {100 * row[metric]:.2f} %"
            progress.advance(1, f"train loss {row['train_loss']:.3f}, {told}")

        trained = train_run(
            store,
            dataset,
            recipe_name,
            head_name=args.head,
            modality=args.modality,
            settings=settings,
            places={
                "store": {"uri": anchored(args.store)},
                "dataset": {"root": anchored(args.root), "media": args.media and anchored(args.media)} | options,
            },
            texts=texts,
            on_epoch=on_epoch,
        )
    record = trained.record
    predictions = {split: evaluation.rows for split, evaluation in trained.evaluations.items()}
    write_run(args.out, record, trained.state, predictions, overwrite=args.overwrite)

    for warning in trained.warnings:
        note(f"avel train: warning: {warning}")
    if args.json:
        print_json(
            {
                "run": str(args.out),
                "head": record.head,
                "modality": args.modality,
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
        return 0
    print_scores(
        f"{record.head} ({args.modality}) on {dataset.name}, recipe {record.recipe.name}, "
        + (f"epoch {record.training['best_epoch']} of {record.training['epochs_run']}" if trains else "not trained"),
        f"{record.head} ({args.modality})",
        record.metrics,
        trained.baselines,
    )
    say(f"run: {args.out}")
    return 0


def anchored(place: str) -> str:
    """A path made absolute, so that a run still finds it from another folder; a URL as it is."""
    return place if "://" in place else str(Path(place).expanduser().absolute())


def _check_names(args: argparse.Namespace) -> None:
    """Refuse unknown names as bad arguments, before anything is read."""
    from catalog.dataset import names as dataset_names
    from heads.model import names as head_names
    from jobs.console import BadArguments

    checks: list[tuple[str, Any, tuple[str, ...]]] = [
        ("--dataset", args.dataset, dataset_names()),
        ("--head", args.head, head_names()),
    ]
    for option, given, known in checks:
        if given not in known:
            raise BadArguments(f"{option}: there is no {given!r}; there are {', '.join(known)}")


def _dataset_options(args: argparse.Namespace) -> dict[str, str]:
    from catalog.dataset import options_of
    from jobs.console import BadArguments

    if args.train_share is None:
        return {}
    if "train_list" not in options_of(args.dataset):
        raise BadArguments(f"--train-share: {args.dataset} has no reduced training lists")
    return {"train_list": f"{args.train_share / 100:g}"}


def _texts(args: argparse.Namespace, store: FeatureStore, recipe_name: str, dataset: Dataset) -> Vocabulary | None:
    from heads.model import plugin
    from heads.vocabulary import of_data_set
    from jobs.console import BadArguments

    if not getattr(plugin(args.head), "NEEDS_TEXTS", False):
        if args.vocabulary is not None:
            raise BadArguments(f"--vocabulary: head {args.head} does not choose among class texts")
        return None
    try:
        return of_data_set(store, recipe_name, dataset, args.vocabulary)
    except ValueError as error:
        raise BadArguments(f"--vocabulary: {error}") from error


def _recipe_name(store: FeatureStore, given: str | None) -> str:
    from jobs.console import BadArguments

    held = sorted(store.recipes())
    if given is None and len(held) == 1:
        return held[0]
    if given is None or given not in held:
        wanted = "--recipe is needed" if given is None else f"--recipe: the store has no {given!r}"
        raise BadArguments(f"{wanted}; the store has {', '.join(held) or 'none yet, run `avel extract` first'}")
    return given
