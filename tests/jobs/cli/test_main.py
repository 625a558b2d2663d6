"""The command line as a person meets it: help at once, verbs found by file, errors in one line."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import main as cli

PROJECT = Path(__file__).resolve().parents[3]


def avel(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli.main", *words],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=os.environ | environment,
        timeout=60,
        check=False,
    )


def test_help_lists_every_verb_and_imports_nothing_heavy() -> None:
    probe = (
        "import sys; from jobs import cli; status = cli.main(['--help']);"
        "heavy = {'torch','ray','numpy','zarr','av','librosa','rich'} & set(sys.modules);"
        "assert status == 0 and not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, cwd=PROJECT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    for verb in cli.verbs():
        assert f"  {' '.join(verb.words)} " in done.stdout


@pytest.mark.parametrize("verb", cli.verbs(), ids=lambda verb: " ".join(verb.words))
def test_verb_help_shows_examples_that_name_the_verb(verb: cli.Verb, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*verb.words, "--help"]) == 0
    printed = capsys.readouterr().out
    assert "avel " + " ".join(verb.words) in printed.split("options:")[-1], "examples come after the options"


@pytest.mark.parametrize("verb", cli.verbs(), ids=lambda verb: " ".join(verb.words))
def test_verb_modules_are_cheap_to_import(verb: cli.Verb) -> None:
    path = PROJECT / (verb.module.replace(".", "/") + ".py")
    tops = set()
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Import):
            tops |= {alias.name.split(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            tops.add((statement.module or "").split(".")[0])
    assert not tops & {"torch", "ray", "librosa", "av", "decord", "matplotlib", "sklearn", "dask", "icechunk"}


def test_unknown_verb_exits_2_and_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stor", "inspect"]) == 2
    assert cli.main(["store", "inspct"]) == 2
    assert "store inspect" in capsys.readouterr().err


def test_group_without_verb_lists_its_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["store"]) == 2
    assert "store verify" in capsys.readouterr().out


def test_missing_store_fails_in_one_line_and_as_one_json_object(tmp_path: Path) -> None:
    plain = avel("store", "inspect", str(tmp_path / "nothing"))
    assert plain.returncode == 1
    assert len(plain.stderr.strip().splitlines()) == 1, plain.stderr
    assert "Traceback" not in plain.stderr
    as_json = avel("store", "inspect", str(tmp_path / "nothing"), "--json")
    assert as_json.returncode == 1
    assert "nothing" in json.loads(as_json.stdout)["error"]


@pytest.mark.parametrize("words", [["train", "--json"], ["evaluate", "run", "--smooth", "nan", "--json"]])
def test_arguments_that_cannot_be_read_are_one_json_object_too(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out)["kind"] == "BadArguments"
    assert json.loads(captured.out)["error"] in captured.err
    assert cli.main([word for word in words if word != "--json"]) == 2
    assert capsys.readouterr().out == ""
