"""VGG-19 and VGGish as an encoder, with seeded files in the published layouts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from catalog.grid import SegmentGrid
from pipeline.clips import Clips
from pipeline.encode import load_encoder
from pipeline.encoder import assets_of
from pipeline.encoders.vgg19_vggish import encoder as vgg19_vggish
from pipeline.networks.inference import normalised
from pipeline.networks.vgg19 import Vgg19Maps
from pipeline.networks.vggish import Vggish
from pipeline.preprocess.vggish_log_mel import examples
from pipeline.recipes import find_recipe

RECIPE = find_recipe("vgg19-vggish-1s").changed({"video.frames_per_segment": "2"})


@pytest.fixture(scope="module")
def nets() -> tuple[Vgg19Maps, Vggish]:
    torch.manual_seed(0)
    return Vgg19Maps().eval(), Vggish().eval()


@pytest.fixture(scope="module")
def weights(nets: tuple[Vgg19Maps, Vggish], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("vgg")
    # The published file has the classifier too.
    torch.save(nets[0].state_dict() | {"classifier.0.weight": torch.zeros(2)}, folder / "vgg19.pth")
    torch.save(nets[1].state_dict(), folder / "vggish.pth")
    return {"vgg19": folder / "vgg19.pth", "vggish": folder / "vggish.pth"}


def test_features_are_mean_maps_and_the_first_example(
    shared: Path, nets: tuple[Vgg19Maps, Vggish], weights: dict[str, Path]
) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    samples, _ = soundfile.read(shared / "data/media/audio/torchvggish_test.wav", dtype="float32")
    clips = Clips(
        video_id="v",
        grid=SegmentGrid(window_s=Fraction(1), hop_s=Fraction(1), count=3),
        first=0,
        frames_FHWC=frames,
        frame_index_SP=np.array([[0, 1], [1, 1], [-1, -1]], np.int32),
        samples_N=samples[:32000],
        sample_valid_N=np.ones(32000, np.bool_),
        samples_start=0,
        rate_hz=16000,
    )
    encoder = load_encoder(RECIPE, weights)
    assert (encoder.visual_shape, encoder.audio_shape) == ((7, 7, 512), (128,))
    (made,) = encoder.encode([clips])
    assert made.visual is not None
    assert made.audio is not None
    assert made.visual.valid.tolist() == [True, True, False]
    assert made.audio.valid.tolist() == [True, True, False]
    with torch.inference_mode():
        one, two = nets[0](normalised(torch.from_numpy(frames), vgg19_vggish.MEAN, vgg19_vggish.DEVIATION)).numpy()
        heard = nets[1](torch.from_numpy(examples(samples[16000:32000]))).numpy()[0]
    np.testing.assert_allclose(made.visual.values[:2], np.stack([(one + two) / 2, two]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(made.audio.values[1], heard, rtol=1e-4, atol=1e-6)


def test_sound_with_pca_is_the_published_post_processing(
    shared: Path, weights: dict[str, Path], tmp_path: Path
) -> None:
    # As published: two numpy arrays in a PyTorch file.
    with np.load(shared / "parity/encoders/vggish_pca_params.npz") as file:
        arrays = {name: file[name].astype(np.float64) for name in ("pca_eigen_vectors", "pca_means")}
    torch.save(arrays, tmp_path / "pca.pth")
    samples, _ = soundfile.read(shared / "data/media/audio/torchvggish_test.wav", dtype="float32")
    clips = Clips(
        video_id="v",
        grid=SegmentGrid(window_s=Fraction(1), hop_s=Fraction(1), count=2),
        first=0,
        frames_FHWC=np.zeros((0, 224, 224, 3), np.uint8),
        frame_index_SP=np.full((2, 0), -1, np.int32),
        samples_N=samples[:32000],
        sample_valid_N=np.ones(32000, np.bool_),
        samples_start=0,
        rate_hz=16000,
    )
    heard = {}
    for pca in ("false", "true"):
        recipe = RECIPE.changed({"settings.pca": pca})
        recipe = type(recipe)(
            name="deaf",
            encoder=recipe.encoder,
            grid=recipe.grid,
            video=None,
            audio=recipe.audio,
            settings=recipe.settings,
        )
        paths = {"vggish": weights["vggish"]} | ({"vggish_pca": tmp_path / "pca.pth"} if pca == "true" else {})
        assert {asset.name for asset in assets_of(recipe)} == {"vgg19", *paths}
        (made,) = load_encoder(recipe, paths).encode([clips])
        assert made.audio is not None
        heard[pca] = made.audio.values.astype(np.float64)
    turned = (heard["false"] - arrays["pca_means"]) @ arrays["pca_eigen_vectors"].T
    want = np.round((np.clip(turned, -2, 2) + 2) * 255 / 4)
    assert np.abs(heard["true"] - want).max() <= 1  # a step where the value lies on its edge
    assert (heard["true"] != want).mean() < 0.01
    with pytest.raises(ValueError, match="no weights 'vggish_pca' are wanted"):
        load_encoder(RECIPE, weights | {"vggish_pca": tmp_path / "pca.pth"})


def test_a_pca_file_of_something_else_is_refused(weights: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"needs pca_eigen_vectors \(128, 128\) and pca_means \(128\)"):
        load_encoder(RECIPE.changed({"settings.pca": "true"}), weights | {"vggish_pca": weights["vggish"]})


def test_a_recipe_without_pictures_needs_no_vgg19(weights: dict[str, Path]) -> None:
    recipe = type(RECIPE)(name="deaf", encoder="vgg19_vggish", grid=RECIPE.grid, video=None, audio=RECIPE.audio)
    assert load_encoder(recipe, {"vggish": weights["vggish"]}).visual_shape is None


def test_files_swapped_are_refused(weights: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"VGG-19: not the checkpoint of this network"):
        load_encoder(RECIPE, {"vgg19": weights["vggish"], "vggish": weights["vgg19"]})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"audio.rate_hz": "44100"}, r"needs audio\.rate_hz=16000"),
        ({"grid.window_s": "1/2", "grid.hop_s": "1/2"}, r"windows of 0\.975 s, got 0\.5 s"),
        ({"video.height_px": "64", "video.width_px": "64"}, "need 224 x 224"),
    ],
)
def test_recipes_that_cannot_be_raise(weights: dict[str, Path], changes: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load_encoder(RECIPE.changed(changes), weights)
