"""The options that name a data set: one spelling for every verb that reads annotations."""

from __future__ import annotations

import argparse


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """NAME, --root, --media and --option, as every verb about data sets takes them."""
    parser.add_argument(
        "name", metavar="NAME", help="ave, unav100, ovavebench, folder, ...: a file of catalog/datasets"
    )
    parser.add_argument("--root", required=True, help="folder of the annotation files (folder: of the media)")
    parser.add_argument("--media", help="folder or URL prefix of the videos (default: ROOT/videos, or ROOT)")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="the data set's own, e.g. train_list=0.25"
    )
