"""ONE-PEACE as an encoder: published preprocessing, windows one at a time, small checkpoints in published wrappers."""

from __future__ import annotations

import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from PIL import Image

from catalog.grid import SegmentGrid
from catalog.recipe import Recipe, VideoSampling
from catalog.store.reader import open_store
from jobs.cli import main as cli
from pipeline.clips import Clips
from pipeline.decode.frames import Geometry, resize
from pipeline.decode.resample import resample
from pipeline.encode import Encoder, load_encoder
from pipeline.encode_labels import encode_labels
from pipeline.encoders.one_peace import encoder as one_peace
from pipeline.networks import one_peace_video
from pipeline.networks.checkpoint import BadCheckpoint
from pipeline.networks.one_peace import Config, OnePeace, branch
from pipeline.networks.one_peace_layers import audio_frames, image_rows
from pipeline.networks.one_peace_video import VideoTower, completed
from pipeline.preprocess.frames import centre
from pipeline.recipes import find_recipe
from tests.pipeline import parity

FRAMES, SIDE_PX = 4, 64
SMALL: dict[str, Any] = {"width": 32, "heads": 2, "layers": 2, "hidden": 48}
# Sums of some thousand float32 products, in another order.
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def drawn(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A state dict at which every part matters, without constants; a name's tensor is the same in all networks."""
    state = net.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            tensor.uniform_(-0.4, 0.4, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
            if "norm" in name or "gamma" in name or name.endswith("ln.weight"):
                tensor.add_(0.5)
    return {name: tensor for name, tensor in state.items() if not name.endswith(("rp_bucket", "position_idx"))}


def write_small(folder: Path, *, frames: int = FRAMES) -> dict[str, Path]:
    video = VideoTower(one_peace_video.Config(**SMALL, adapter=8, frames=frames, side=4, classes=5))
    torch.save({"meta": {"epoch": 30}, "state_dict": drawn(video)}, folder / "onepeace_video_k400.pth")
    whole: dict[str, torch.Tensor] = {}
    for modality, rows in (("text", 34), ("image", image_rows(4)), ("audio", 66)):
        config = Config(modality=modality, rows=rows, side=4, reach=4, channels=24, embedding=12, **SMALL)  # type: ignore[arg-type]  # three literals
        whole |= drawn(OnePeace(replace(config, vocabulary=60000)))
    torch.save({"args": None, "cfg": {"task": {"patch_image_size": 64}}, "model": whole}, folder / "one-peace.pt")
    return {"one_peace_k400": folder / "onepeace_video_k400.pth", "one_peace": folder / "one-peace.pt"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_small(tmp_path_factory.mktemp("small"))


def small_recipe(**more: str) -> Recipe:
    changes = {
        "settings.size": "from-weights",
        "video.frames_per_segment": str(FRAMES),
        "video.height_px": str(SIDE_PX),
        "video.width_px": str(SIDE_PX),
    }
    return find_recipe("onepeace-unav").changed(changes | more)


def clips_of(
    samples: NDArray[np.floating], index_SP: NDArray[np.int32], *, frames: NDArray[Any] | None = None
) -> Clips:
    if frames is None:
        frames = np.zeros((0, SIDE_PX, SIDE_PX, 3), np.float32)
    return Clips(
        video_id="v",
        grid=SegmentGrid(window_s=Fraction(1), hop_s=Fraction(1, 4), count=len(index_SP)),
        first=0,
        frames_FHWC=frames,
        frame_index_SP=index_SP,
        samples_N=samples.astype(np.float32),
        sample_valid_N=np.ones(samples.size, np.bool_),
        samples_start=0,
        rate_hz=16000,
    )


def noise(*, count: int = 5, seed: int = 0) -> Clips:
    """Windows a quarter of their length apart, of frames and of sound with a slow swell."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (count + FRAMES - 1, SIDE_PX, SIDE_PX, 3)).astype(np.float32)
    frames += rng.uniform(-0.4, 0.4, frames.shape).astype(np.float32)  # as a tensor's resizing leaves them
    frames.flags.writeable = False  # as out of memory that processes share
    index_SP = (np.arange(count)[:, None] + np.arange(FRAMES)).astype(np.int32)
    size = 16000 + 4000 * (count - 1)
    samples = rng.standard_normal(size) * np.linspace(0.1, 0.3, size) + np.linspace(-0.2, 0.2, size)
    return clips_of(samples, index_SP, frames=frames)


def towers(weights: dict[str, Path]) -> tuple[VideoTower, OnePeace]:
    """The networks alone, as tests/pipeline/networks checks them."""
    state = completed(torch.load(weights["one_peace_k400"])["state_dict"])
    video = VideoTower(one_peace_video.Config.of(state))
    video.load_state_dict(state)
    own = branch(torch.load(weights["one_peace"])["model"], "audio")
    sound = OnePeace(Config.of(own, "audio"))
    sound.load_state_dict(own)
    return video.eval(), sound.eval()


def see(video: VideoTower, frames_THWC: NDArray[Any]) -> NDArray[Any]:
    mean, deviation = np.array([122.771, 116.746, 104.094]), np.array([68.5, 66.632, 70.323])
    x = ((np.rint(frames_THWC) - mean) / deviation).astype(np.float32).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        return np.asarray(video(torch.from_numpy(x)[None]).numpy()[0])


def test_grid_counts_as_unav_does() -> None:
    grid = find_recipe("onepeace-unav").grid
    for duration_s in (Fraction(1, 2), Fraction(1), Fraction("1.2499"), Fraction("10.01"), Fraction("59.97"), 60):
        assert grid.grid(Fraction(duration_s)).count == max(1, int((16 * duration_s - 16) // 4) + 1)


def test_sound_input_equals_the_published(shared: Path) -> None:
    arrays, meta = parity.prepared(shared, "prep_onepeace_audio")
    for row, source in enumerate(meta["sources"]):
        samples, rate_hz = soundfile.read(shared / "data" / source, dtype="float32", always_2d=True)
        mono = np.ascontiguousarray(samples.mean(axis=1))
        made = one_peace.audio_input(mono if rate_hz == 16000 else resample(mono, rate_hz, 16000, "soxr_hq"))
        padded = np.pad(made, (0, meta["shape"][1] - made.size))
        np.testing.assert_allclose(padded[:4000], arrays["audio_head"][row], atol=1e-4)
        np.testing.assert_allclose(padded[::37], arrays["audio_probe"][row], atol=1e-4)
        assert audio_frames(made.size) + 1 == (~arrays["padding_mask"][row]).sum()
    samples, _ = soundfile.read(shared / "data" / meta["sources"][0], dtype="float32")
    short = one_peace.audio_input(samples[30000:36001])
    assert short.shape == (16000,)
    np.testing.assert_allclose(short[::37], arrays["short_probe"], atol=1e-5)
    assert audio_frames(16000) + 1 == arrays["short_mask_len"]


def test_long_sound_is_cut_after_the_mean_is_taken() -> None:
    samples = np.concatenate([np.zeros(15 * 16000), np.ones(16000)]).astype(np.float32)
    made = one_peace.audio_input(samples)
    assert made.shape == (240000,)
    np.testing.assert_allclose(made, -(1 / 16) / np.sqrt(15 / 256 + 1e-5), rtol=1e-5)


@pytest.mark.parametrize("name", ["dog_image", "car_image", "cat_1"])
def test_pictures_equal_the_published(shared: Path, name: str) -> None:
    arrays, meta = parity.prepared(shared, "prep_images")
    picture = np.asarray(Image.open(shared / "data" / meta["sources"][name]).convert("RGB"))
    squash = VideoSampling(frames_per_segment=1, height_px=256, width_px=256, fit="stretch")
    np.testing.assert_array_equal(resize(picture, Geometry.of(squash)), arrays[f"onepeace256_{name}_u8"])
    sampling = find_recipe("onepeace-unav").video
    assert sampling is not None
    made = centre(resize(picture, Geometry.of(sampling))[None], 256)
    # OpenCV counts in steps of 1/2048: one level off here and there.
    assert np.abs(np.rint(made).reshape(-1)[::97] - arrays[f"k400_{name}_u8_probe"]).max() <= 1
    assert np.abs(np.rint(made).reshape(-1)[::97] - arrays[f"k400_{name}_u8_probe"]).mean() <= 0.15
    probe = one_peace.normalised(torch.from_numpy(np.ascontiguousarray(made))).numpy().reshape(-1)[::997]
    assert np.abs(probe - arrays[f"k400_{name}_probe"]).max() <= 1 / 66


def test_frames_of_unlike_sizes_are_cut_in_the_middle(weights: dict[str, Path]) -> None:
    clips, rng = noise(), np.random.default_rng(3)
    shape = (len(clips.frames_FHWC), SIDE_PX, SIDE_PX + 7, 3)
    wide = rng.uniform(0, 255, shape).astype(np.float32)
    wide[:, :, 3 : 3 + SIDE_PX] = clips.frames_FHWC
    pictures = replace(clips_of(np.zeros(0), clips.frame_index_SP, frames=clips.frames_FHWC), rate_hz=0)
    encoder = load_encoder(replace(small_recipe(), audio=None), weights)
    narrow, cut = encoder.encode([pictures, replace(pictures, frames_FHWC=wide)])
    assert narrow.visual is not None
    assert cut.visual is not None
    np.testing.assert_allclose(cut.visual.values, narrow.visual.values, **CLOSE)


def test_windows_equal_one_at_a_time(weights: dict[str, Path]) -> None:
    clips, other = noise(), noise(count=2, seed=1)
    made, beside = load_encoder(small_recipe(), weights).encode([clips, other])
    video, sound = towers(weights)
    assert made.visual is not None
    assert made.audio is not None
    assert made.visual.valid.all()
    assert made.audio.valid.all()
    for row in range(5):
        np.testing.assert_allclose(made.visual.values[row], see(video, clips.frames_FHWC[row : row + 4]), **CLOSE)
        own = clips.samples_N[4000 * row : 4000 * row + 16000]
        with torch.inference_mode():
            want = sound(torch.from_numpy((own - own.mean()) / np.sqrt(own.var() + 1e-5))[None])
        np.testing.assert_allclose(made.audio.values[row], want.numpy()[0], **CLOSE)
        assert abs(float(np.linalg.norm(made.audio.values[row])) - 1) < 1e-5
    # Windows differ, and so by more than rounding.
    assert np.abs(np.diff(made.visual.values, axis=0)).max(axis=1).min() > 1e-3
    assert np.abs(np.diff(made.audio.values, axis=0)).max(axis=1).min() > 1e-4
    (alone,) = load_encoder(small_recipe(), weights).encode([other])
    assert beside.visual is not None
    assert alone.visual is not None
    np.testing.assert_allclose(beside.visual.values, alone.visual.values, **CLOSE)


def test_shared_frames_and_windows_are_encoded_once(weights: dict[str, Path]) -> None:
    clips = noise(count=6)
    index_SP = clips.frame_index_SP.copy()
    index_SP[4] = index_SP[1]  # the very same window again
    index_SP[0] = [-1, -1, 2, 2]  # begins before the first picture, which is frame 2 here
    index_SP[5] = -1
    none = np.zeros(0)
    clips = replace(clips_of(none, index_SP, frames=clips.frames_FHWC), rate_hz=0)
    encoder = load_encoder(replace(small_recipe(), audio=None), weights)
    net: Any = encoder.towers
    frames, windows = [], []
    net.video.get_submodule("backbone.image_adapter").register_forward_hook(lambda m, x, y: frames.append(len(y)))
    net.video.get_submodule("backbone.encoder.layers.0").register_forward_hook(lambda m, x, y: windows.append(len(y)))
    assert net.video.config.classes is None  # the file's classifier is left out
    (made,) = encoder.encode([clips])
    # Frames 1 .. 6 and windows 0 .. 3.
    assert (sum(frames), sum(windows)) == (6, 4)
    assert made.visual is not None
    assert made.visual.valid.tolist() == [True] * 5 + [False]
    np.testing.assert_array_equal(made.visual.values[4], made.visual.values[1])
    video, _ = towers(weights)
    np.testing.assert_allclose(made.visual.values[0], see(video, clips.frames_FHWC[[2, 2, 2, 2]]), **CLOSE)
    np.testing.assert_allclose(made.visual.values[3], see(video, clips.frames_FHWC[3:7]), **CLOSE)


def test_sound_before_and_after_the_projection(weights: dict[str, Path]) -> None:
    made = {}
    for kind, width in (("unit", 12), ("projected", 12), ("class_token", 32)):
        recipe = replace(small_recipe(**{"settings.audio_feature": kind}), video=None)
        encoder = load_encoder(recipe, weights)
        assert encoder.audio_shape == (width,)
        (features,) = encoder.encode([replace(noise(), frame_index_SP=np.zeros((5, 0), np.int32))])
        assert features.audio is not None
        made[kind] = features.audio.values
    _, sound = towers(weights)
    with torch.inference_mode():
        projected = sound.project(torch.from_numpy(made["class_token"])).numpy()
    np.testing.assert_allclose(made["projected"], projected, **CLOSE)
    lengths = np.linalg.norm(made["projected"], axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 1e-2
    np.testing.assert_allclose(made["unit"], made["projected"] / lengths, **CLOSE)


def test_sound_that_is_short_is_treated_as_a_short_file(weights: dict[str, Path]) -> None:
    clips = noise(count=9)
    real = np.ones(clips.samples_N.size, np.bool_)
    real[:9000] = False  # begins late
    real[40000:] = False
    clips = replace(clips, samples_N=np.where(real, clips.samples_N, 0).astype(np.float32), sample_valid_N=real)
    recipe = replace(small_recipe(), video=None)
    (made,) = load_encoder(recipe, weights).encode([replace(clips, frame_index_SP=np.zeros((9, 0), np.int32))])
    assert made.audio is not None
    assert made.audio.valid.all()
    _, sound = towers(weights)
    for row, low, high in ((0, 9000, 16000), (1, 9000, 20000), (8, 32000, 40000)):
        own = clips.samples_N[low:high]
        with torch.inference_mode():
            want = sound(torch.from_numpy(one_peace.audio_input(own))[None]).numpy()[0]
        np.testing.assert_allclose(made.audio.values[row], want, **CLOSE)


def test_silent_and_blind_segments_are_nan(weights: dict[str, Path]) -> None:
    clips = noise()
    blind = clips_of(clips.samples_N, np.full((5, FRAMES), -1, np.int32))
    mute = replace(clips, samples_N=np.zeros(0, np.float32), sample_valid_N=np.zeros(0, np.bool_))
    without_picture, without_sound = load_encoder(small_recipe(), weights).encode([blind, mute])
    for made, silent in ((without_picture, "visual"), (without_sound, "audio")):
        for name, modal in made.modalities():
            assert modal.valid.tolist() == [name != silent] * 5


def test_text_features_equal_the_published(shared: Path, tmp_path: Path) -> None:
    case = parity.load(shared, "onepeace_2layer_text")
    torch.save({"args": None, "model": case.state}, tmp_path / "one-peace.pt")
    words = shared / "data/vocab/one_peace"
    weights = {
        "one_peace": tmp_path / "one-peace.pt",
        "bpe_encoder": words / "encoder.json",
        "bpe_merges": words / "vocab.bpe",
        "bpe_dictionary": words / "dict.txt",
    }
    recipe = find_recipe("onepeace-unav").changed({"settings.size": "from-weights"})
    made = encode_labels(case.meta["texts"], recipe, weights)
    parity.check(shared, case, made)
    with pytest.raises(ValueError, match=r"text branch: needs the published sizes .*layers=40.*size=from-weights"):
        encode_labels(case.meta["texts"], find_recipe("onepeace-unav"), weights)


def test_small_files_are_refused_unless_asked_for(weights: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"video tower: needs the published sizes .*layers=40.*size=from-weights"):
        load_encoder(find_recipe("onepeace-unav"), weights)
    with pytest.raises(ValueError, match=r"windows are of 4 frames.* takes 16; --set video.frames_per_segment=4"):
        load_encoder(small_recipe(**{"video.frames_per_segment": "16"}), weights)
    with pytest.raises(ValueError, match=r"takes 64 x 64 pixels.* gives 64 x 80; --set video.height_px=64"):
        load_encoder(small_recipe(**{"video.width_px": "80"}), weights)
    state = torch.load(weights["one_peace"])["model"]
    torch.save({"model": {key: t for key, t in state.items() if "audio_proj" not in key}}, tmp_path / "one-peace.pt")
    with pytest.raises(BadCheckpoint, match=r"audio branch: has no audio_proj; one-peace\.pt is the file"):
        load_encoder(small_recipe(), weights | {"one_peace": tmp_path / "one-peace.pt"})
    with pytest.raises(BadCheckpoint, match="not the state dict of ONE-PEACE's video tower"):
        load_encoder(small_recipe(), weights | {"one_peace_k400": weights["one_peace"]})
    state["encoder_wrapper.audio_adapter.rp_bucket"] = torch.full((1024, 1024), 66)
    torch.save({"model": state}, tmp_path / "one-peace.pt")
    with pytest.raises(BadCheckpoint, match=r"one-peace\.pt: rp_bucket holds 66 \.\. 66 for a table of 66 rows"):
        load_encoder(small_recipe(), weights | {"one_peace": tmp_path / "one-peace.pt"})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"settings.audio_feature": "mean"}, "audio_feature must be one of unit, projected, class_token, got 'mean'"),
        ({"settings.size": "small"}, "size must be one of published, from-weights"),
        ({"audio.rate_hz": "44100"}, r"needs audio\.rate_hz=16000, got 44100"),
        ({"audio.context_s": "1/2"}, "without context"),
        ({"grid.window_s": "16"}, "takes 15 s at most, got windows of 16 s"),
        ({"settings.size": "published"}, "takes 256 x 256 frames, got 64 x 64"),
        ({"video.clip_s": "1/2"}, "evenly spaced"),
        ({"video.frames_after": "1"}, "its window alone"),
        ({"video.fit": "three_crops", "video.height_px": "192"}, "takes the centre"),
    ],
)
def test_settings_that_cannot_be_raise(weights: dict[str, Path], changes: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load_encoder(small_recipe(**changes), weights)


def test_reduced_precision_stays_near(weights: dict[str, Path]) -> None:
    def features(encoder: Encoder) -> NDArray[np.float32]:
        (made,) = encoder.encode([noise()])
        assert made.visual is not None
        assert made.audio is not None
        return np.concatenate(
            [made.visual.values / np.linalg.norm(made.visual.values, axis=1, keepdims=True), made.audio.values], axis=1
        )

    whole = features(load_encoder(small_recipe(), weights))
    reduced = features(load_encoder(small_recipe(precision="bfloat16"), weights))
    assert (whole * reduced).sum(axis=1).min() > 2 * 0.999
    assert np.abs(whole - reduced).max() > 0


def test_extract_of_a_film_has_unavs_rows(shared: Path, tmp_path: Path) -> None:
    weights = write_small(tmp_path, frames=16)
    film = shared / "data/media/video/vas_dog_02677.mp4"  # 6.006 s
    words = ["extract", str(film), "--recipe", "onepeace-unav", "--as", "small"]
    words += ["--store", str(tmp_path / "store")]
    for change in ("settings.size=from-weights", "video.height_px=64", "video.width_px=64"):
        words += ["--set", change]
    assert cli.main([*words, "--weights", str(tmp_path), "--executor", "local", "--device", "cpu"]) == 0
    store = open_store(str(tmp_path / "store"))
    entry = store.recipes()["small"]
    assert entry.rows == (16 * Fraction("6.006") - 16) // 4 + 1 == 21
    assert (entry.visual_shape, entry.audio_shape) == ((32,), (12,))
    assert weights.keys() == {"one_peace_k400", "one_peace"}
    for modality in ("visual", "audio"):
        values = store.read("small", modality).values
        assert np.isfinite(values).all()
        assert np.abs(np.diff(values, axis=0)).max(axis=1).min() > 0  # every window is another
