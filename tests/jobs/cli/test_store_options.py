"""`--wait` means the same to every verb that writes to a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.cli.main import main

VERBS = {
    "extract": ["media", "--recipe", "descriptors-1s", "--store", "s"],
    "labels": ["--store", "s", "--recipe", "imagebind-1s", "--vocabulary", "classes.txt"],
    "synth-features": ["ave", "--root", ".", "--store", "s"],
    "store import": [".", "s", "--format", "zarr"],
}


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "soon"])
@pytest.mark.parametrize("verb", VERBS)
def test_wait_that_is_no_time_is_refused_and_makes_no_store(
    verb: str, wait: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*verb.split(), *VERBS[verb], "--wait", wait]) == 2
    assert f"argument --wait: needs seconds of at least 0, got {wait}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
