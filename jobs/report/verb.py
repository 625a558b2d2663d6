"""`avel report RUN`: the run's page, one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "make one HTML page of a run: metrics, confusions or errors, curves and timelines of videos"

EXAMPLES = """\
examples:
  avel report runs/ave
  avel report runs/ave --compare runs/ave_audio runs/ave_visual --out ave.html
  avel report runs/ave-5-seeds                        means ± sd of what `avel train --seeds 5` trained
  avel report runs/ave --videos 24 --json
  avel report runs/ave --smooth 3                     metrics and timelines after the run filter, too
  avel report runs/unav --compare runs/loco           heads of events: mAP, kinds of error, the worst and best videos
"""

NUM_VIDEOS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `avel report`."""
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder that `avel train` wrote, also with --seeds")
    parser.add_argument("--out", metavar="FILE.html", type=Path, help="where to write it (default: RUN/report.html)")
    parser.add_argument(
        "--videos", metavar="N", type=int, default=NUM_VIDEOS, help=f"timelines of N videos (default: {NUM_VIDEOS})"
    )
    parser.add_argument(
        "--compare", metavar="RUN", type=Path, nargs="+", default=[], help="other runs, for the table of metrics"
    )
    parser.add_argument("--split", choices=("test", "val"), help="whose predictions (default: test, else val)")
    parser.add_argument(
        "--smooth",
        metavar="W",
        type=int,
        help="also show the run filter's: fewer than W equal neighbours are taken for mistakes",
    )
