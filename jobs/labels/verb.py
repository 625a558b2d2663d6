"""`avel labels`: class names as text features, beside the media features of the same encoder."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.cli.dataset_options import add_root
from jobs.cli.recipe_options import add_set, add_weights
from jobs.cli.store_options import add_store_option, add_wait

HELP = "store class names' text features, for heads with an open vocabulary"
EXAMPLES = """\
examples:
  avel labels --store features --recipe imagebind-1s --dataset ovavebench --root OV-AVEBench
  avel labels --store features --recipe imagebind-1s --vocabulary my-classes.txt --name mine
  avel labels --store features --recipe audioclip-1s --vocabulary my-classes.txt --prompt 'a sound of {}'
A vocabulary file has one class name a line (or is a CSV with a column `display_name`, or a JSON list). `other`, the
class of seconds without an event, is added at its end unless it is there or --no-other is given. A recipe that the
store has is used with the settings stored; the same vocabulary again replaces its features.
"""

OTHER = "other"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store_option(parser)
    parser.add_argument("--recipe", required=True, metavar="R", help="of the store, or a preset with a text tower")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--vocabulary", type=Path, metavar="FILE", help="class names, one a line")
    what.add_argument("--dataset", metavar="NAME", help="the classes of a data set: ave, ovavebench, unav100")
    add_root(parser)
    parser.add_argument(
        "--name", metavar="NAME", help="of the vocabulary in the store (default: the file's or data set's)"
    )
    parser.add_argument("--prompt", default="{}", metavar="TEXT", help="what is encoded; {} is the name (default: {})")
    parser.add_argument("--no-other", action="store_true", help=f"do not add {OTHER!r}")
    add_set(parser)
    add_weights(parser)
    add_wait(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be encoded")
