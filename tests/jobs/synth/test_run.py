"""`avel synth` through the command line: same bytes, resumed, refused, read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from catalog import dataset as registry
from jobs.cli.main import main


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos in AVE's layout, by one process."""
    out = tmp_path_factory.mktemp("synth") / "made"
    assert main(["synth", str(out), "--videos", "3", "--seed", "5", "--workers", "1", "--json"]) == 0
    return out


@pytest.mark.slow
def test_synth_two_processes_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    assert main(["synth", str(tmp_path / "two"), "--videos", "3", "--seed", "5", "--workers", "2"]) == 0
    assert contents(tmp_path / "two") == contents(made)


def test_synth_files_are_read_by_the_layouts_own_reader(made: Path) -> None:
    dataset = registry.load("ave", made)
    assert len(dataset.items) == 3
    assert not dataset.oddities
    assert all(Path(video.uri).stat().st_size > 10_000 for video in dataset.videos)
    assert registry.load("synthetic", made).videos == dataset.videos


def test_synth_again_keeps_finished_videos_and_makes_missing_ones(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "part"
    (out / "videos").mkdir(parents=True)
    # As a killed run leaves it: settings, one video, a part of another, no annotations.
    (out / "synth.json").write_bytes((made / "synth.json").read_bytes())
    kept = out / "videos" / "synth00001.mp4"
    kept.write_bytes((made / "videos" / "synth00001.mp4").read_bytes())
    before = kept.stat().st_mtime_ns
    for id_ in ("synth00000", "gone"):
        (out / "videos" / f".{id_}.mp4.part").write_bytes(b"half")
    assert main(["synth", str(out), "--videos", "3", "--seed", "5", "--workers", "1", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["made"], summary["kept"]) == (2, 1)
    assert kept.stat().st_mtime_ns == before
    assert contents(out) == contents(made)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--videos", "4", "--seed", "5"], "videos 3 there, 4 wanted"),
        (["--videos", "3", "--seed", "6"], "seed 5 there, 6 wanted"),
        (["--videos", "3", "--seed", "5", "--layout", "unav100"], "layout ave there, unav100 wanted"),
    ],
)
def test_synth_into_a_folder_of_other_settings_is_refused(
    made: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(made)
    assert main(["synth", str(made), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert contents(made) == before


def test_synth_into_a_strangers_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letter.txt").write_text("dear", encoding="utf-8")
    assert main(["synth", str(tmp_path), "--videos", "1"]) == 2
    assert "was not made by `avel synth`" in capsys.readouterr().err
    assert main(["synth", str(tmp_path / "letter.txt"), "--videos", "1"]) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_synth_dry_run_says_what_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synth", str(tmp_path / "out"), "--videos", "60", "--dry-run", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["splits"] == {"train": 40, "val": 8, "test": 12}
    assert (summary["made"], summary["duration_s"], len(summary["classes"])) == (60, 600, 6)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--videos", "0"], ["--seed", "-1"], ["--workers", "0"], ["--layout", "x"]])
def test_synth_wrong_arguments_exit_2(arguments: list[str], tmp_path: Path) -> None:
    assert main(["synth", str(tmp_path / "out"), *arguments]) == 2
    assert not (tmp_path / "out").exists()


def test_synth_is_for_people_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synth", str(tmp_path / "out"), "--videos", "1", "--layout", "ovavebench", "--workers", "1"]) == 0
    said = capsys.readouterr()
    assert "made 1 videos (10 s of media in all 1)" in said.out
    assert "1/1 videos" in said.err
    assert len(registry.load("ovavebench", tmp_path / "out").items) == 1
