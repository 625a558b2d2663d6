"""`avel predict`: a trained head on new media, from the media themselves to events."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.cli.recipe_options import add_weights

HELP = "events in new media, by a trained head"
EXAMPLES = """\
examples:
  avel predict runs/linear clip.mp4
  avel predict runs/linear media/ 'more/*.webm' https://example.org/a.mp4 --out events.json --plot events.png
  avel predict runs/ave-clip media/ --weights AudioCLIP-Full-Training.pt
  avel predict runs/ov clip.mp4 --vocabulary kitchen      other classes: only their texts are needed, see avel labels
  avel predict runs/ov clip.mp4 --vocabulary mine --labels features --smooth 3
  avel predict runs/loco lecture.mp4 --threshold 0.3      an hour goes through the head in overlapping windows
Media are extracted with the recipe that the head was trained on, into a store that is thrown away afterwards.
Exit status: 0 all media have predictions; 3 some have not (listed with the reason); 1 failed; 2 bad arguments.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="what `avel train` wrote")
    parser.add_argument("media", nargs="+", metavar="MEDIA", help="a file, folder, glob, list file or URL")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the events on timelines (.png, .svg or .pdf)")
    parser.add_argument(
        "--threshold",
        type=float,
        help="least probability of a class, for data sets with several labels (default: 0.5), or least score of an "
        "event, for heads that find events with times of their own (default: 0.1)",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="NAME",
        help="classes to choose among, for heads with class texts: what `avel labels` stored",
    )
    parser.add_argument(
        "--labels", metavar="STORE", help="the store that holds the vocabulary (default: the one trained on)"
    )
    parser.add_argument(
        "--smooth", type=int, metavar="W", help="run filter: fewer than W equal neighbours are taken for mistakes"
    )
    add_weights(parser)
    parser.add_argument("--workers", type=int, default=1, help="media opened at once (default: %(default)s)")
