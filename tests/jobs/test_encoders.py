"""Encoders with weights, by the command line: both executors, labels, fine-tuning, and checkpoints that are refused."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import random_weights
from catalog.datasets import ave, synthetic
from catalog.store.reader import open_store
from jobs.cli.main import main
from tests import small_videos as small
from tests.pipeline.encoders.small_audioclip import SMALL, write_small

SET = [word for field, value in SMALL.items() for word in ("--set", f"{field}={value}")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen small videos in AVE's layout."""
    folder = tmp_path_factory.mktemp("ave")
    made = synthetic.plan(synthetic.Settings(layout="ave", videos=15, seed=0), folder).dataset
    (folder / "videos").mkdir()
    for number, video in enumerate(made.videos):
        small.make_video(Path(video.uri), seed=number, duration_s=Fraction(10))
    ave.write(made, folder)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("weights") / "small.pt")


def extract(root: Path, store: Path, weights: Path, *more: str) -> int:
    command = ["extract", str(root / "videos"), "--limit", "3", "--recipe", "audioclip-1s", *SET, "--as", "small"]
    return main([*command, "--weights", str(weights), "--store", str(store), *more])


@pytest.fixture(scope="module")
def store(root: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("local") / "store"
    assert extract(root, place, weights, "--executor", "local") == 0
    return place


def test_extract_stores_features_of_the_checkpoints_sizes(store: Path) -> None:
    held = open_store(str(store))
    entry = held.recipes()["small"]
    assert entry.recipe.weights_sha256 is not None
    assert (entry.visual_shape, entry.audio_shape, entry.rows) == ((32,), (32,), 30)
    for modality in ("visual", "audio"):
        assert np.isfinite(held.read("small", modality).values).all()


def test_extract_other_weights_are_another_recipe(
    root: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_small(tmp_path / "other.pt", seed=1)
    assert extract(root, store, other) == 2
    assert "weights_sha256: stored" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["cut", "other", "missing"])
def test_extract_refuses_a_checkpoint_that_is_none(
    root: Path, weights: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.pt"
    if kind == "cut":
        path.write_bytes(weights.read_bytes()[:50_000])
    elif kind == "other":
        torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    assert extract(root, tmp_path / "store", path) != 0
    told = capsys.readouterr().err
    assert "bad.pt" in told
    assert "Traceback" not in told


def test_extract_dry_run_looks_at_the_weights_and_makes_nothing(
    root: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert extract(root, tmp_path / "store", weights, "--dry-run") == 0
    other = tmp_path / "vgg.pt"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, other)
    capsys.readouterr()
    assert extract(root, tmp_path / "store", other, "--dry-run") == 1
    assert f"{other}" in capsys.readouterr().err
    monkeypatch.setenv("AVEL_WEIGHTS", str(tmp_path / "none"))
    words = ["--recipe", "imagebind-1s", "--store", str(tmp_path / "store"), "--dry-run"]
    assert main(["extract", str(root / "videos"), *words]) == 1
    assert "imagebind_huge.pth" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["vgg.pt"]


def test_weights_add_refuses_a_folder_of_another_model_and_names_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVEL_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "made").mkdir()
    clip = random_weights.write("clip_clap", "visual", tmp_path / "made", small=True)["clip"]
    assert main(["weights", "add", "clip_clap", str(clip), "--asset", "clap"]) == 1
    told = capsys.readouterr().err
    assert "asset clap of clip_clap" in told
    assert "needs a checkpoint folder of model type 'clap', got 'clip'" in told
    assert main(["weights", "add", "pe_av", str(clip)]) == 1
    assert "needs a checkpoint folder of model type 'pe_audio_video', got 'clip'" in capsys.readouterr().err
    assert not (tmp_path / "weights").exists()
    assert main(["weights", "add", "clip_clap", str(clip), "--asset", "clip"]) == 0
    assert (tmp_path / "weights" / "clip-vit-base-patch32" / "config.json").is_file()


def test_extract_without_weights_says_where_they_are(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVEL_WEIGHTS", str(tmp_path))
    assert main(["extract", str(root / "videos"), "--recipe", "imagebind-1s", "--store", str(tmp_path / "s")]) == 1
    told = capsys.readouterr().err
    for word in ("imagebind_huge.pth", "dl.fbaipublicfiles.com", "CC BY-NC-SA 4.0", "avel weights fetch imagebind"):
        assert word in told


def test_labels_are_stored_beside_the_features(
    shared: Path, store: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("dog\ncat, meowing\n", encoding="utf-8")
    bpe = shared / "data/vocab/bpe_simple_vocab_16e6.txt.gz"
    given = ["--weights", f"audioclip={weights}", "--weights", f"bpe={bpe}"]
    capsys.readouterr()
    command = ["labels", "--store", str(store), "--recipe", "small", "--vocabulary", str(tmp_path / "mine.txt")]
    assert main([*command, *given, "--prompt", "a {}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["names"] == ["dog", "cat, meowing", "other"]
    held = open_store(str(store)).labels("small", "mine")
    assert held.names == ("dog", "cat, meowing", "other")
    assert held.features.shape == (3, 32)
    assert held.prompt == "a {}"
    assert main([*command, *given, "--no-other", "--name", "bare"]) == 0
    assert len(open_store(str(store)).labels("small", "bare").names) == 2
    assert main(["labels", "--store", str(store), "--recipe", "descriptors-1s", *command[5:]]) == 2


def test_finetune_gives_weights_that_extract_takes(
    root: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["finetune", "audioclip", "--dataset", "ave", "--root", str(root), "--out", str(out), *SET]
    more = ["--weights", str(weights), "--epochs", "2", "--batch", "4", "--lr", "1e-3", "--json"]
    capsys.readouterr()
    assert main([*command, *more, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["train_items"] == 10
    assert not out.exists()
    assert main([*command, *more]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["history"]) == 2
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["weights_sha256"] == told["weights_sha256"]
    assert not (out / "checkpoint.pt").exists()
    # Clipped together with the transform's gradient, all others come to nothing.
    assert told["settings"]["frozen"] == ["audio.fbsp."]
    # A finished run stays: the same command tells it again, another one is refused.
    made = (out / "weights.safetensors").stat().st_mtime_ns
    assert main([*command, *more]) == 0
    again = capsys.readouterr()
    assert json.loads(again.out) == told
    assert "is finished; nothing to do" in again.err
    assert main([*command, *more, "--seed", "1"]) == 2
    assert "already holds a finished run with another seed" in capsys.readouterr().err
    assert (out / "weights.safetensors").stat().st_mtime_ns == made
    assert extract(root, tmp_path / "store", out / "weights.safetensors", "--limit", "1") == 0
    recipe = open_store(str(tmp_path / "store")).recipes()["small"].recipe
    assert recipe.weights_sha256 == told["weights_sha256"]


def test_finetune_bad_arguments_exit_2(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["finetune", "descriptors", "--dataset", "ave", "--root", str(root), "--out", str(tmp_path / "run")]
    assert main(command) == 2
    assert "cannot be fine-tuned; audioclip can" in capsys.readouterr().err


def test_extract_settings_that_an_encoder_refuses_are_bad_arguments_and_make_no_store(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_small(tmp_path / "small.pt")
    video = str(shared / "data/media/video/women_long_jump.mp4")
    for change, told in (
        ("settings.keep_frames=maybe", "keep_frames must be true or false"),
        ("settings.audio_scale=loud", "audio_scale must be one of int16, unit"),
        ("audio.rate_hz=16000", "needs audio.rate_hz=44100"),
    ):
        words = [
            "extract",
            video,
            "--recipe",
            "audioclip-1s",
            "--as",
            "small",
            "--weights",
            str(path),
            "--store",
            str(tmp_path / "s"),
        ]
        for more in ([], ["--dry-run"]):
            assert main([*words, "--set", "settings.size=from-weights", "--set", change, *more]) == 2
            assert told in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
