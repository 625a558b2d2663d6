"""AudioCLIP as an encoder: the published file whole, published preprocessing, small checkpoints, refusals."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from catalog.grid import GridRule, SegmentGrid
from catalog.recipe import Recipe
from pipeline.clips import Clips
from pipeline.decode.frames import Geometry, resize
from pipeline.encode import load_encoder
from pipeline.encode_labels import encode_labels
from pipeline.encoders.audioclip import encoder as audioclip
from pipeline.networks.checkpoint import BadCheckpoint
from pipeline.networks.inference import normalised
from pipeline.recipes import find_recipe
from tests.pipeline import parity
from tests.pipeline.encoders.small_audioclip import small_recipe, write_small


@pytest.fixture(scope="module")
def official(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with every key of the published one."""
    window = torch.from_numpy(np.load(shared / "parity/encoders/audioclip_audio_1s.npz")["given.audio.window"])
    path = tmp_path_factory.mktemp("official") / "AudioCLIP-Full-Training.pt"
    torch.save(parity.seeded_state(shared, "audioclip", given={"audio.window": window}), path)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("small") / "small.pt")


def clips_of(recipe: Recipe, *, frames: np.ndarray | None, index: list[list[int]], samples: np.ndarray) -> Clips:
    size = recipe.video.height_px if recipe.video else 8
    return Clips(
        video_id="v",
        grid=SegmentGrid(window_s=recipe.grid.window_s, hop_s=recipe.grid.hop_s, count=len(index)),
        first=0,
        frames_FHWC=np.zeros((0, size, size, 3), np.uint8) if frames is None else frames,
        frame_index_SP=np.array(index, np.int32).reshape(len(index), -1),
        samples_N=samples.astype(np.float32),
        sample_valid_N=np.ones(samples.size, np.bool_),
        samples_start=0,
        rate_hz=44100 if recipe.audio else 0,
    )


@pytest.mark.parametrize(("scale", "key"), [("int16", "scaled"), ("unit", "notebook")])
def test_sound_of_a_file_equals_the_published(shared: Path, official: Path, scale: str, key: str) -> None:
    """The golden is of the first 2 s: so is this recipe's window."""
    arrays, meta = parity.prepared(shared, "prep_audioclip_audio")
    preset = find_recipe("audioclip-1s")
    recipe = Recipe(
        name="two",
        encoder="audioclip",
        grid=GridRule(window_s=Fraction(2), hop_s=Fraction(2)),
        video=None,
        audio=preset.audio,
        settings=dict(preset.settings) | {"audio_scale": scale},
    )
    encoder = load_encoder(recipe, {"audioclip": official})
    for name, source in meta["sources"].items():
        samples, rate_hz = soundfile.read(shared / "data" / source, dtype="float32")
        assert rate_hz == 44100
        clips = clips_of(recipe, frames=None, index=[[]], samples=samples[:88200])
        (made,) = encoder.encode([clips])
        want = arrays[f"emb_{key}_{name}"]
        assert made.audio is not None
        assert np.abs(made.audio.values[0] - want).max() <= 2e-3 * np.abs(want).max()


def test_picture_of_a_file_equals_the_published_crop(shared: Path) -> None:
    arrays, meta = parity.prepared(shared, "prep_images")
    video = find_recipe("audioclip-1s").video
    assert video is not None
    for name, source in meta["sources"].items():
        frame = np.array(Image.open(shared / "data" / source).convert("RGB"))
        made = resize(frame, Geometry.of(video))
        off = np.abs(made.astype(int) - arrays[f"clip224_{name}_u8"].astype(int))
        assert off.max() <= 1
        assert (off > 0).mean() < 0.002
        flat = (
            normalised(torch.from_numpy(made.copy())[None], audioclip.MEAN, audioclip.DEVIATION)[0]
            .flatten()
            .numpy()[::997]
        )
        np.testing.assert_allclose(flat, arrays[f"clip224_{name}_norm_probe"], atol=1.001 / 255 / 0.26)


def test_picture_of_a_file_equals_the_notebooks_tensor(shared: Path) -> None:
    arrays, meta = parity.prepared(shared, "prep_images")
    video = find_recipe("audioclip-1s").changed({"video.interpolation": "bicubic_tensor"}).video
    assert video is not None
    for name, source in meta["sources"].items():
        frame = np.array(Image.open(shared / "data" / source).convert("RGB"))
        made = torch.from_numpy(resize(frame, Geometry.of(video)))
        flat = normalised(made[None], audioclip.MEAN, audioclip.DEVIATION)[0].flatten().numpy()[::97]
        np.testing.assert_allclose(flat, arrays[f"audioclip_notebook_{name}_probe"], atol=1e-4)


def test_whole_encoder_means_the_frames_of_a_segment(shared: Path, official: Path) -> None:
    case = parity.load(shared, "audioclip_image")
    recipe = find_recipe("audioclip-1s").changed({"video.frames_per_segment": "2"})
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    clips = clips_of(recipe, frames=frames, index=[[0, 1], [1, 1]], samples=rng.normal(size=88200) * 0.1)
    (made,) = load_encoder(recipe, {"audioclip": official}).encode([clips])
    net = audioclip._image_net(case.state, recipe, "golden").eval()
    with torch.inference_mode():
        one, two = net(normalised(torch.from_numpy(frames), audioclip.MEAN, audioclip.DEVIATION)).numpy()
    assert made.visual is not None
    assert made.audio is not None
    np.testing.assert_allclose(made.visual.values, np.stack([(one + two) / 2, two]), rtol=1e-4, atol=1e-4)
    assert made.audio.values.shape == (2, 1024)


def test_keep_frames_stores_each_frame(small: Path) -> None:
    recipe = small_recipe(**{"settings.keep_frames": "true"})
    encoder = load_encoder(recipe, {"audioclip": small})
    assert (encoder.visual_shape, encoder.audio_shape) == ((2, 32), (32,))
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    clips = clips_of(recipe, frames=frames, index=[[-1, 0], [1, 2]], samples=rng.normal(size=88200) * 0.1)
    (kept,) = encoder.encode([clips])
    (mean,) = load_encoder(small_recipe(), {"audioclip": small}).encode([clips])
    assert kept.visual is not None
    assert mean.visual is not None
    np.testing.assert_allclose(kept.visual.values[1].mean(axis=0), mean.visual.values[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(kept.visual.values[0, 0], kept.visual.values[0, 1])


def test_segments_without_picture_or_sound_are_nan(small: Path) -> None:
    recipe = small_recipe()
    frames = np.zeros((1, 64, 64, 3), np.uint8)
    clips = clips_of(recipe, frames=frames, index=[[-1, -1], [0, 0]], samples=np.zeros(44100))
    (made,) = load_encoder(recipe, {"audioclip": small}).encode([clips])
    assert made.visual is not None
    assert made.audio is not None
    assert made.visual.valid.tolist() == [False, True]
    assert made.audio.valid.tolist() == [True, False]


def test_text_features_of_a_vocabulary_equal_the_published(shared: Path, official: Path) -> None:
    case = parity.load(shared, "audioclip_text")
    weights = {"audioclip": official, "bpe": shared / "data/vocab/bpe_simple_vocab_16e6.txt.gz"}
    made = encode_labels(case.meta["texts"], find_recipe("audioclip-1s"), weights)
    parity.check(shared, case, made)
    with pytest.raises(ValueError, match="takes 75 tokens"):
        encode_labels(["dog " * 100], find_recipe("audioclip-1s"), weights)


def test_reduced_precision_stays_near(small: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    made = []
    for precision in ("float32", "bfloat16"):
        recipe = small_recipe(precision=precision)
        clips = clips_of(recipe, frames=frames, index=[[0, 1]], samples=rng.normal(size=44100) * 0.1)
        made.append(load_encoder(recipe, {"audioclip": small}).encode([clips])[0].visual)
        rng = np.random.default_rng(0)
        rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    whole, reduced = (modal.values.ravel() for modal in made if modal is not None)
    assert whole @ reduced / np.linalg.norm(whole) / np.linalg.norm(reduced) > 0.999
    assert not np.array_equal(whole, reduced)


def test_small_checkpoint_is_refused_unless_asked_for(small: Path) -> None:
    recipe = find_recipe("audioclip-1s")
    with pytest.raises(ValueError, match=r"published sizes .* --set settings\.size=from-weights"):
        load_encoder(recipe, {"audioclip": small})
    with pytest.raises(ValueError, match=r"takes 64 x 64 frames.*--set video\.height_px=64"):
        load_encoder(recipe.changed({"settings.size": "from-weights"}), {"audioclip": small})


@pytest.mark.parametrize(("drop", "told"), [("audio.fc.bias", r"missing: fc\.bias"), ("visual.", "ResNet")])
def test_checkpoint_with_holes_is_refused(small: Path, tmp_path: Path, drop: str, told: str) -> None:
    state = {key: value for key, value in torch.load(small, weights_only=True).items() if not key.startswith(drop)}
    torch.save(state, tmp_path / "holes.pt")
    with pytest.raises(ValueError, match=told):
        load_encoder(small_recipe(), {"audioclip": tmp_path / "holes.pt"})


def test_cut_checkpoint_is_refused(small: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes(small.read_bytes()[:100_000])
    with pytest.raises(BadCheckpoint, match=r"cut\.pt"):
        load_encoder(small_recipe(), {"audioclip": tmp_path / "cut.pt"})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"settings.audio_scale": "loud"}, "audio_scale must be one of int16, unit"),
        ({"audio.rate_hz": "16000"}, r"needs audio\.rate_hz=44100"),
        ({"settings.keep_frames": "1"}, "keep_frames must be true or false"),
        ({"settings.crop_s": "0"}, "crop_s must be more than 0, got 0"),
        ({"settings.crop_s": "long"}, "crop_s must be a number, got 'long'"),
    ],
)
def test_settings_that_cannot_be_raise(small: Path, changes: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load_encoder(small_recipe(**changes), {"audioclip": small})


def test_towers_learn_and_keep_the_published_layout(small: Path) -> None:
    before = torch.load(small, weights_only=True)
    made = audioclip.load_trainable({"audioclip": small}, "cpu", small_recipe())
    made.module.train()
    images = made.image(torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8))
    sounds = made.audio(torch.randn(4, 8000) * 0.1)
    torch.autograd.backward(images.square().sum() + sounds.square().sum() + made.log_scale)
    torch.optim.SGD(made.module.parameters(), lr=0.1).step()
    after = made.published_state()
    assert after.keys() == before.keys()
    assert torch.equal(after["transformer.resblocks.0.ln_1.weight"], before["transformer.resblocks.0.ln_1.weight"])
    for name in ("visual.conv1.weight", "audio.conv1.weight", "audio.fbsp.fc", "logit_scale_ai"):
        assert not torch.equal(after[name], before[name]), name


def test_five_seconds_are_heard_of_a_longer_window_by_the_published_rule(small: Path) -> None:
    rng = np.random.default_rng(0)
    sound = np.zeros(88200, np.float32)
    sound[:4000] = rng.standard_normal(4000) * 0.1  # a burst at the start: the centre is silent
    recipe = small_recipe(**{"grid.window_s": "2", "grid.hop_s": "2", "settings.crop_s": "1"})
    alone = small_recipe(**{"grid.window_s": "1", "grid.hop_s": "1"})
    made, want = (
        load_encoder(
            Recipe(name="deaf", encoder="audioclip", grid=r.grid, video=None, audio=r.audio, settings=r.settings),
            {"audioclip": small},
        )
        for r in (recipe, alone)
    )
    (cropped,) = made.encode([clips_of(made.recipe, frames=None, index=[[]], samples=sound)])
    (first,) = want.encode([clips_of(want.recipe, frames=None, index=[[]], samples=sound[:44100])])
    assert cropped.audio is not None
    assert first.audio is not None
    np.testing.assert_allclose(cropped.audio.values, first.audio.values, rtol=1e-5, atol=1e-6)

    # A file of half a second: padded with its edges on both sides.
    short = clips_of(made.recipe, frames=None, index=[[]], samples=np.pad(sound[:22050] + 0.05, (0, 88200 - 22050)))
    short.sample_valid_N[22050:] = False
    (padded,) = made.encode([short])
    edges = np.pad(sound[:22050] + 0.05, (11025, 11025), mode="edge")
    (given,) = want.encode([clips_of(want.recipe, frames=None, index=[[]], samples=edges)])
    assert padded.audio is not None
    assert given.audio is not None
    np.testing.assert_allclose(padded.audio.values, given.audio.values, rtol=1e-5, atol=1e-6)
