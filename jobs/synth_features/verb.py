"""`avel synth-features`: a store of planted features under a data set's annotations."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.cli.dataset_options import add_root
from jobs.cli.recipe_options import add_set
from jobs.cli.store_options import add_store_option, add_wait

HELP = "write a store of planted features with a data set's real annotations, to see what heads learn"
EXAMPLES = """\
examples:
  avel synth-features ave --root AVE_Dataset --store planted
  avel synth-features ave --root AVE_Dataset --store full --places 49 --scale-to 1024 --dry-run
  avel synth-features ovavebench --root OV-AVEBench --store planted-ov --set gap=0.7
  avel synth-features unav100 --root UnAV --store planted-unav --reduced UnAV-short
  avel synth-features unav100 --root UnAV --store small-unav --reduced UnAV-small --videos train=1000,val=60,test=160
  avel train --store planted --dataset ave --root AVE_Dataset --recipe planted-ave --head ave_clip --out runs/planted
The recipe, planted-PROTOCOL unless --as names it, holds every number that decides a value; --set changes any of them
(`avel synth-features PROTOCOL ... --dry-run` lists them). A video's features depend on the seeds and its id alone.
These features show that a head can learn its task. They say nothing about real media.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("protocol", metavar="PROTOCOL", help="ave, ovavebench or unav100: a planted benchmark")
    parser.add_argument("--dataset", metavar="NAME", help="whose annotations (default: the protocol's)")
    add_root(parser, required=True)
    add_store_option(parser)
    parser.add_argument("--as", dest="name", metavar="NAME", help="the recipe's name (default: planted-PROTOCOL)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the classes' prototypes (default: 0)")
    parser.add_argument("--noise-seed", type=int, metavar="N", help="of what is drawn for a video (default: as --seed)")
    parser.add_argument("--width", type=int, metavar="D", help="of the features (default: the protocol's)")
    parser.add_argument(
        "--scale-to", type=int, metavar="D", help="embed the signals in D dimensions, with noise of the same norm"
    )
    parser.add_argument("--places", type=int, metavar="R", help="ave: vectors a frame (4; 49 as VGG's maps; 1: no map)")
    parser.add_argument("--points", type=int, metavar="T", help="unav100: segments of a video of 60 s (96)")
    parser.add_argument(
        "--reduced", type=Path, metavar="DIR", help="unav100: also write annotations of few classes and equal lengths"
    )
    parser.add_argument(
        "--videos",
        metavar="SPLIT=N,...",
        help="with --reduced: keep so many videos of a split, such as train=1000,val=100,test=160 (default: all)",
    )
    parser.add_argument("--classes", type=int, metavar="K", help="with --reduced: so many classes at most (10)")
    add_set(parser)
    parser.add_argument(
        "--storage", choices=("float32", "float16"), default="float32", help="of the numbers (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a store that holds this recipe and no other")
    add_wait(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be written, write nothing")
