"""VGG-19 and VGGish, the features that AVE was published with: maps of 7 x 7 positions x 512 channels, and 128 numbers.

A segment's map is the mean of its frames' last pooling maps. Its audio is the first 0.96 s example of its window, raw:
the ReLU embeddings without PCA and quantisation, as `audio_feature.h5` and UnAV-100 have them.

Frames go through torchvision's transform for its weights: Pillow's bilinear filter to a short side of 256, the centre
224, ImageNet's mean and deviation. (AVE's authors ran another framework's VGG-19; its resizing is not published.)

bfloat16 against float32 (`avel bench encoders`, random weights): cosine 0.99999 for frames (one segment of 16 frames),
least cosine 0.99997 for audio (27 segments).

Source: Simonyan and Zisserman, ICLR 2015 (torchvision's keys); Hershey et al., ICASSP 2017 (torchvggish's keys).
"""

from __future__ import annotations

from fractions import Fraction

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from pipeline.encoder import EncoderSettings, EncoderSpec
from pipeline.weights.asset import Asset

_VGGISH = "https://github.com/harritaylor/torchvggish/releases/download/v0.1"

SPEC = EncoderSpec(
    name="vgg19_vggish",
    visual_shape=(7, 7, 512),
    audio_shape=(128,),
    assets=(
        Asset(
            name="vgg19",
            filename="vgg19-dcbb9e9d.pth",
            url="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
            sha256_prefix="dcbb9e9d",
            licence="BSD-3-Clause",
            citation="Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015; weights of torchvision",
        ),
        Asset(
            name="vggish",
            filename="vggish-10086976.pth",
            url=f"{_VGGISH}/vggish-10086976.pth",
            sha256_prefix="10086976",
            licence="Apache-2.0",
            citation="Hershey et al., CNN Architectures for Large-Scale Audio Classification, ICASSP 2017",
        ),
        Asset(
            name="vggish_pca",
            filename="vggish_pca_params-970ea276.pth",
            url=f"{_VGGISH}/vggish_pca_params-970ea276.pth",
            sha256_prefix="970ea276",
            licence="Apache-2.0",
            citation="Hershey et al., CNN Architectures for Large-Scale Audio Classification, ICASSP 2017",
            setting="pca",
        ),
    ),
    licence="BSD-3-Clause and Apache-2.0",
    citation="Tian et al., Audio-Visual Event Localization in Unconstrained Videos, ECCV 2018",
    rate_hz=16000,
    batch_segments=32,
    device="gpu",
)

PRESETS = (
    Recipe(
        name="vgg19-vggish-1s",
        encoder="vgg19_vggish",
        grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
        video=VideoSampling(
            frames_per_segment=16, height_px=224, width_px=224, short_side_px=256, interpolation="bilinear"
        ),
        audio=AudioSampling(rate_hz=16000, resampler="kaiser_best"),
        settings={"pca": False},
    ),
)


class Settings(EncoderSettings):
    """Settings of the encoder.

    Attributes:
        pca: AudioSet's PCA and quantisation to whole numbers in 0 .. 255 (torchvggish's default); needs the asset
            `vggish_pca`. False: raw.
    """

    pca: bool = False


def check(recipe: Recipe) -> None:
    """Refuse a recipe that cannot be.

    Raises:
        ValueError: frames of another size, audio at another rate, windows too short for an example, or a setting of
            another type.
    """
    if recipe.video is not None and (recipe.video.height_px, recipe.video.width_px) != (224, 224):
        raise ValueError(
            f"recipe {recipe.name}: maps of 7 x 7 positions need 224 x 224 frames, got "
            f"{recipe.video.height_px} x {recipe.video.width_px}"
        )
    if recipe.audio is not None and recipe.grid.window_s < Fraction(15600, 16000):
        raise ValueError(
            f"recipe {recipe.name}: VGGish needs windows of 0.975 s, got {float(recipe.grid.window_s):g} s"
        )
