"""`avel ablate`: the tables of a paper, run on a store's features and printed beside the paper's numbers."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.cli.head_options import add_how

HELP = "run the ablation tables of a paper; prints them beside the paper's numbers"
EXAMPLES = """\
examples:
  avel ablate ave-clip --list                                       the tables there are
  avel ablate ave-clip --table 5 --store STORE --dataset ave --root AVE --out runs/tables
  avel ablate ave-clip --store STORE --dataset ave --root AVE --seeds 5 --out runs/tables      all of them
  avel ablate ave-clip --table 2 --recipe frozen=audioclip-1s --recipe finetuned=audioclip-ave-1s \\
      --recipe vgg=vgg19-vggish-1s --store STORE --dataset ave --root AVE --out runs/tables
  avel ablate ov-avel --store STORE --dataset ovavebench --root OV --out runs/ov
  avel ablate planted --table ave --store PLANTED --dataset ave --root AVE --seeds 5 --out runs/planted \\
      --epochs 16 --patience 0 --batch 64 --lr 4e-3 --schedule one-cycle --set ave_clip.width=48
  avel ablate loco --table 2c --store STORE --dataset unav100 --root UNAV --out runs/loco
  avel ablate loco --table 1 --recipe onepeace-unav --recipe i3d=i3d-vggish-unav --store STORE --dataset unav100 \\
      --root UNAV --out runs/loco --device cuda
  avel ablate planted --table unav100 --store SMALL --dataset unav100 --root UNAV-small --seeds 2 --out runs/small \\
      --epochs 20 --patience 0 --lr 1.5e-3 --schedule one-cycle --ema 0.99 --crop-share 1 --set loco.width=48 \\
      --set loco.levels=4 --set loco.unimodal_layers=1 --set loco.decoder_layers=0 --set loco.drop_path=0 \\
      --set loco.lcc_stride=2
  avel ablate ave-clip --table 4 --set ave_clip.width=48 --epochs 16 --store S --dataset ave --root AVE --out runs/small
Each table is written as table-NAME.csv and table-NAME.png, all of them as tables.json; a table of similarities also as
table-NAME-RECIPE.png, with the test videos of the most events. The runs lie in OUT/runs; one that exists is not
trained again, also not for another table, so the same command goes on where it was stopped.
Exit status: 0 all rows with features done; 1 a run failed (its row says why); 2 bad arguments, and of --dry-run a row
that cannot be trained; 130/143 stopped.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paper", help="whose tables: ave-clip, ov-avel, loco; planted: what heads gain on planted features"
    )
    parser.add_argument("--table", action="append", metavar="NAME", help="may be repeated (default: all)")
    parser.add_argument("--list", action="store_true", help="list the paper's tables and rows; runs nothing")
    what = parser.add_argument_group("what")
    what.add_argument("--store", help="path or s3:// URL of the feature store")
    what.add_argument("--dataset", metavar="NAME", help="ave, ovavebench, unav100, ...")
    what.add_argument("--root", help="folder of the data set's annotation files")
    what.add_argument("--media", help="folder or URL prefix of the videos, if not under --root")
    what.add_argument(
        "--recipe",
        action="append",
        default=[],
        metavar="[ROLE=]NAME",
        help="features to use; ROLE=NAME for a table that compares several (may be left out if the store has one)",
    )
    what.add_argument("--vocabulary", metavar="NAME", help="class texts, for heads that need them")
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="HEAD.FIELD=VALUE",
        help="change a field of a head's config in every row; what a row is about wins",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the runs and tables; made if absent")
    parser.add_argument("--seed", type=int, default=0, help="the first (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs a row (default: %(default)s)")
    parser.add_argument("--jobs", type=int, help="runs at a time (as many as the cores have threads for)")
    parser.add_argument("--overwrite", action="store_true", help="train again where a run of other settings exists")
    add_how(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be trained")
