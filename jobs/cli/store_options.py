"""The options of verbs that write to a store: one spelling, and one reading, for all of them."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, _ArgumentGroup


def add_wait(parser: ArgumentParser | _ArgumentGroup) -> None:
    """`--wait`."""
    parser.add_argument(
        "--wait", type=seconds, default=0.0, metavar="S", help="for another writer of the store to end (default: 0)"
    )


def seconds(text: str) -> float:
    """A number of seconds, for argparse.

    Raises:
        ArgumentTypeError: it is below 0, infinite or no number.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"needs seconds of at least 0, got {text}")
    return value
