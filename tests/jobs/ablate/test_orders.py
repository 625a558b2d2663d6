"""What `avel ablate` would train, without training it; and what it keeps of earlier calls' tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from catalog.datasets import ovavebench
from heads.ablation import table
from jobs.ablate.run import keep_tables
from jobs.cli.main import main
from tests.heads import planted_texts

HEADS = Path(__file__).parents[2] / "heads"


def test_head_without_parameters_runs_once_whatever_the_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = planted_texts.dataset(a_class=4)
    ovavebench.write(data, tmp_path / "ov")
    planted_texts.store(tmp_path / "store", data)
    places = ["--store", str(tmp_path / "store"), "--dataset", "ovavebench", "--root", str(tmp_path / "ov")]
    more = ["--out", str(tmp_path / "out"), "--table", "methods", "--seeds", "3", "--dry-run", "--json"]
    capsys.readouterr()
    assert main(["ablate", "ov-avel", *places, *more]) == 0
    variants = {
        row.variant.key(): row.variant.head
        for row in table.plugin("ov-avel").TABLES["methods"].rows
        if row.variant is not None
    }
    free = sum(head == "ov_avel_free" for head in variants.values())
    assert 0 < free < len(variants)
    assert json.loads(capsys.readouterr().out)["runs"] == 3 * (len(variants) - free) + free
    assert not (tmp_path / "out").exists()


def test_tables_of_earlier_calls_are_kept_unless_they_are_another_papers(tmp_path: Path) -> None:
    path = tmp_path / "tables.json"
    keep_tables(path, "ave-clip", "a paper", {"1": {"rows": [1]}, "2": {"rows": [2]}})
    keep_tables(path, "ave-clip", "a paper", {"2": {"rows": [3]}})
    assert json.loads(path.read_text())["tables"] == {"1": {"rows": [1]}, "2": {"rows": [3]}}
    keep_tables(path, "ov-avel", "another", {"data": {}})
    assert json.loads(path.read_text()) == {"paper": "ov-avel", "source": "another", "tables": {"data": {}}}
    path.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        keep_tables(path, "ov-avel", "another", {})
