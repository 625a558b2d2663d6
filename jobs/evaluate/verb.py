"""`avel evaluate`: the numbers of a trained head on a split, beside those of the trivial baselines."""

from __future__ import annotations

import argparse
from pathlib import Path

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
        help="also the numbers after the run filter: fewer than W equal neighbours are taken for mistakes",
    )
    parser.add_argument("--device", default="cpu", help="torch's name, such as cuda (default: %(default)s)")
