"""The data set of the command line, and what is refused."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from catalog import dataset
from catalog.errors import BadArguments
from jobs.cli.chosen_dataset import check_dataset, load_dataset, optional_dataset


def test_load_dataset_reads_what_the_registry_reads(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.mp4"):
        (tmp_path / name).write_bytes(b"media")
    assert load_dataset("folder", str(tmp_path)) == dataset.load("folder", tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("kinetics", [], r"no data set 'kinetics'; there are ave, "),
        ("ave", ["train_list=0.25"], r"a KEY of data set ave \(none\), got 'train_list=0.25'"),
        ("ovavebench", ["train_list"], r"KEY=VALUE with a KEY of data set ovavebench \(train_list\)"),
    ],
)
def test_load_dataset_refuses_unknown_names_and_options(name: str, options: list[str], message: str) -> None:
    with pytest.raises(BadArguments, match=message):
        load_dataset(name, ".", options=options)


def test_check_dataset_takes_every_data_set_there_is() -> None:
    for name in dataset.names():
        check_dataset(name)
    with pytest.raises(BadArguments, match="no data set"):
        check_dataset("__init__")


def test_optional_dataset_is_none_without_its_options() -> None:
    assert optional_dataset(argparse.Namespace(dataset=None, root=None)) is None


@pytest.mark.parametrize(
    ("name", "root", "media", "message"),
    [
        ("ave", None, None, "--dataset ave needs --root DIR"),
        (None, "x", None, "--root goes with --dataset NAME"),
        (None, None, "x", "--media goes with --dataset NAME"),
    ],
)
def test_optional_dataset_refuses_one_option_without_the_other(
    name: str | None, root: str | None, media: str | None, message: str
) -> None:
    with pytest.raises(BadArguments, match=message):
        optional_dataset(argparse.Namespace(dataset=name, root=root), media)
