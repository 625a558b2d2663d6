"""ImageBind as an encoder: OV-AVEL's sound, published mel pictures, small checkpoints in the published layout."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from catalog.grid import SegmentGrid
from catalog.recipe import Recipe
from pipeline.clips import Clips
from pipeline.decode.frames import FrameTable, Geometry, resize
from pipeline.decode.probe import probe
from pipeline.decode.resample import sinc_hann
from pipeline.decode.windows import decode
from pipeline.encode import load_encoder
from pipeline.encode_labels import encode_labels
from pipeline.encoders.imagebind import encoder as imagebind
from pipeline.encoders.imagebind import fbank
from pipeline.networks.imagebind import Config, Tower
from pipeline.networks.inference import normalised
from pipeline.preprocess import spectrogram
from pipeline.recipes import find_recipe
from tests.pipeline import parity


@pytest.fixture(scope="module")
def tiny(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The goldens' two blocks a trunk, three modalities and a foreign one, in one file."""
    state: dict[str, torch.Tensor] = {"modality_trunks.depth.blocks.0.norm_1.weight": torch.ones(3)}
    for kind in ("vision", "audio", "text"):
        state |= parity.load(shared, f"imagebind_tiny_{kind}").state
    path = tmp_path_factory.mktemp("tiny") / "tiny.pth"
    torch.save(state, path)
    return path


def tiny_recipe(**more: str) -> Recipe:
    return find_recipe("imagebind-1s").changed({"settings.size": "from-weights"} | more)


def clips_recipe(**more: str) -> Recipe:
    return find_recipe("imagebind-10s").changed({"settings.size": "from-weights"} | more)


def clips_of(
    samples: np.ndarray, *, seconds: int, frames: np.ndarray | None = None, window_s: Fraction = Fraction(1)
) -> Clips:
    count = 0 if frames is None else len(frames)
    return Clips(
        video_id="v",
        grid=SegmentGrid(window_s=window_s, hop_s=window_s, count=seconds),
        first=0,
        frames_FHWC=np.zeros((0, 224, 224, 3), np.uint8) if frames is None else frames,
        frame_index_SP=np.array([[i if i < count else -1] for i in range(seconds)], np.int32),
        samples_N=samples.astype(np.float32),
        sample_valid_N=np.ones(samples.size, np.bool_),
        samples_start=0,
        rate_hz=16000,
    )


def sound(shared: Path, source: str) -> np.ndarray:
    """The first channel at 16 kHz."""
    samples, rate_hz = soundfile.read(shared / "data" / source, dtype="float32", always_2d=True)
    return sinc_hann(np.ascontiguousarray(samples[:, 0]), rate_hz, 16000)


def test_ovavel_sound_equals_the_published(shared: Path) -> None:
    arrays, meta = parity.prepared(shared, "prep_ovavel_audio")
    samples = np.zeros(160000, np.float32)
    heard = sound(shared, meta["source"])
    samples[: heard.size] = heard
    kind = str(tiny_recipe().settings["audio_clip"])
    made = fbank.mel_inputs(*spectrogram.windows(clips_of(samples, seconds=10)), kind)
    off = np.abs(made[arrays["segments"], 0] - arrays["mel"])
    assert off.max() <= 2e-2
    assert off.mean() <= 2e-4


@pytest.mark.parametrize("name", ["dog_audio", "cat_3-95694-A-5"])
@pytest.mark.parametrize("window_s", [Fraction(10), Fraction("2.5")])
def test_three_clips_of_a_segment_are_those_of_a_file(shared: Path, name: str, window_s: Fraction) -> None:
    arrays, meta = parity.prepared(shared, "prep_imagebind_audio")
    samples = sound(shared, meta["sources"][name])
    if window_s == 10:  # the file ends before the window, which is zeros from there
        clips = clips_of(np.pad(samples, (0, 160000 - samples.size)), seconds=1, window_s=window_s)
        clips.sample_valid_N[samples.size :] = False
        want = arrays[f"mel_{name}"]
    else:
        clips = clips_of(samples, seconds=1, window_s=window_s)
        want = fbank.clip_mels(samples[:40000])[:, None]
    (made,) = fbank.mel_inputs(*spectrogram.windows(clips), "three")
    off = np.abs(made - want)
    assert off.max() <= 1e-2
    assert off.mean() <= 1e-5


def test_sound_of_three_clips_is_the_mean_of_theirs(shared: Path, tiny: Path) -> None:
    arrays, meta = parity.prepared(shared, "prep_imagebind_audio")
    samples = sound(shared, meta["sources"]["cat_3-95694-A-5"])
    recipe = tiny_recipe(**{"settings.audio_clip": "three"})
    twice = clips_of(np.tile(samples, 2), seconds=2, window_s=Fraction(5))
    (made,) = load_encoder(recipe, {"imagebind": tiny}).encode([twice])
    tower = imagebind._tower(parity.load(shared, "imagebind_tiny_audio").state, "audio", recipe, "golden", "cpu")
    with torch.inference_mode():
        one_by_one = [tower(torch.from_numpy(mel[None])).numpy()[0] for mel in arrays["mel_cat_3-95694-A-5"]]
    want = sum(one_by_one) / 3
    assert made.audio is not None
    # Not made as long again as they are.
    assert np.linalg.norm(want) < 0.98 * np.linalg.norm(one_by_one[0])
    np.testing.assert_allclose(made.audio.values, np.stack([want, want]), atol=2e-3)


def test_encoder_gives_the_towers_features(shared: Path, tiny: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    clips = clips_of(rng.standard_normal(32000) * 0.1, seconds=2, frames=frames)
    recipe = tiny_recipe()
    (made,) = load_encoder(recipe, {"imagebind": tiny}).encode([clips])
    assert made.visual is not None
    assert made.audio is not None
    np.testing.assert_allclose(np.linalg.norm(made.visual.values, axis=1), 1, rtol=1e-5)
    scale = parity.load(shared, "imagebind_tiny_audio").state["modality_postprocessors.audio.1.log_logit_scale"]
    np.testing.assert_allclose(np.linalg.norm(made.audio.values, axis=1), min(float(scale.exp()), 100), rtol=1e-4)
    tower = imagebind._tower(parity.load(shared, "imagebind_tiny_vision").state, "vision", recipe, "golden", "cpu")
    with torch.inference_mode():
        want = tower(normalised(torch.from_numpy(frames), imagebind.MEAN, imagebind.DEVIATION))
    np.testing.assert_allclose(made.visual.values, want.numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_three_crops_equal_the_published(shared: Path, shape: str) -> None:
    arrays, meta = parity.prepared(shared, "prep_imagebind_video")
    video = np.clip(parity.seeded_input(shared, meta), 0, 1)  # (C, F, H, W)
    frames_FHWC = video.transpose(1, 2, 3, 0) if shape == "wide" else video.transpose(1, 3, 2, 0)
    sampling = clips_recipe().video
    assert sampling is not None
    # Floats here, since the golden's input is; the transform is the same for bytes.
    crops = np.stack([resize(255 * frame, Geometry.of(sampling)) for frame in frames_FHWC])
    (made,) = imagebind.views(crops, np.array([[0, 1]], np.int32))
    for number, view in enumerate(made):
        check_sampled(view, arrays[f"{shape}_crop{number}"])


def test_fifteen_views_of_a_file_equal_the_published(shared: Path) -> None:
    arrays, meta = parity.prepared(shared, "prep_imagebind_video")
    path = str(shared / "data" / meta["mp4"]["source"])
    # The file lasts 18.09 s: its clips are spread to its end, not to the window's.
    recipe = clips_recipe(**{"grid.window_s": "20", "grid.hop_s": "20"})
    recipe = dataclasses.replace(recipe, audio=None)
    info = probe(path)
    parts = [part for part in decode(path, info, [recipe], video_id="v", window_bytes=1) if isinstance(part, tuple)]
    ((_, clips),) = parts
    assert info.video is not None
    assert recipe.video is not None
    table = FrameTable(pts_F=info.video.pts_F, time_base=info.video.time_base, t0_s=info.t0_s)
    numbers = np.array(table.of_segment(clips.grid, 0, recipe.video)).reshape(-1, 2)
    np.testing.assert_array_equal(numbers, arrays["mp4_frame_idx"])
    made = imagebind.views(clips.frames_FHWC, clips.frame_index_SP.reshape(-1, 2))
    assert list(made.flatten(0, 1)[None].shape) == meta["mp4"]["shape"]
    check_sampled(made, arrays["mp4_probe"], step=4999)


def check_sampled(made: torch.Tensor, want: np.ndarray, *, step: int = 37) -> None:
    off = np.abs(made.numpy().ravel()[::step] - want)
    # In deviations; torch places neighbours in float32: up to 6e-5 on noise, 2e-5 on a film.
    assert off.max() <= 2e-4
    assert off.mean() <= 2e-5


def test_pictures_are_the_mean_over_clips_and_crops(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tower = Tower(Config(modality="vision", width=64, blocks=2, tokens=257, embedding=32)).eval()
    for parameter in tower.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    torch.save(tower.state_dict(), tmp_path / "small.pth")
    rng = np.random.default_rng(0)
    # Coarse patches, so that the clips' features differ well.
    frames = rng.uniform(0, 255, (7, 12, 4, 3)).astype(np.float32).repeat(56, axis=1).repeat(56, axis=2)
    frames.flags.writeable = False  # as out of memory that processes share
    index_SP = np.array(
        [
            [0, 1, 1, 2, 1, 2, 3, 4, 1, 2],
            [5, 5, 5, 5, 5, 5, 5, 5, 5, 5],
            [-1, -1, -1, 1, 1, 2, 2, 3, 2, 6],  # begins before the first picture
            [-1, -1, -1, -1, -1, -1, -1, -1, -1, -1],
        ],
        np.int32,
    )
    recipe = dataclasses.replace(clips_recipe(), audio=None)
    clips = dataclasses.replace(
        clips_of(np.zeros(0), seconds=4, frames=frames, window_s=Fraction(10)), frame_index_SP=index_SP
    )
    (made,) = load_encoder(recipe, {"imagebind": tmp_path / "small.pth"}).encode([clips])
    mean, deviation = np.array(imagebind.MEAN), np.array(imagebind.DEVIATION)

    def clip_feature(first: int, last: int) -> np.ndarray:
        features = []
        for crop in range(3):
            shown = [(frames[n, 224 * crop : 224 * (crop + 1)] / 255 - mean) / deviation for n in (first, last)]
            clip = torch.from_numpy(np.stack(shown).transpose(3, 0, 1, 2).astype(np.float32))
            with torch.inference_mode():
                features.append(tower(clip[None]).numpy()[0])
        return np.asarray(np.mean(features, axis=0))

    whole = np.mean([clip_feature(*pair) for pair in ((0, 1), (1, 2), (1, 2), (3, 4), (1, 2))], axis=0)
    late = np.mean([clip_feature(*pair) for pair in ((1, 1), (1, 2), (2, 3), (2, 6))], axis=0)
    assert made.visual is not None
    assert made.visual.valid.tolist() == [True, True, True, False]
    assert np.linalg.norm(whole) < 0.999  # not made a unit vector again
    np.testing.assert_allclose(made.visual.values[:3], np.stack([whole, clip_feature(5, 5), late]), atol=1e-5)
    assert np.abs(clip_feature(0, 1) - clip_feature(1, 0)).max() > 1e-3  # the tower tells the frames apart


def test_text_features_equal_the_published(shared: Path, tiny: Path) -> None:
    case = parity.load(shared, "imagebind_tiny_text")
    weights = {"imagebind": tiny, "bpe": shared / "data/vocab/bpe_simple_vocab_16e6.txt.gz"}
    parity.check(shared, case, encode_labels(case.meta["texts"], tiny_recipe(), weights))


def test_silent_and_blind_segments_are_nan(tiny: Path) -> None:
    clips = clips_of(np.zeros(16000), seconds=2)
    (made,) = load_encoder(tiny_recipe(), {"imagebind": tiny}).encode([clips])
    assert made.visual is not None
    assert made.audio is not None
    assert made.visual.valid.tolist() == [False, False]
    assert made.audio.valid.tolist() == [True, False]


def test_two_blocks_are_refused_unless_asked_for(tiny: Path) -> None:
    with pytest.raises(ValueError, match=r"vision tower: needs the published sizes .*blocks=32.*size=from-weights"):
        load_encoder(find_recipe("imagebind-1s"), {"imagebind": tiny})


def test_other_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"visual.conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="not the state dict of an ImageBind"):
        load_encoder(tiny_recipe(), {"imagebind": tmp_path / "other.pth"})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"settings.audio_clip": "once"}, "audio_clip must be one of repeat, context, three"),
        ({"audio.rate_hz": "44100"}, r"needs audio\.rate_hz=16000"),
        ({"video.height_px": "112", "video.width_px": "112"}, "takes 224 x 224"),
        ({"video.height_px": "672"}, "takes 224 x 224"),
        ({"video.height_px": "672", "video.fit": "three_crops"}, "three_crops and video.clip_s go together"),
        ({"video.frames_per_segment": "10", "video.clip_s": "2"}, "three_crops and video.clip_s go together"),
    ],
)
def test_settings_that_cannot_be_raise(tiny: Path, changes: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load_encoder(tiny_recipe(**changes), {"imagebind": tiny})


def test_reduced_precision_stays_near() -> None:
    torch.manual_seed(0)
    tower = Tower(Config(modality="audio", width=96, blocks=2, tokens=229, embedding=32)).eval()
    x = torch.randn(2, 1, 128, 204)
    with torch.inference_mode():
        whole = tower(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            reduced = tower(x)
    assert torch.cosine_similarity(whole, reduced.float()).min() > 0.999
