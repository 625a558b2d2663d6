"""`avel demo` of too few videos. The whole demonstration runs in `test_dense_verbs` and by hand: it takes minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.datasets import synthetic
from jobs.cli.main import main


@pytest.mark.parametrize("dense", [[], ["--dense"]])
@pytest.mark.parametrize(("videos", "without"), [(1, "val, test"), (3, "val"), (4, "val")])
def test_demo_of_fewer_videos_than_give_every_split_one_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dense: list[str], videos: int, without: str
) -> None:
    assert main(["demo", *dense, "--videos", str(videos), "--out", str(tmp_path / "out")]) == 2
    assert f"--videos {videos}: no video is left for {without}; at least 5 are needed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_demo_of_no_videos_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--videos", "0", "--out", str(tmp_path / "out")]) == 2
    assert "0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["ave", "unav100"])
def test_five_videos_give_every_split_one(tmp_path: Path, layout: str) -> None:
    made = synthetic.plan(synthetic.Settings(layout=layout, videos=5, seed=0), tmp_path).dataset
    assert [len(made.split(name)) for name in ("train", "val", "test")] == [3, 1, 1]
