"""The command line as a person meets it: help at once, verbs found by file, errors in one line."""

from __future__ import annotations

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
        timeout=900,
        check=False,
    )


def test_help_lists_every_verb_and_imports_nothing_heavy() -> None:
    probe = (
        "import sys; from jobs.cli.main import main; status = main(['--help']);"
        "heavy = {'torch','ray','numpy','zarr','av','librosa','rich'} & set(sys.modules);"
        "assert status == 0 and not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, cwd=PROJECT, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    for verb in cli.verbs():
        assert f"  {' '.join(verb.words)} " in done.stdout


@pytest.mark.parametrize("verb", cli.verbs(), ids=lambda verb: " ".join(verb.words))
def test_verb_help_shows_examples_that_name_the_verb(verb: cli.Verb, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*verb.words, "--help"]) == 0
    printed = capsys.readouterr().out
    assert "avel " + " ".join(verb.words) in printed.split("options:")[-1], "examples come after the options"


def test_verb_helps_import_nothing_heavy() -> None:
    """In one process; verbs of a store come last, since they may import what reads stores."""
    probe = """if True:
        import sys
        from jobs.cli.main import main, verbs

        heavy = {"torch", "ray", "av", "decord", "transformers", "librosa", "matplotlib", "sklearn", "dask", "cv2"}
        for verb in sorted(verbs(), key=lambda verb: verb.words[0] == "store"):
            readers = set() if verb.words[0] == "store" else {"zarr", "icechunk"}
            assert main([*verb.words, "--help"]) == 0
            imported = (heavy | readers) & set(sys.modules)
            assert not imported, (verb.module, imported)
    """
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, cwd=PROJECT, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr


def verb_in(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "verb.py").write_text(f"HELP = 'says hello'\nEXAMPLES = ''\ndef add_arguments(parser): pass\n{text}")


@pytest.mark.parametrize("words", [("hello",), ("group", "hello")])
def test_run_module_beside_a_verb_is_imported_only_when_it_runs(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = tmp_path / f"jobs_of_{len(words)}"
    verb_in(jobs.joinpath(*words), "")
    (jobs.joinpath(*words) / "run.py").write_text("def run(args): return 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cli, "_JOBS", jobs)
    (verb,) = cli.verbs()
    assert verb.words == words
    module = ".".join((jobs.name, *words, "run"))
    assert cli.main([*words, "--help"]) == 0
    assert module not in sys.modules
    assert cli.main([*words]) == 7
    assert module in sys.modules


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["extract", "-clip.mp4", "--recipe", "x", "--store", "s"], "a name that begins with a dash comes after --"),
        (["extract", "a", "--recipe", "x", "--store", "-s"], "a value that begins with a dash is joined to its option"),
        (["train", "--nonsense"], "avel train: error: "),
    ],
)
def test_what_is_refused_is_one_line_with_what_to_do(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == cli.BAD_ARGUMENTS
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert lines[0].endswith(f"see `avel {words[0]} --help`")
