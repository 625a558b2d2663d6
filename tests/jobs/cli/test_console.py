"""What is said, and how it looks where."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.cli import console
from jobs.cli.main import main


def test_visible_spells_out_what_could_repaint_a_terminal() -> None:
    assert console.visible("a\x1b[2Jb\nc\u202ed\udc80é日") == "a\\x1b[2Jb\\nc\\u202ed\\udc80é日"


def test_table_keeps_every_cell_whole_when_not_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.table("t", ["name", "count"], [["x" * 300, 7], ["[bold]y[/bold]", 12]])
    printed = capsys.readouterr().out
    assert "x" * 300 in printed
    assert "[bold]y[/bold]" in printed
    line = next(line for line in printed.splitlines() if "x" * 300 in line)
    assert line.split("│")[2].endswith(" 7 "), "numbers stand right"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch, *, columns: int) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("NO_COLOR", "1")
    return terminal


# What fits, what fits after wrapping texts at spaces, and what does not fit side by side at all.
@pytest.mark.parametrize("name", ["short", "n" * 40, "n" * 70])
def test_table_on_a_narrow_terminal_breaks_no_word(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    terminal = on_terminal(monkeypatch, columns=80)
    text = "a licence of several words " * 3
    console.table("Things", ["name", "count", "licence", ""], [[name, 7, text, "remark"], ["other", 8, "MIT", ""]])
    printed = terminal.getvalue()
    assert max(map(len, printed.splitlines())) <= 80 + 27 * (len(name) == 70)
    words = printed.replace("│", " ").split()
    for word in [name, "7", "other", "8", "remark", *text.split()]:
        assert word in words
    assert words.count("several") == 3
    assert ("count: 7" in printed) == (len(name) == 70)


@pytest.mark.parametrize("verb", [("recipe", "list"), ("weights", "list")])
def test_tables_of_verbs_keep_names_whole_at_80_columns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    monkeypatch.setenv("AVEL_WEIGHTS", str(tmp_path))
    as_json = io.StringIO()
    monkeypatch.setattr(sys, "stdout", as_json)
    assert main([*verb, "--json"]) == 0
    (rows,) = (value for value in json.loads(as_json.getvalue()).values() if isinstance(value, list) and value)
    terminal = on_terminal(monkeypatch, columns=80)
    assert main([*verb]) == 0
    words = terminal.getvalue().replace("│", " ").split()
    assert {row[key] for row in rows for key in ("recipe", "encoder", "filename") if key in row} <= set(words)


def test_print_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        console.print_json({"a": float("nan")})


def test_print_json_writes_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"id": "new\nline é"})
    assert json.loads(capsys.readouterr().out) == {"id": "new\nline é"}


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.31, "8.3 s"), (59.94, "59.9 s"), (245, "4 min 05 s"), (11_545, "3 h 12 min")]
)
def test_duration_reads_as_a_person_says_it(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


def test_progress_on_a_pipe_ends_with_one_plain_line_of_count_rate_and_time() -> None:
    out = io.StringIO()
    with console.Progress("extract", 3, "videos", file=out) as progress:
        for _ in range(3):
            progress.advance()
    (line,) = out.getvalue().splitlines()
    assert line.startswith("extract: 3/3 videos, ")
    assert "/s, in 0.0 s" in line


def test_progress_quiet_says_nothing() -> None:
    out = io.StringIO()
    with console.Progress("extract", 3, "videos", quiet=True, file=out) as progress:
        progress.advance()
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    "tell",
    [
        lambda: console.print_json({}),
        lambda: console.say("a result"),
        lambda: console.table("t", ["name"], [["a"]]),
    ],
)
def test_results_without_standard_output_end_the_command_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tell: Callable[[], None]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit, match="standard output is closed"):
        tell()


def test_command_with_standard_output_closed_fails_in_one_line() -> None:
    command = 'exec "$0" -m jobs.cli.main recipe list --json >&-'
    done = subprocess.run(["sh", "-c", command, sys.executable], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("avel: error: standard output is closed")


def test_remarks_without_standard_error_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    console.note("a remark")
    with console.Progress("extract", 1, "videos") as progress:
        progress.advance()
