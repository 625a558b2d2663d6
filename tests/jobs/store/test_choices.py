"""What the store verbs read from their arguments."""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import pytest

from catalog.errors import BadArguments
from catalog.grid import GridRule
from catalog.store.reader import create_store
from jobs.store.choices import chosen_format, chosen_grid, chosen_recipe_name


def test_recipe_name_of_an_empty_store_is_refused(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s")
    for asked in (None, "r"):
        with pytest.raises(BadArguments, match=r"has the recipes \(none\); say which with --recipe"):
            chosen_recipe_name(store, asked)


def test_format_is_found_by_its_name() -> None:
    assert chosen_format("unav-npy").NAME == "unav-npy"
    with pytest.raises(BadArguments, match="no format 'csv'; there are ave-h5, unav-npy, zarr"):
        chosen_format("csv")


def test_grid_is_exact_and_needs_both_options() -> None:
    assert chosen_grid(argparse.Namespace(window=None, hop=None)) is None
    grid = chosen_grid(argparse.Namespace(window="24/25", hop="0.32"))
    assert grid == GridRule(window_s=Fraction(24, 25), hop_s=Fraction(8, 25), tail="drop")
    with pytest.raises(BadArguments, match="--window and --hop go together"):
        chosen_grid(argparse.Namespace(window="1", hop=None))
    with pytest.raises(BadArguments, match="--window and --hop: seconds must be"):
        chosen_grid(argparse.Namespace(window="x", hop="1"))
