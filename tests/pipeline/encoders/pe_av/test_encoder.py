"""PE-AV from a tiny random checkpoint folder, against the library's whole model called with one segment at a time."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from catalog.datasets import folder as folder_dataset
from catalog.grid import SegmentGrid
from catalog.store.reader import open_store
from pipeline.clips import Clips
from pipeline.encode import encode_clips, load_encoder
from pipeline.encoders.pe_av import encoder as pe_av
from pipeline.extract import ExtractOptions, extract
from pipeline.networks.checkpoint import BadCheckpoint
from pipeline.recipes import find_recipe
from tests.pipeline.encoders.small_pe_av import DEVIATION, LOOKS, MEAN, small_model, write_small

RECIPE = find_recipe("pe-av-1s").changed(
    {"video.frames_per_segment": "3", "video.height_px": "56", "video.width_px": "56"}
)
# Sums of some thousand float32 products, in another order.
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 5e-6}


@pytest.fixture(scope="module")
def model() -> Any:
    return small_model()


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(model, tmp_path_factory.mktemp("pe") / "av")


def noise(*, seconds: float = 4.0) -> Clips:
    """Four segments: whole; the first slot before the first picture; nothing at all; sound that ends early."""
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal(round(seconds * 48000))).astype(np.float32)
    real = np.ones(samples.size, np.bool_)
    real[2 * 48000 : 3 * 48000] = False
    real[3 * 48000 + 20000 :] = False
    return Clips(
        video_id="v",
        grid=SegmentGrid(window_s=Fraction(1), hop_s=Fraction(1), count=4),
        first=0,
        frames_FHWC=rng.integers(0, 256, (5, 56, 56, 3), dtype=np.uint8),
        frame_index_SP=np.array([[0, 1, 2], [-1, 1, 4], [-1, -1, -1], [2, 3, 3]], np.int32),
        samples_N=np.where(real, samples, 0).astype(np.float32),
        sample_valid_N=real,
        samples_start=0,
        rate_hz=48000,
    )


def directly(
    model: Any, frames_FHWC: NDArray[Any], samples_N: NDArray[np.float32], text: tuple[int, ...] = (1, 4, 2)
) -> Any:
    """The library's whole model on one clip: its own feature extractor, its masks, its fusion of both."""
    listen = transformers.PeAudioFeatureExtractor()
    pixels = (frames_FHWC / 255 - np.array(MEAN)) / np.array(DEVIATION)
    with torch.inference_mode():
        return model(
            input_ids=torch.tensor([text]),
            pixel_values_videos=torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float()[None],
            **listen([samples_N], sampling_rate=48000, return_tensors="pt"),
        )


def test_features_equal_the_librarys_of_each_segment_alone(model: Any, folder: Path) -> None:
    clips = noise()
    encoder = load_encoder(RECIPE, {"pe_av": folder})
    assert (encoder.visual_shape, encoder.audio_shape) == ((24,), (24,))
    (made,) = encoder.encode([clips])
    assert made.visual is not None
    assert made.audio is not None
    assert made.visual.valid.tolist() == made.audio.valid.tolist() == [True, True, False, True]
    assert np.isnan(made.visual.values[2]).all()
    assert np.isnan(made.audio.values[2]).all()
    for row, (shown, length) in {0: ([0, 1, 2], 48000), 1: ([1, 4], 48000), 3: ([2, 3, 3], 20000)}.items():
        samples = clips.samples_N[row * 48000 : row * 48000 + length]
        want = directly(model, clips.frames_FHWC[shown], samples)
        np.testing.assert_allclose(made.visual.values[row], want.video_embeds[0].numpy(), **CLOSE)
        np.testing.assert_allclose(made.audio.values[row], want.audio_embeds[0].numpy(), **CLOSE)


def test_features_do_not_depend_on_their_batch(folder: Path) -> None:
    encoder = load_encoder(RECIPE, {"pe_av": folder})
    one, other = noise(), replace(noise(), video_id="w", frames_FHWC=255 - noise().frames_FHWC)
    (alone,) = encode_clips([one], encoder)
    _, together = encode_clips([other, one], encoder)
    for first, second in ((alone.visual, together.visual), (alone.audio, together.audio)):
        assert first is not None
        assert second is not None
        np.testing.assert_allclose(
            first.values, second.values, rtol=1e-5, atol=1e-5
        )  # rounding by the size of the product


def test_a_tower_left_out_is_not_read(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "model.safetensors")
    deaf = shutil.copytree(folder, tmp_path / "deaf")
    save_file({key: value for key, value in state.items() if "audio_encoder" not in key}, deaf / "model.safetensors")
    made = load_encoder(replace(RECIPE, audio=None), {"pe_av": deaf}).encode(
        [replace(noise(), samples_N=np.empty(0, np.float32), sample_valid_N=np.empty(0, np.bool_), rate_hz=0)]
    )[0]
    assert made.audio is None
    assert made.visual is not None
    with pytest.raises(BadCheckpoint, match=r"hold no audio_model\.audio_encoder\.\*"):
        load_encoder(RECIPE, {"pe_av": deaf})


def test_tensors_in_several_files_under_the_other_tied_name_in_half_precision(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "model.safetensors")
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "model.safetensors").unlink()
    names = {
        "audio_model.audio_encoder.": "audio_video_encoder.embedder.audio_encoder.",
        "video_model.video_encoder.": "audio_video_encoder.embedder.video_encoder.",
    }
    for old, new in names.items():
        state = {key.replace(old, new): value for key, value in state.items()}
    keys = sorted(state)
    for number, part in enumerate((keys[::2], keys[1::2])):
        save_file({key: state[key].bfloat16() for key in part}, other / f"model-0000{number}-of-00002.safetensors")
    rounded = shutil.copytree(folder, tmp_path / "rounded")
    whole = load_file(folder / "model.safetensors")
    save_file({key: value.bfloat16().float() for key, value in whole.items()}, rounded / "model.safetensors")
    got, want = (load_encoder(RECIPE, {"pe_av": place}).encode([noise()])[0] for place in (other, rounded))
    # Where tensors begin in a file changes the order in which sums are vectorised.
    for first, second in ((got.visual, want.visual), (got.audio, want.audio)):
        assert first is not None
        assert second is not None
        np.testing.assert_allclose(first.values, second.values, rtol=1e-4, atol=1e-6)


def test_text_features_are_both_heads_of_the_librarys(model: Any, folder: Path) -> None:
    net = pe_av.load_text({"pe_av": folder}, "cpu", RECIPE)
    got = net(["dog barks loudly", "rain", "cat"])
    assert got.shape == (3, 48)
    frames, samples = noise().frames_FHWC[:1], noise().samples_N[:1920]
    for row, ids in enumerate([(1, 4, 5, 6, 2), (1, 7, 2), (1, 3, 2)]):
        want = directly(model, frames, samples, ids)
        np.testing.assert_allclose(got[row, :24], want.text_video_embeds[0].numpy(), **CLOSE)
        np.testing.assert_allclose(got[row, 24:], want.text_audio_embeds[0].numpy(), **CLOSE)


def decoded(path: Path) -> tuple[list[Image.Image], NDArray[np.float32]]:
    """All pictures, and the first second of sound as mono, where its time stamps put it."""
    with av.open(str(path)) as container:
        pictures = [Image.fromarray(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    samples = np.zeros(10 * 48000, np.float32)
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            assert frame.pts is not None
            samples[frame.pts : frame.pts + frame.samples] = frame.to_ndarray().mean(axis=0)
    return pictures, samples[:48000]


# 48 kHz sound, which is not resampled (the second has a gap in it), and 25 and 30.02 frames a second: their numbers are
# of those shown at 1/6, 1/2 and 5/6 s.
REAL = {"clip_video_encode_vid1.mp4": (4, 12, 20), "realshort.mp4": (5, 15, 25)}


def test_extraction_of_real_media_equals_the_library_on_what_they_hold(
    shared: Path, model: Any, folder: Path, tmp_path: Path
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for name in REAL:
        shutil.copy(shared / "data/media/video" / name, media / name)
    extract(
        folder_dataset.load(media).videos,
        [RECIPE],
        tmp_path / "store",
        ExtractOptions(workers=1, weights={RECIPE.name: {"pe_av": folder}}),
    )
    store = open_store(str(tmp_path / "store"))
    for name, numbers in REAL.items():
        pictures, samples = decoded(media / name)
        shown = [np.asarray(pictures[number].resize((56, 56), Image.Resampling.BILINEAR)) for number in numbers]
        want = directly(model, np.stack(shown), samples[:48000])
        video_id = next(video_id for video_id in store.video_ids() if video_id.startswith(name.removesuffix(".mp4")))
        visual, audio = (store.read(RECIPE.name, kind, [video_id]).values[0] for kind in ("visual", "audio"))
        np.testing.assert_allclose(visual, want.video_embeds[0].numpy(), **CLOSE)
        np.testing.assert_allclose(audio, want.audio_embeds[0].numpy(), **CLOSE)


def changed(folder: Path, place: Path, name: str, **changes: object) -> Path:
    """A copy of the folder, with fields of a JSON file replaced."""
    shutil.copytree(folder, place)
    held = json.loads((place / name).read_text(encoding="utf-8"))
    (place / name).write_text(json.dumps(held | changes), encoding="utf-8")
    return place


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"video.height_px": "336", "video.width_px": "336"},
            r"has video\.height_px=336, .* takes 56; --set video\.hei",
        ),
        ({"video.fit": "crop"}, r"has video\.fit=crop, .* takes stretch"),
        ({"video.interpolation": "bicubic"}, r"has video\.interpolation=bicubic, .* takes bilinear"),
        ({"audio.rate_hz": "16000"}, r"audio of 16000 Hz, .* takes 48000 Hz; --set audio\.rate_hz=48000"),
    ],
)
def test_recipes_that_prepare_otherwise_are_refused(folder: Path, changes: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load_encoder(RECIPE.changed(changes), {"pe_av": folder})


def test_processor_of_sixteen_frames_wants_sixteen(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "video_preprocessor_config.json").unlink()
    # The library's newer form: all processors in one file.
    held = {"video_processor": LOOKS | {"do_sample_frames": True, "num_frames": 16}}
    held["feature_extractor"] = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    (other / "processor_config.json").write_text(json.dumps(held), encoding="utf-8")
    (other / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"has video\.frames_per_segment=3, .* takes 16"):
        load_encoder(RECIPE, {"pe_av": other})
    assert load_encoder(RECIPE.changed({"video.frames_per_segment": "16"}), {"pe_av": other}).visual_shape == (24,)
    (other / "processor_config.json").unlink()
    with pytest.raises(BadCheckpoint, match="no video processor in processor_config"):
        load_encoder(RECIPE, {"pe_av": other})


def test_folders_of_something_else_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="of model type 'pe_audio_video', got 'clip'"):
        load_encoder(RECIPE, {"pe_av": changed(folder, tmp_path / "clip", "config.json", model_type="clip")})
    # Of a video tower with other pictures than the processor makes.
    size = {"height": 70, "width": 70}
    other = changed(folder, tmp_path / "size", "video_preprocessor_config.json", size=size)
    with pytest.raises(BadCheckpoint, match=r"for frames of 56 px, the folder's processor makes 70 px"):
        load_encoder(RECIPE.changed({"video.height_px": "70", "video.width_px": "70"}), {"pe_av": other})
    other = changed(folder, tmp_path / "norm", "video_preprocessor_config.json", image_std=[0, 1, 1])
    with pytest.raises(BadCheckpoint, match="image_std needs three numbers above 0"):
        load_encoder(RECIPE, {"pe_av": other})
    other = changed(folder, tmp_path / "crop", "video_preprocessor_config.json", do_center_crop=True)
    with pytest.raises(BadCheckpoint, match="do_center_crop=True is not supported"):
        load_encoder(RECIPE, {"pe_av": other})
    held = json.loads((folder / "config.json").read_text(encoding="utf-8"))["audio_video_config"]
    held["audio_config"]["num_hidden_layers"] = 3
    other = changed(folder, tmp_path / "deep", "config.json", audio_video_config=held)
    with pytest.raises(
        BadCheckpoint, match=r"encoder of audio: not the checkpoint of this network; missing: layers\.2"
    ):
        load_encoder(RECIPE, {"pe_av": other})
    held["video_config"]["vision_config"]["architecture"] = "resnet50"
    other = changed(folder, tmp_path / "resnet", "config.json", audio_video_config=held)
    with pytest.raises(BadCheckpoint, match="image tower 'resnet50' is none of those known here"):
        load_encoder(RECIPE, {"pe_av": other})


def test_damaged_and_pickled_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    whole = (folder / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadCheckpoint, match="damaged or truncated safetensors file"):
        load_encoder(RECIPE, {"pe_av": other})
    (other / "model.safetensors").unlink()
    (other / "pytorch_model.bin").write_bytes(pickle.dumps({"text_model.x": 1}))
    with pytest.raises(BadCheckpoint, match="no safetensors file in it; pickled weights are not opened"):
        load_encoder(RECIPE, {"pe_av": other})
    with pytest.raises(BadCheckpoint, match="no safetensors file in it"):
        pe_av.load_text({"pe_av": other}, "cpu", RECIPE)
