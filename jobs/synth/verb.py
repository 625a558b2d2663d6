"""`avel synth`: real video files whose events are known exactly, with the official annotation files of a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "make videos whose events are known exactly, as a data set of a known layout"

EXAMPLES = """\
examples:
  avel synth data                                     60 ten-second videos in AVE's layout
  avel synth data --layout unav100 --videos 200       longer ones, overlapping events, UnAV-100's layout
  avel synth data --videos 1000 --workers 8 --seed 1
  avel synth data --dry-run                           what would be made

The same --layout, --videos and --seed give the same files; run again to finish an interrupted folder.
Read it with --dataset ave|unav100|ovavebench --root OUT, or with --dataset synthetic --root OUT.
"""

_LAYOUTS = ("ave", "unav100", "ovavebench")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to fill: annotations, videos/ID.mp4, synth.json")
    parser.add_argument("--layout", choices=_LAYOUTS, default="ave", help="whose files (default: %(default)s)")
    parser.add_argument("--videos", type=int, default=60, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="random seed (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=None, metavar="N", help="processes (default: one for each usable core)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be made, write nothing")
