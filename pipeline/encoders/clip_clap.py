"""CLIP for pictures and CLAP for sound, from checkpoint folders of the transformers library: the pair that OV-AVEL
compares with. Any folders of the model types `clip` and `clap` do; widths come from them.

Features are the projected embeddings as `get_image_features` and `get_audio_features` give them, not normalised (CLAP's
own are unit vectors). A segment's picture feature is the mean over its frames. A window of sound is shorter than the
10 s that CLAP hears; it is repeated as the checkpoint's feature extractor says. The two spaces differ, so text features
are [CLIP's | CLAP's], one after the other: the first part goes with pictures, the second with sound.

bfloat16 against float32 (`avel bench encoders`, random weights of the published size): cosine 0.99998 for pictures (one
segment of 8 frames), least cosine 0.99995 for sound (32 segments).

Source: Radford et al., ICML 2021; Wu et al., ICASSP 2023.
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
from pipeline.encoder import EncoderSpec, Shapes
from pipeline.weights.asset import Asset

if TYPE_CHECKING:
    from torch import Tensor

BATCH_FRAMES, BATCH_SOUNDS = 32, 8

SPEC = EncoderSpec(
    name="clip_clap",
    visual_shape=(512,),
    audio_shape=(512,),
    text_width=1024,
    assets=(
        Asset(
            name="clip",
            filename="clip-vit-base-patch32",
            url="https://huggingface.co/openai/clip-vit-base-patch32",
            licence="MIT",
            citation="Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021",
            is_folder=True,
        ),
        Asset(
            name="clap",
            filename="clap-htsat-unfused",
            url="https://huggingface.co/laion/clap-htsat-unfused",
            licence="Apache-2.0",
            citation="Wu et al., Large-Scale Contrastive Language-Audio Pretraining, ICASSP 2023",
            is_folder=True,
        ),
    ),
    licence="MIT and Apache-2.0",
    citation="Radford et al., ICML 2021; Wu et al., ICASSP 2023",
    batch_segments=32,
    device="gpu",
)

PRESETS = (
    Recipe(
        name="clip-clap-1s",
        encoder="clip_clap",
        grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
        video=VideoSampling(frames_per_segment=8, height_px=224, width_px=224),
        audio=AudioSampling(rate_hz=48000, resampler="soxr_hq"),
    ),
)


@dataclass(frozen=True, kw_only=True)
class ClipClap:
    """The models that a recipe uses, and what they want done to pictures and sound."""

    recipe: Recipe
    device: str
    clip: Any
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    clap: Any
    listen: Any
    image_width: int
    audio_width: int


def shapes(recipe: Recipe, weights: Mapping[str, Path]) -> Shapes:
    """Of one segment's features: each model's `projection_dim`."""
    visual = audio = 512
    if not weights:
        return (visual,), (audio,)
    from pipeline.networks.transformers_folder import read_config

    if recipe.video is not None and "clip" in weights:
        visual = _size(read_config(weights["clip"], "clip"), "projection_dim", 512, weights["clip"])
    if recipe.audio is not None and "clap" in weights:
        audio = _size(read_config(weights["clap"], "clap"), "projection_dim", 512, weights["clap"])
    return (visual,), (audio,)


def load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> ClipClap:
    """The models that `recipe` asks for, frozen.

    Raises:
        BadCheckpoint: a folder is damaged or of another model type.
        ValueError: pictures or sound of another size or rate than the checkpoint's.
    """
    from pipeline.networks.inference import frozen
    from pipeline.networks.transformers_folder import load_part, read_config, read_json

    clip = clap = listen = None
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    visual, audio = shapes(recipe, weights)
    if recipe.video is not None:
        vision = read_config(weights["clip"], "clip").get("vision_config", {})
        side = _size(vision, "image_size", 224, weights["clip"])
        if (recipe.video.height_px, recipe.video.width_px) != (side, side):
            raise ValueError(
                f"recipe {recipe.name}: {weights['clip']} takes {side} x {side} pictures; "
                f"--set video.height_px={side} --set video.width_px={side}"
            )
        looks = read_json(weights["clip"], "preprocessor_config.json")
        mean, deviation = _three(looks, "image_mean", weights["clip"]), _three(looks, "image_std", weights["clip"])
        clip = frozen(load_part("CLIPModel", weights["clip"]), device)
    if recipe.audio is not None:
        read_config(weights["clap"], "clap")
        listen = load_part("ClapFeatureExtractor", weights["clap"])
        if listen.sampling_rate != recipe.audio.rate_hz:
            raise ValueError(
                f"recipe {recipe.name}: {weights['clap']} hears {listen.sampling_rate} Hz; "
                f"--set audio.rate_hz={listen.sampling_rate}"
            )
        if recipe.grid.window_s * listen.sampling_rate > listen.nb_max_samples:
            raise ValueError(
                f"recipe {recipe.name}: CLAP hears {listen.max_length_s} s at most; it would cut longer ones by chance"
            )
        clap = frozen(load_part("ClapModel", weights["clap"]), device)
    assert visual is not None
    assert audio is not None
    return ClipClap(
        recipe=recipe,
        device=device,
        clip=clip,
        mean=mean,
        deviation=deviation,
        clap=clap,
        listen=listen,
        image_width=visual[0],
        audio_width=audio[0],
    )


def encode(net: ClipClap, clips: Sequence[Clips]) -> list[Features]:
    """Features of each of `clips`: pictures together, sounds together."""
    seen: list[tuple[NDArray[np.float32] | None, NDArray[np.bool_]]]
    seen = [(None, np.zeros(item.count, np.bool_)) for item in clips]
    if net.clip is not None:
        from pipeline.networks.inference import encode_frames

        seen = list(
            encode_frames(
                clips,
                lambda frames: _see(net, frames),
                shape=(net.image_width,),
                device=net.device,
                batch_frames=BATCH_FRAMES,
            )
        )
    return [
        Features(visual=Modal.of(visual, visual_S), audio=Modal.of(heard, heard_S))
        for (visual, visual_S), (heard, heard_S) in zip(seen, _hear(net, clips), strict=True)
    ]


def load_text(weights: Mapping[str, Path], device: str, recipe: Recipe) -> Any:
    """Both models with their tokenizers, frozen.

    Raises:
        BadCheckpoint: a folder is damaged or of another model type.
    """
    from pipeline.networks.inference import frozen
    from pipeline.networks.transformers_folder import load_part, read_config

    parts = []
    for name, model in (("clip", "CLIPModel"), ("clap", "ClapModel")):
        read_config(weights[name], name)
        tokenise = load_part("AutoTokenizer", weights[name])
        parts.append((tokenise, frozen(load_part(model, weights[name]), device)))
    return parts, device, recipe.precision


def encode_text(net: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    """(K, CLIP's width + CLAP's width) float32: CLIP's text features, then CLAP's."""
    from pipeline.networks.inference import arithmetic

    parts, device, precision = net
    made = []
    for tokenise, model in parts:
        given = tokenise(list(texts), padding=True, truncation=True, return_tensors="pt").to(device)
        with arithmetic(device, precision):
            made.append(_tensor(model.get_text_features(**given)).float().cpu().numpy())
    return np.concatenate(made, axis=1).astype(np.float32)


def _see(net: ClipClap, frames_BHWC: Tensor) -> Tensor:
    from pipeline.networks.inference import arithmetic, normalised

    images = normalised(frames_BHWC, net.mean, net.deviation)
    with arithmetic(net.device, net.recipe.precision):
        return _tensor(net.clip.get_image_features(pixel_values=images))


def _hear(net: ClipClap, clips: Sequence[Clips]) -> list[tuple[NDArray[np.float32] | None, NDArray[np.bool_]]]:
    if net.clap is None:
        return [(None, np.zeros(item.count, np.bool_)) for item in clips]
    from pipeline.networks.inference import arithmetic, encode_sounds

    assert net.recipe.audio is not None
    rate_hz = net.recipe.audio.rate_hz

    def prepare(samples_SN: NDArray[np.float32], _: NDArray[np.bool_]) -> NDArray[np.float32]:
        given = net.listen(list(samples_SN), sampling_rate=rate_hz, return_tensors="np")
        return np.asarray(given["input_features"], np.float32)

    def forward(pictures: Tensor) -> Tensor:
        import torch

        # No window is longer than the model's clip (`load` refuses that). The library, asked about fused models, draws
        # one of the batch by chance and calls it longer.
        is_longer = torch.zeros(len(pictures), 1, dtype=torch.bool, device=pictures.device)
        with arithmetic(net.device, net.recipe.precision):
            return _tensor(net.clap.get_audio_features(input_features=pictures, is_longer=is_longer))

    return list(
        encode_sounds(
            clips,
            prepare,
            forward,
            width=net.audio_width,
            min_coverage=net.recipe.audio.min_coverage,
            device=net.device,
            batch_sounds=BATCH_SOUNDS,
        )
    )


def _tensor(made: Any) -> Tensor:
    """What the library gives: a tensor, or (since version 5) an output that holds it as `pooler_output`."""
    tensor: Tensor = getattr(made, "pooler_output", made)
    return tensor


def _size(config: object, name: str, default: int, folder: Path) -> int:
    from pipeline.networks.checkpoint import BadCheckpoint

    value = config.get(name, default) if isinstance(config, dict) else None
    if type(value) is not int or value < 1:
        raise BadCheckpoint(f"{folder}/config.json: {name} needs a whole number above 0, got {str(value)[:80]!r}")
    return value


def _three(looks: Mapping[str, Any], name: str, folder: Path) -> tuple[float, ...]:
    value = looks.get(name)
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(v, int | float) and v > 0 for v in value):
        raise ValueError(
            f"{folder}/preprocessor_config.json: {name} needs three numbers above 0, got {str(value)[:80]}"
        )
    return tuple(float(v) for v in value)
