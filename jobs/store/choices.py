"""What several store verbs read from their arguments: the recipe, the exchange format, the grid of foreign rows."""

from __future__ import annotations

import argparse
from types import ModuleType

from catalog.errors import BadArguments
from catalog.exchange.sidecar import formats
from catalog.grid import GridRule, exact_seconds
from catalog.store.reader import FeatureStore


def chosen_recipe_name(store: FeatureStore, asked: str | None) -> str:
    """The recipe of `--recipe`, else the only one of the store.

    Raises:
        BadArguments: the store has no such recipe, or several and none was asked for.
    """
    held = list(store.recipes())
    name = asked if asked is not None else held[0] if len(held) == 1 else None
    if name is None or name not in held:
        raise BadArguments(f"{store.uri} has the recipes {', '.join(held) or '(none)'}; say which with --recipe")
    return name


def chosen_format(name: str) -> ModuleType:
    """The exchange format of `--format`.

    Raises:
        BadArguments: there is none of that name.
    """
    if name not in formats():
        raise BadArguments(f"no format {name!r}; there are {', '.join(sorted(formats()))}")
    return formats()[name]


def chosen_grid(args: argparse.Namespace) -> GridRule | None:
    """The grid of `--window` and `--hop`; None without them.

    Raises:
        BadArguments: one without the other, or no exact seconds.
    """
    if (args.window is None) != (args.hop is None):
        raise BadArguments("--window and --hop go together")
    if args.window is None:
        return None
    try:
        return GridRule(window_s=exact_seconds(args.window), hop_s=exact_seconds(args.hop), tail="drop")
    except ValueError as error:
        raise BadArguments(f"--window and --hop: {error}") from error
