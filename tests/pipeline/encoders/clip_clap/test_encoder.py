"""CLIP & CLAP from tiny random checkpoint folders, against the library's own way from picture and sound to feature."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from catalog.grid import SegmentGrid
from pipeline.clips import Clips
from pipeline.encode import load_encoder, piece
from pipeline.encoders.clip_clap import encoder as clip_clap
from pipeline.networks.checkpoint import BadCheckpoint
from pipeline.networks.transformers_folder import load_part, read_config
from pipeline.recipes import find_recipe

TEXT = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
RECIPE = find_recipe("clip-clap-1s").changed(
    {"video.frames_per_segment": "2", "video.height_px": "32", "video.width_px": "32"}
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("folders")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vision = TEXT | {"image_size": 32, "patch_size": 8}
        clip = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=TEXT | {"vocab_size": 99}, vision_config=vision, projection_dim=24)
        )
        audio = {
            "patch_embeds_hidden_size": 16,
            "hidden_size": 32,
            "depths": [1, 1],
            "num_attention_heads": [2, 2],
            "spec_size": 256,
            "num_mel_bins": 64,
            "patch_size": 4,
            "window_size": 8,
            "num_hidden_layers": 2,
        }
        clap = transformers.ClapModel(
            transformers.ClapConfig(text_config=TEXT | {"vocab_size": 99}, audio_config=audio, projection_dim=20)
        )
    clip.save_pretrained(folder / "clip")
    looks = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "do_normalize": True}
    (folder / "clip/preprocessor_config.json").write_text(json.dumps(looks), encoding="utf-8")
    clap.save_pretrained(folder / "clap")
    transformers.ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad").save_pretrained(folder / "clap")
    return {"clip": folder / "clip", "clap": folder / "clap"}


def clips_of(frames: np.ndarray[Any, Any], samples: np.ndarray[Any, Any]) -> Clips:
    return Clips(
        video_id="v",
        grid=SegmentGrid(window_s=Fraction(1), hop_s=Fraction(1), count=2),
        first=0,
        frames_FHWC=frames,
        frame_index_SP=np.array([[0, 1], [-1, 1]], np.int32),
        samples_N=samples.astype(np.float32),
        sample_valid_N=np.ones(samples.size, np.bool_),
        samples_start=0,
        rate_hz=48000,
    )


def test_features_equal_the_librarys(weights: dict[str, Path]) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    samples = rng.standard_normal(96000) * 0.1
    encoder = load_encoder(RECIPE, weights)
    assert (encoder.visual_shape, encoder.audio_shape) == ((24,), (20,))
    (made,) = encoder.encode([clips_of(frames, samples)])
    clip = load_part("CLIPModel", weights["clip"]).eval()
    clap = load_part("ClapModel", weights["clap"]).eval()
    listen = transformers.ClapFeatureExtractor.from_pretrained(weights["clap"])
    images = (frames / 255 - np.array([0.5, 0.4, 0.3])) / np.array([0.2, 0.3, 0.4])
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2)).float()
    with torch.inference_mode():
        seen = clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output).numpy()
        given = listen([samples[48000:].astype(np.float32)], sampling_rate=48000, return_tensors="pt")
        heard = clip_clap._tensor(clap.get_audio_features(**given)).numpy()
    assert made.visual is not None
    assert made.audio is not None
    np.testing.assert_allclose(made.visual.values, np.stack([seen.mean(axis=0), seen[1]]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(made.audio.values[1], heard[0], rtol=1e-4, atol=1e-5)


def test_pictures_of_another_size_are_refused(weights: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"takes 32 x 32 frames; --set video\.height_px=32"):
        load_encoder(find_recipe("clip-clap-1s"), weights)
    with pytest.raises(ValueError, match=r"takes 48000 Hz; --set audio\.rate_hz=48000"):
        load_encoder(RECIPE.changed({"audio.rate_hz": "16000"}), weights)
    with pytest.raises(ValueError, match="takes 10 s at most"):
        load_encoder(RECIPE.changed({"grid.window_s": "12", "grid.hop_s": "12"}), weights)


def test_folders_swapped_are_refused(weights: dict[str, Path]) -> None:
    with pytest.raises(BadCheckpoint, match="needs a checkpoint folder of model type 'clip', got 'clap'"):
        load_encoder(RECIPE, {"clip": weights["clap"], "clap": weights["clip"]})


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_folder_with_a_pickle_runs_nothing(weights: dict[str, Path], tmp_path: Path) -> None:
    config = json.loads((weights["clip"] / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModel": "evil.Evil"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})", encoding="utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    with pytest.raises(BadCheckpoint, match="no safetensors file in it; pickled weights are not opened"):
        load_part("CLIPModel", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_damaged_folders_are_refused(weights: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"config\.json is missing"):
        read_config(tmp_path, "clip")
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadCheckpoint, match="damaged JSON"):
        read_config(tmp_path, "clip")
    (tmp_path / "config.json").write_text(
        (weights["clip"] / "config.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    whole = (weights["clip"] / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadCheckpoint, match="CLIPModel cannot be read"):
        load_part("CLIPModel", tmp_path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"projection_dim": "x"}, r"config\.json: projection_dim needs a whole number above 0, got 'x'"),
        ({"vision_config": []}, r"config\.json: image_size needs a whole number above 0, got 'None'"),
        ({"vision_config": {"image_size": [32]}}, r"config\.json: image_size needs a whole number .* got '\[32\]'"),
    ],
)
def test_sizes_of_another_kind_are_told_with_the_file(
    weights: dict[str, Path], tmp_path: Path, damage: dict[str, object], told: str
) -> None:
    config = json.loads((weights["clip"] / "config.json").read_text(encoding="utf-8")) | damage
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(BadCheckpoint, match=told):
        load_encoder(RECIPE, {"clip": tmp_path, "clap": weights["clap"]})


def test_weights_of_another_configuration_are_refused(weights: dict[str, Path], tmp_path: Path) -> None:
    config = json.loads((weights["clip"] / "config.json").read_text(encoding="utf-8"))
    config["vision_config"]["num_hidden_layers"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes((weights["clip"] / "model.safetensors").read_bytes())
    with pytest.raises(BadCheckpoint, match="missing vision_model"):
        load_part("CLIPModel", tmp_path)


def test_fused_clap_hears_each_sound_alike_whatever_stands_beside_it(weights: dict[str, Path], tmp_path: Path) -> None:
    config = transformers.ClapConfig.from_pretrained(weights["clap"])
    audio: Any = config.audio_config
    audio.enable_fusion = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        transformers.ClapModel(config).save_pretrained(tmp_path / "clap")
    transformers.ClapFeatureExtractor(truncation="fusion", padding="repeatpad").save_pretrained(tmp_path / "clap")
    recipe = type(RECIPE)(
        name="fused", encoder=RECIPE.encoder, grid=RECIPE.grid, video=None, audio=RECIPE.audio, settings=RECIPE.settings
    )
    encoder = load_encoder(recipe, {"clap": tmp_path / "clap"})
    samples = np.random.default_rng(0).standard_normal(96000) * 0.1
    clips = dataclasses.replace(
        clips_of(np.zeros((1, 32, 32, 3), np.uint8), samples), frame_index_SP=np.zeros((2, 0), np.int32)
    )
    (whole,) = encoder.encode([clips])
    assert whole.audio is not None
    for row in (0, 1):  # the library itself draws one of a batch by chance
        (alone,) = encoder.encode([piece(clips, row, 1, Fraction(0))])
        assert alone.audio is not None
        np.testing.assert_allclose(whole.audio.values[row], alone.audio.values[0], rtol=1e-4, atol=1e-5)
