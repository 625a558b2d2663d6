"""VGG-19 and VGGish, the features that AVE was published with: maps of 7 x 7 places x 512 channels, and 128 numbers.

A segment's map is the mean of its frames' last pooling maps. Its sound is the first 0.96 s example of its window, raw:
the ReLU embeddings without PCA and quantisation, as `audio_feature.h5` and UnAV-100 have them.

Settings:
    pca: true adds AudioSet's PCA and quantisation to whole numbers in 0 .. 255 (torchvggish's default); needs the
        asset `vggish_pca`. False (default): raw.

Pictures are torchvision's transform for its weights: Pillow's bilinear filter to a short side of 256, the centre 224,
ImageNet's mean and deviation. (AVE's authors ran another framework's VGG-19; which resizing they used is not told.)

bfloat16 against float32 (`avel bench encoders`, random weights): cosine 0.99999 for pictures (one segment of 16
frames), least cosine 0.99997 for sound (27 segments).

Source: Simonyan and Zisserman, ICLR 2015 (torchvision's keys); Hershey et al., ICASSP 2017 (torchvggish's keys).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.store.modal import Features, Modal
from pipeline.clips import Clips
from pipeline.encoder import EncoderSpec
from pipeline.weights.asset import Asset

if TYPE_CHECKING:
    from torch import Tensor

# ImageNet's, as torchvision states them.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH_FRAMES, BATCH_SOUNDS = 16, 32

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


@dataclass(frozen=True, kw_only=True)
class VggPair:
    """The networks that a recipe uses, and VGGish's PCA (vectors (128, 128), means (128,)) where it is wanted."""

    recipe: Recipe
    device: str
    maps: Any
    vggish: Any
    pca: tuple[Tensor, Tensor] | None


def check(recipe: Recipe) -> None:
    """Refuse settings that cannot be.

    Raises:
        ValueError: pictures of another size, sound at another rate, windows too short for an example, or `pca` that is
            neither true nor false.
    """
    if not isinstance(recipe.settings.get("pca", False), bool):
        raise ValueError(f"recipe {recipe.name}: settings.pca needs true or false, got {recipe.settings['pca']!r}")
    if recipe.video is not None and (recipe.video.height_px, recipe.video.width_px) != (224, 224):
        raise ValueError(
            f"recipe {recipe.name}: maps of 7 x 7 places need 224 x 224 pictures, got "
            f"{recipe.video.height_px} x {recipe.video.width_px}"
        )
    if recipe.audio is None:
        return
    if recipe.audio.rate_hz != 16000:
        raise ValueError(f"recipe {recipe.name}: VGGish hears 16000 Hz, got {recipe.audio.rate_hz}")
    if recipe.grid.window_s < Fraction(15600, 16000):
        raise ValueError(
            f"recipe {recipe.name}: VGGish needs windows of 0.975 s, got {float(recipe.grid.window_s):g} s"
        )


def load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> VggPair:
    """The networks that `recipe` asks for, frozen.

    Raises:
        BadCheckpoint: a file is damaged or of another network.
    """
    import torch

    from pipeline.networks.checkpoint import fill, read_state
    from pipeline.networks.inference import frozen
    from pipeline.networks.vgg19 import Vgg19Maps
    from pipeline.networks.vggish import Vggish

    maps = vggish = pca = None
    with torch.device("meta"):
        empty_maps, empty_vggish = Vgg19Maps(), Vggish()
    if recipe.video is not None:
        fill(empty_maps, read_state(weights["vgg19"]), where=f"{weights['vgg19']}, VGG-19", ignore=("classifier.",))
        maps = frozen(empty_maps, device, channels_last=True)
    if recipe.audio is not None:
        fill(empty_vggish, read_state(weights["vggish"]), where=f"{weights['vggish']}, VGGish", ignore=("pproc.",))
        vggish = frozen(empty_vggish, device)
        if recipe.settings.get("pca"):
            pca = _pca(weights["vggish_pca"])
    return VggPair(recipe=recipe, device=device, maps=maps, vggish=vggish, pca=pca)


def encode(net: VggPair, clips: Sequence[Clips]) -> list[Features]:
    """Features of each of `clips`: pictures together, sounds together."""
    seen: list[tuple[NDArray[np.float32] | None, NDArray[np.bool_]]]
    seen = [(None, np.zeros(item.count, np.bool_)) for item in clips]
    if net.maps is not None:
        from pipeline.networks.inference import encode_frames

        seen = list(
            encode_frames(
                clips,
                lambda frames: _forward(net, net.maps, normalised(frames)),
                shape=(7, 7, 512),
                device=net.device,
                batch_frames=BATCH_FRAMES,
            )
        )
    return [
        Features(visual=Modal.of(visual, visual_S), audio=Modal.of(heard, heard_S))
        for (visual, visual_S), (heard, heard_S) in zip(seen, _hear(net, clips), strict=True)
    ]


def normalised(frames_BHWC: Tensor) -> Tensor:
    """RGB in units of 1/255, (B, H, W, 3), to float32 (B, 3, H, W) with ImageNet's mean and deviation."""
    from pipeline.networks import inference

    return inference.normalised(frames_BHWC, MEAN, DEVIATION)


def _hear(net: VggPair, clips: Sequence[Clips]) -> list[tuple[NDArray[np.float32] | None, NDArray[np.bool_]]]:
    if net.vggish is None:
        return [(None, np.zeros(item.count, np.bool_)) for item in clips]
    from pipeline.networks.inference import encode_sounds
    from pipeline.networks.vggish import postprocess
    from pipeline.preprocess.vggish_log_mel import examples

    assert net.recipe.audio is not None

    def forward(logmel: Tensor) -> Tensor:
        made = _forward(net, net.vggish, logmel).float().cpu()
        return made if net.pca is None else postprocess(made, *net.pca)

    return list(
        encode_sounds(
            clips,
            lambda samples_SN, _: np.stack([examples(samples_N)[0] for samples_N in samples_SN]),
            forward,
            width=128,
            min_coverage=net.recipe.audio.min_coverage,
            device=net.device,
            batch_sounds=BATCH_SOUNDS,
        )
    )


def _forward(net: VggPair, network: Any, x: Tensor) -> Tensor:
    from pipeline.networks.inference import arithmetic

    with arithmetic(net.device, net.recipe.precision):
        made: Tensor = network(x)
    return made


def _pca(path: Path) -> tuple[Tensor, Tensor]:
    from pipeline.networks.checkpoint import BadCheckpoint, read_state

    state = {key.removeprefix("pproc."): tensor for key, tensor in read_state(path).items()}
    vectors, means = state.get("pca_eigen_vectors"), state.get("pca_means")
    if vectors is None or means is None or vectors.shape != (128, 128) or means.numel() != 128:
        told = ", ".join(f"{key} {tuple(tensor.shape)}" for key, tensor in state.items())
        raise BadCheckpoint(f"{path}: needs pca_eigen_vectors (128, 128) and pca_means (128), got {told[:200]}")
    if not all(bool(tensor.isfinite().all()) for tensor in (vectors, means)):
        raise BadCheckpoint(f"{path}: holds NaN or infinity; fetch or copy it again")
    return vectors.float(), means.float().flatten()
