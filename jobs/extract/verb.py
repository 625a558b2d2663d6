"""`avel extract`: media in, a feature store out; exactly once, whatever is killed on the way."""

from __future__ import annotations

import argparse

from jobs.cli.dataset_options import add_media, add_root
from jobs.cli.recipe_options import add_set, add_weights
from jobs.cli.store_options import add_store_option, add_wait, seconds

HELP = "media in, a feature store out; run it again after any kill and it goes on"

EXAMPLES = """\
examples:
  avel extract media/ --recipe descriptors-1s --store features
  avel extract --dataset ave --root AVE_Dataset --recipe descriptors-1s --store s3://bucket/ave
  avel extract 'clips/*.mp4' --recipe descriptors-1s --hop 1/2 --as descriptors-half --store features
  avel extract media/ --recipe audioclip-1s --store features          with the checkpoint of `avel weights fetch`
  avel extract media/ --recipe audioclip-1s --weights fine-tuned.safetensors --as audioclip-mine --store features
  avel extract media/ --recipe descriptors-1s --store features --retry fetch_failed --retry missing_file
  avel extract --recipe descriptors-1s --store features -- -Qowmc0P9ic.mp4     a name that begins with a dash

The same command again does what is missing and nothing twice; over a finished store it says so and stops.
Exit status: 0 all wanted videos are in the store; 3 more of them are quarantined than --max-quarantined (also when
there was nothing left to do: the status is about the store); 1 failed; 2 bad arguments; 130/143 stopped by
SIGINT/SIGTERM, what was finished is committed; a second signal ends at once.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("what")
    source.add_argument("source", nargs="?", metavar="SOURCE", help="a folder, file, glob, list file or URL")
    source.add_argument("--dataset", metavar="NAME", help="a data set with annotations instead: ave, unav100, ...")
    add_root(source)
    add_media(source)
    source.add_argument("--limit", type=_count, metavar="N", help="the first N videos only")
    source.add_argument(
        "--retry", action="append", default=[], metavar="REASON", help="try these again; `all` for every reason"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--recipe",
        action="append",
        required=True,
        metavar="R",
        help="a preset, may be repeated; see `avel recipe list`",
    )
    add_set(how)
    how.add_argument("--hop", metavar="S", help="short for --set grid.hop_s=S")
    how.add_argument("--window", metavar="S", help="short for --set grid.window_s=S")
    how.add_argument("--as", dest="name", metavar="NAME", help="store a changed recipe under this name")
    add_weights(how)
    where = parser.add_argument_group("where")
    add_store_option(where)
    where.add_argument(
        "--executor", choices=("auto", "local", "ray"), default="auto", help="the arrays are the same (default: auto)"
    )
    where.add_argument("--workers", type=_count, metavar="N", help="units at once (default: one a CPU)")
    where.add_argument(
        "--encode-workers",
        type=_count,
        metavar="N",
        help="Ray: N workers of their own for encoding (default: with GPUs)",
    )
    where.add_argument("--address", metavar="A", help="Ray: a running cluster instead of a local one")
    where.add_argument("--commit-every", type=seconds, default=30.0, metavar="S", help="default: %(default)g s")
    add_wait(where)
    where.add_argument(
        "--max-quarantined", default="0", metavar="N", help="a number or a share such as 5%% (default: %(default)s)"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="record missing files even where hardly any of the media exists"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be done; weights are checked")
    parser.add_argument("--verbose", action="store_true", help="show what Ray and its workers print")


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"needs a whole number of at least 1, got {text}")
    return value
