"""The data set that the options of `dataset_options.py` ask for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from catalog import dataset
from catalog.dataset import Dataset
from catalog.errors import BadArguments


def check_dataset(name: str) -> None:
    """See that there is a data set `name`, before anything else is done for it.

    Raises:
        BadArguments: there is none.
    """
    try:
        dataset.plugin(name)
    except ValueError as error:
        raise BadArguments(str(error)) from error


def load_dataset(name: str, root: str, media: str | None = None, options: Sequence[str] = ()) -> Dataset:
    """The data set `name`, read from its official files in `root`.

    Args:
        media: folder or URL prefix of its videos.
        options: of `--option`, each KEY=VALUE.

    Raises:
        BadArguments: no such data set or option.
    """
    check_dataset(name)
    chosen = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals or key not in dataset.options_of(name):
            known = ", ".join(dataset.options_of(name)) or "none"
            raise BadArguments(f"--option needs KEY=VALUE with a KEY of data set {name} ({known}), got {text!r}")
        chosen[key] = value
    return dataset.load(name, root, media, chosen)


def optional_dataset(args: argparse.Namespace, media: str | None = None) -> Dataset | None:
    """The data set of `--dataset` and `--root`; None without `--dataset`.

    Args:
        media: of `--media`, for verbs that have it for the data set's videos.

    Raises:
        BadArguments: no such data set, or one of the options without the other.
    """
    if args.dataset is None:
        if args.root is not None or media is not None:
            raise BadArguments(f"--{'media' if args.root is None else 'root'} goes with --dataset NAME")
        return None
    if args.root is None:
        raise BadArguments(f"--dataset {args.dataset} needs --root DIR, where its official files are")
    return load_dataset(args.dataset, args.root, media)
