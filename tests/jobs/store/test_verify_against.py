"""`avel store verify --against` as a person runs it, with real published features of a real file."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.store.modal import Modal
from catalog.store.reader import create_store, open_store
from catalog.store.rows import RecipeRows, VideoResult
from catalog.store.writer import open_writer
from catalog.video import EXTRACTED, Video
from jobs.cli import main as cli
from pipeline.decode.probe import probe

# BMT's sample: I3D of 64 frames of 25 a second, the last stack not full; VGGish of 0.96 s.
STACKS = GridRule(window_s=Fraction(64, 25), hop_s=Fraction(64, 25), tail="pad")
SOUNDS = GridRule(window_s=Fraction(24, 25), hop_s=Fraction(24, 25), tail="drop")


def recipe_of(name: str, grid: GridRule) -> Recipe:
    video = VideoSampling(frames_per_segment=64, height_px=224, width_px=224) if name == "pictures" else None
    audio = None if video is not None else AudioSampling(rate_hz=16000)
    return Recipe(name=name, encoder="i3d_vggish", grid=grid, video=video, audio=audio)


@pytest.fixture(scope="module")
def store(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the file's true grids, and features drawn at random: what unknown weights would give."""
    duration_s = probe(str(shared / "data/media/video/women_long_jump.mp4")).duration_s
    rng = np.random.default_rng(0)
    recipes = [recipe_of("pictures", STACKS), recipe_of("sound", SOUNDS)]
    features = {}
    for recipe in recipes:
        grid = recipe.grid.grid(duration_s)
        seen = recipe.video is not None
        values = rng.random((grid.count, 2048 if seen else 128)).astype(np.float32)
        features[recipe.name] = RecipeRows(
            visual=Modal.of(values if seen else None, np.full(grid.count, seen)),
            audio=Modal.of(None if seen else values, np.full(grid.count, not seen)),
            start_s=grid.starts_s(),
            end_s=grid.ends_s(),
        )
    made = create_store(tmp_path_factory.mktemp("against") / "s")
    with open_writer(made) as writer:
        writer.ensure_recipe(recipes[0], visual_shape=(2048,), audio_shape=None, card={})
        writer.ensure_recipe(recipes[1], visual_shape=None, audio_shape=(128,), card={})
        result = VideoResult(
            video=Video(id="women_long_jump.mp4", uri="/media/women_long_jump.mp4"),
            unit=0,
            outcome=EXTRACTED,
            duration_s=float(duration_s),
            sha256="",
            bytes=1,
            media={},
            features=features,
        )
        writer.append([result], ["pictures", "sound"])
        writer.commit("made")
    return Path(made.uri)


def verify(*words: str | Path) -> int:
    return cli.main(["store", "verify", *map(str, words)])


@pytest.mark.parametrize(
    ("recipe", "span", "streams"),
    [
        ("pictures", "64/25", [("rgb", 14, 1024), ("flow", 14, 1024)]),
        ("sound", "24/25", [("vggish", 36, 128)]),
    ],
)
def test_published_features_of_a_real_file_agree_in_all_but_values(
    shared: Path, store: Path, capsys: pytest.CaptureFixture[str], recipe: str, span: str, streams: list[Any]
) -> None:
    words: list[str | Path] = [
        store,
        "--against",
        shared / "data/media/features",
        "--recipe",
        recipe,
        "--window",
        span,
        "--hop",
        span,
    ]
    assert verify(*words) == 1
    assert "shapes and times agree, values do not (other weights or another decoder)" in capsys.readouterr().out
    assert verify(*words, "--shapes-only", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"]
    assert told["against"]["verdict"] == "other values"
    assert told["against"]["streams"].keys() == {name for name, _, _ in streams}
    assert [
        (item["stream"], item["rows"], item["published_rows"], item["width"], item["published_width"])
        for item in told["against"]["compared"]
    ] == [(name, rows, rows, width, width) for name, rows, width in streams]
    assert {item["times_off_s"] for item in told["against"]["compared"]} == {0.0}
    assert all(0 < item["least_cosine"] < 1 for item in told["against"]["compared"])


def test_published_features_on_another_grid_differ_in_times(
    shared: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words: list[str | Path] = [store, "--against", shared / "data/media/features", "--recipe", "sound", "--shapes-only"]
    # As UnAV-100's are laid out in time, 0.32 s apart, which these are not.
    assert verify(*words) == 1
    assert "shapes agree, times do not" in capsys.readouterr().out


def test_an_export_equals_its_store(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(["store", "export", str(store), str(out), "--format", "unav-npy", "--recipe", "pictures"]) == 0
    capsys.readouterr()
    assert verify(store, "--against", out, "--recipe", "pictures", "--tolerance", "0", "--json") == 0
    told = json.loads(capsys.readouterr().out)["against"]
    assert (told["verdict"], told["layout"], told["only_there"]) == ("equal", "plain", 0)
    np.save(out / "women_long_jump.mp4_visual.npy", np.zeros((13, 2048), np.float32))
    assert verify(store, "--against", out, "--recipe", "pictures", "--shapes-only") == 1
    shown = capsys.readouterr().out
    assert "shapes differ" in shown
    assert "14/13" in shown


def test_a_missing_stream_is_told_and_no_fault(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    visual = open_store(store).read("pictures", "visual").values
    (tmp_path / "p").mkdir()
    np.save(tmp_path / "p" / "women_long_jump_rgb.npy", visual[:, :1024])
    words: list[str | Path] = [store, "--against", tmp_path / "p", "--recipe", "pictures"]
    words += ["--window", "64/25", "--hop", "64/25"]
    assert verify(*words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert ": equal (of those there); equal: 1 of 1 rgb; 1 files missing there, 0 videos only here, 0 only" in shown
    assert verify(*words, "--json") == 0
    told = json.loads(capsys.readouterr().out)["against"]
    assert (told["verdict"], told["told"], told["missing_there"]) == ("equal", "equal (of those there)", 1)
    np.save(tmp_path / "p" / "women_long_jump_flow.npy", visual[:, 1024:])
    assert verify(*words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert ": equal; equal: 1 of 1 rgb, 1 of 1 flow; 0 files missing there, 0 videos only here, 0 only" in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--recipe", "sound"], "--recipe go with --against DIR"),
        (["--shapes-only", "--hop", "1"], "--shapes-only, --hop go with --against DIR"),
        (["--tolerance", "0"], "--tolerance go with --against DIR"),
        (["--tolerance", "0.001"], "--tolerance go with --against DIR"),
        (["--cosine", "0"], "--cosine go with --against DIR"),
        (["--rows-apart", "0"], "--rows-apart go with --against DIR"),
        (["--rows-apart", "-1", "--window", "x"], "--rows-apart, --window go with --against DIR"),
        (["--against", "nowhere"], "--against needs a folder"),
        (["--against", "."], "say which with --recipe"),
        (["--against", ".", "--recipe", "none"], "has the recipes pictures, sound"),
        (["--against", ".", "--window", "1"], "--window and --hop go together"),
        (["--against", ".", "--window", "1", "--hop", "0"], "above 0"),
        (["--against", ".", "--window", "1e400", "--hop", "1"], "at most 1e9, got '1e400'"),
        (["--against", ".", "--window", "1", "--hop", "1e400"], "at most 1e9, got '1e400'"),
        (["--against", ".", "--tolerance", "-1"], "tolerance"),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    store: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert verify(store, *words) == 2
    assert told in capsys.readouterr().err


def test_a_folder_without_features_is_an_error(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert verify(store, "--against", tmp_path / "empty", "--recipe", "sound") == 1
    assert "no feature files such as ID_rgb.npy" in capsys.readouterr().err
