"""The arguments about a store: which one, at which commit, and how long to wait for it."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, _ArgumentGroup

Parser = ArgumentParser | _ArgumentGroup

_STORE = "a folder or s3://bucket/prefix"
_MADE = "; made if absent"


def add_store(parser: Parser, *, made: bool = False) -> None:
    """The positional STORE; `made`: the verb makes it where it is absent."""
    parser.add_argument("store", metavar="STORE", help=_STORE + _MADE * made)


def add_store_option(parser: Parser) -> None:
    """`--store`, of verbs that make it where it is absent."""
    parser.add_argument("--store", required=True, metavar="STORE", help=_STORE + _MADE)


def add_at(parser: Parser) -> None:
    """`--at`."""
    parser.add_argument("--at", metavar="TAG", help="a tag or snapshot id instead of the newest commit")


def add_wait(parser: Parser) -> None:
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
