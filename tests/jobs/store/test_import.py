"""`avel store import`: what the files did not hold is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main as cli
from tests.catalog.exchange.formats.test_unav_npy import SECONDS, write


def test_import_tells_videos_without_files_and_with_one_stream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "features", {"a": {"rgb": 35, "flow": 35, "vggish": 35}, "b": {"vggish": 35}})
    videos: dict[str, Any] = {n: {"duration": SECONDS, "subset": "train", "annotations": []} for n in ("a", "b", "c")}
    event = {"segment": [1.0, 4.0], "label": "dog", "label_id": 0}
    videos["a"]["annotations"] = [event]
    (tmp_path / "unav100_annotations.json").write_text(json.dumps({"version": "1", "database": videos}))
    words = ["store", "import", str(source), str(tmp_path / "store"), "--format", "unav-npy", "--dataset", "unav100"]
    words += ["--root", str(tmp_path), "--window", "24/25", "--hop", "8/25", "--json"]
    assert cli.main(words) == 0
    said = capsys.readouterr()
    assert "1 of the 3 videos of unav100 have no features" in said.err
    found = json.loads(said.out)
    assert found["absent_videos"] == 1
    assert found["outcomes"] == {"imported": {"extracted": 1, "partial: no_video": 1}}


def test_import_under_a_presets_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "features", {"a": {"rgb": 35, "flow": 35}})
    words = ["store", "import", str(source), str(tmp_path / "s"), "--format", "unav-npy", "--window", "24/25"]
    assert cli.main([*words, "--hop", "8/25", "--as", "i3d-vggish-unav"]) == 2
    assert "--as i3d-vggish-unav: the name of a recipe that makes features here" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
