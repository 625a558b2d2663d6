"""`avel bench`: the place of the figures is seen to first; figures that were taken are shown whatever becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.cli import main as cli

SMALL = ["bench", "encoders", "--encoder", "audioclip", "--small", "--segments", "1", "--seconds", "0.1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["bench", "resume", "--out", "nowhere/x.json"], "nowhere does not exist"),
        ([*SMALL, "--out", "nowhere/x.json"], "nowhere does not exist"),
        ([*SMALL, "--out", "file/deep/page.md"], "file is not a folder"),
    ],
)
def test_bench_refuses_a_place_before_it_measures(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert cli.main(words) == cli.BAD_ARGUMENTS
    said = capsys.readouterr()
    assert f"error: --out {words[-1]}: " in said.err
    assert told in said.err
    assert "bench encoders" not in said.err, "nothing was measured"
    assert said.out == ""


@pytest.mark.slow
def test_bench_shows_its_table_where_the_file_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*SMALL, "--folder", str(tmp_path), "--out", "/dev/full"]) == cli.FAILED
    said = capsys.readouterr()
    assert "Measured on" in said.out
    assert "No space left" in said.err
