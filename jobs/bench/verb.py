"""`avel bench`: the project's promises about speed and memory, measured on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "measure the project's promises about speed and memory"
EXAMPLES = """\
examples:
  avel bench                     all of them (some minutes)
  avel bench store resume        some
  avel bench --list
  avel bench --json --out bench.json
  avel bench encoders --encoder audioclip --seconds 60 --out audioclip.md
  avel bench encoders --device cuda --out bench/results/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benches (default: all)")
    parser.add_argument("--list", action="store_true", help="list the benches")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument(
        "--out",
        type=Path,
        help="write the figures there as JSON too; the table of `encoders` alone, where it ends in .md or is a folder, "
        "in which the file is named by the machine",
    )
    towers = parser.add_argument_group("the bench `encoders`")
    towers.add_argument("--encoder", action="append", metavar="NAME", help="which encoders (default: all with weights)")
    towers.add_argument("--device", choices=("cpu", "cuda"), help="where (default: cpu)")
    towers.add_argument(
        "--precision",
        action="append",
        choices=("float32", "bfloat16", "float16"),
        help="beside float32 (default: bfloat16, on a GPU float16 too)",
    )
    towers.add_argument("--segments", type=int, metavar="N", help="the most to encode at a time (default: 32)")
    towers.add_argument("--seconds", type=float, metavar="S", help="about how long it may take (default: 480)")
    towers.add_argument("--compile", action="store_true", default=None, help="compile the networks first, by torch")
    towers.add_argument("--small", action="store_true", default=None, help="tiny networks, to try the bench itself")
