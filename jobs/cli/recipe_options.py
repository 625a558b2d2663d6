"""The options that name a recipe and its weights: one spelling for every verb that encodes.

`--recipe R --set FIELD=VALUE --weights [RECIPE:][ASSET=]PATH --device D`
"""

from __future__ import annotations

from argparse import ArgumentParser, _ArgumentGroup
from collections.abc import Sequence

from catalog.errors import BadArguments


def add_set(parser: ArgumentParser | _ArgumentGroup) -> None:
    """`--set`."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change a setting of the recipe"
    )


def add_weights(parser: ArgumentParser | _ArgumentGroup) -> None:
    """`--weights` and `--device`."""
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="PATH",
        help="the checkpoint: a file, a folder of the published files, or ASSET=PATH; RECIPE:PATH for one of several "
        "recipes (default: the weights folder, see `avel weights list`)",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="for encoders (default: auto)"
    )


def changes(texts: Sequence[str]) -> dict[str, str]:
    """The fields that `--set` changes, with their new values as texts.

    Raises:
        BadArguments: not FIELD=VALUE.
    """
    found = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals or not field:
            raise BadArguments(f"--set needs FIELD=VALUE, got {text!r}")
        found[field] = value
    return found
