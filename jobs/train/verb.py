"""`avel train`: a head from a store's features and a data set's annotations, to a run folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.cli.head_options import add_how

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
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is at --out")
    add_how(parser)
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="train this many, from --seed on, to RUN/seed-*; reports mean and sd"
    )
    parser.add_argument("--jobs", type=int, help="seeds trained at a time (as many as the cores have threads for)")
    parser.add_argument("--restart", action="store_true", help="begin anew where an interrupted training could go on")
