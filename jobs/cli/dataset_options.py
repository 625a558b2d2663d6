"""The options that name a data set: one spelling for every verb that reads annotations."""

from __future__ import annotations

from argparse import ArgumentParser, _ArgumentGroup

Parser = ArgumentParser | _ArgumentGroup


def add_root(parser: Parser, *, required: bool = False) -> None:
    """`--root`, which goes with `--dataset`."""
    parser.add_argument("--root", required=required, metavar="DIR", help="where the data set's official files are")


def add_media(parser: Parser) -> None:
    """`--media`, which goes with `--dataset`."""
    parser.add_argument("--media", metavar="DIR", help="where its videos are (default: in DIR/videos)")


def add_dataset_arguments(parser: Parser) -> None:
    """NAME, `--root`, `--media` and `--option`, for the verbs about a data set itself."""
    parser.add_argument(
        "name", metavar="NAME", help="ave, unav100, ovavebench, folder, ...: a file of catalog/datasets"
    )
    parser.add_argument("--root", required=True, help="folder of the annotation files (folder: of the media)")
    parser.add_argument("--media", help="folder or URL prefix of the videos (default: ROOT/videos, or ROOT)")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="the data set's own, e.g. train_list=0.25"
    )
