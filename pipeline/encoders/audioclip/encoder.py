"""AudioCLIP: CLIP's ResNet-50 for pictures, ESResNeXt-fbsp for sound, CLIP's text tower; one space of 1024 dimensions.

Features are the towers' outputs, not normalised (the published `encode_*`). A segment's picture feature is the mean
over its frames (AVE-CLIP section 3.3), or all of them with `keep_frames`, which an audio-guided attention can choose
among.

Settings:
    audio_scale: "int16" (default) multiplies sound by 32768, as the published training data sets do; "unit" leaves it
        in [-1, 1], as the demo notebook is believed to. They give different features.
    keep_frames: true stores the P frames of a segment, (P, D), instead of their mean.
    crop_s: seconds of sound that the network hears of each window, by the rule of the published 5 s evaluation
        (`evaluation_crop`); absent (audioclip-1s): the whole window.
    size: "published", or "from-weights": the sizes are read from the checkpoint (small ones for tests and trials).

Pictures are CLIP's transform: bicubic (Pillow) to a short side of 224, centre crop, CLIP's mean and deviation. With
`video.interpolation=bicubic_tensor` it is the demo notebook's: bicubic on the tensor, without antialiasing.

bfloat16 against float32 (`avel bench encoders`, random weights of the published size): least cosine of a segment 0.9999
for pictures (one segment of 16 frames) and 0.9995 for sound (6 segments). It hangs on the weights, more than in the
other encoders: see bench/random_weights.py.

Source: Guzhov et al., ICASSP 2022, and github.com/AndreyGuzhov/AudioCLIP.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalog.grid import GridRule, exact_seconds, sample_at
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.store.modal import Features, Modal
from pipeline.clips import Clips
from pipeline.encoder import EncoderSpec, Shapes
from pipeline.encoders.audioclip.crop import evaluation_crop
from pipeline.weights.asset import CLIP_VOCABULARY, Asset

if TYPE_CHECKING:
    from torch import Tensor, nn

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
FULL_SCALE = 32768.0
# Pictures and sounds that go through a tower at once: 128 pictures take 1.2 GB of activations.
BATCH_FRAMES, BATCH_SOUNDS = 32, 16

_RELEASE = "https://github.com/AndreyGuzhov/AudioCLIP/releases/download/v0.1"
_CITATION = "Guzhov et al., AudioCLIP: Extending CLIP to Image, Text and Audio, ICASSP 2022"

SPEC = EncoderSpec(
    name="audioclip",
    visual_shape=(1024,),
    audio_shape=(1024,),
    text_width=1024,
    assets=(
        Asset(
            name="audioclip",
            filename="AudioCLIP-Full-Training.pt",
            url=f"{_RELEASE}/AudioCLIP-Full-Training.pt",
            bytes=537302068,
            sha256="2441d35b353352c8b1bbfb8f7c687f46314c3d2909e940eaf763b8c17f632c44",
            licence="MIT",
            citation=_CITATION,
        ),
        CLIP_VOCABULARY,
    ),
    licence="MIT",
    citation=_CITATION,
    batch_segments=32,
    device="gpu",
)

PRESETS = (
    Recipe(
        name="audioclip-1s",
        encoder="audioclip",
        grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
        video=VideoSampling(frames_per_segment=16, height_px=224, width_px=224),
        audio=AudioSampling(rate_hz=44100, resampler="soxr_hq"),
        settings={"audio_scale": "int16", "keep_frames": False, "size": "published"},
    ),
    Recipe(
        name="audioclip-5s",
        encoder="audioclip",
        grid=GridRule(window_s=Fraction(5), hop_s=Fraction(5)),
        video=VideoSampling(frames_per_segment=16, height_px=224, width_px=224),
        audio=AudioSampling(rate_hz=44100, resampler="soxr_hq"),
        settings={"audio_scale": "int16", "keep_frames": False, "size": "published", "crop_s": 5},
    ),
)


@dataclass(frozen=True, kw_only=True)
class AudioClip:
    """The towers that a recipe uses, and how to feed them."""

    recipe: Recipe
    device: str
    image_net: nn.Module | None
    audio_net: nn.Module | None
    image_shape: tuple[int, ...]
    audio_width: int


def shapes(recipe: Recipe, weights: Mapping[str, Path]) -> Shapes:
    """Of one segment's features; P frames apart with `keep_frames`."""
    width = 1024
    if recipe.settings.get("size") == "from-weights" and "audioclip" in weights:
        from pipeline.networks.checkpoint import sizes, with_prefix
        from pipeline.networks.clip_resnet import Config

        own = with_prefix(_state(weights), "visual.")
        width = sizes(Config.of, own, where=str(weights["audioclip"])).embedding
    frames = (recipe.video.frames_per_segment,) if recipe.video and recipe.settings.get("keep_frames") else ()
    return (*frames, width), (width,)


def check(recipe: Recipe) -> None:
    """Refuse settings that cannot be.

    Raises:
        ValueError: names the setting, what it needs and what came.
    """
    for key, allowed in (("audio_scale", ("int16", "unit")), ("size", ("published", "from-weights"))):
        if recipe.settings.get(key) not in allowed:
            raise ValueError(
                f"recipe {recipe.name}: settings.{key} needs {' or '.join(allowed)}, got {recipe.settings.get(key)!r}"
            )
    if not isinstance(recipe.settings.get("keep_frames"), bool):
        raise ValueError(f"recipe {recipe.name}: settings.keep_frames needs true or false")
    crop_s = recipe.settings.get("crop_s")
    if crop_s is not None and not (isinstance(crop_s, int | float) and not isinstance(crop_s, bool) and crop_s > 0):
        raise ValueError(f"recipe {recipe.name}: settings.crop_s needs seconds above 0, got {crop_s!r}")
    if recipe.audio is not None and recipe.audio.rate_hz != 44100:
        raise ValueError(f"recipe {recipe.name}: AudioCLIP hears 44100 Hz, got {recipe.audio.rate_hz}")


def load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> AudioClip:
    """The towers that `recipe` asks for, frozen.

    Raises:
        BadCheckpoint: the file is damaged or not AudioCLIP's.
        ValueError: a setting that cannot be, or a checkpoint of other sizes than the published.
    """
    from pipeline.networks.inference import frozen

    state = _state(weights)
    where = str(weights["audioclip"])
    image_net = audio_net = None
    image_width = audio_width = 0
    if recipe.video is not None:
        built = _image_net(state, recipe, where)
        image_net, image_width = frozen(built, device, channels_last=True), built.config.embedding
    if recipe.audio is not None:
        heard = _audio_net(state, recipe, where)
        audio_net, audio_width = frozen(heard, device, channels_last=True), heard.config.embedding
    return AudioClip(
        recipe=recipe,
        device=device,
        image_net=image_net,
        audio_net=audio_net,
        image_shape=(image_width,),
        audio_width=audio_width,
    )


def encode(net: AudioClip, clips: Sequence[Clips]) -> list[Features]:
    """Features of each of `clips`: pictures together, sounds together."""
    visual: list[tuple[NDArray[np.float32] | None, NDArray[np.bool_]]]
    visual = [(None, np.zeros(item.count, np.bool_)) for item in clips]
    if net.image_net is not None:
        from pipeline.networks.inference import encode_frames

        visual = list(
            encode_frames(
                clips,
                lambda frames: _encode_images(net, frames),
                shape=net.image_shape,
                device=net.device,
                batch_frames=BATCH_FRAMES,
                keep=bool(net.recipe.settings["keep_frames"]),
            )
        )
    audio = _hear(net, clips)
    return [
        Features(visual=Modal.of(seen, seen_S), audio=Modal.of(heard, heard_S))
        for (seen, seen_S), (heard, heard_S) in zip(visual, audio, strict=True)
    ]


def load_text(weights: Mapping[str, Path], device: str, recipe: Recipe) -> Any:
    """Tokenizer and text tower, frozen.

    Raises:
        BadCheckpoint, ValueError: as `load`; or the vocabulary is not CLIP's.
    """
    import torch

    from pipeline.networks import clip_text
    from pipeline.networks.checkpoint import fill, sizes
    from pipeline.networks.inference import frozen
    from pipeline.preprocess.tokenizers import Tokeniser

    where = f"{weights['audioclip']}, text tower"
    state = {key: tensor for key, tensor in _state(weights).items() if key.startswith(clip_text.KEYS)}
    config = sizes(clip_text.Config.of, state, where=where)
    _check_size(recipe, config, clip_text.Config.published(), where)
    with torch.device("meta"):
        net = clip_text.ClipText(config)
    fill(net, state, where=where)
    return Tokeniser(weights["bpe"], too_long="error"), frozen(net, device), recipe.precision


def encode_text(net: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    """(K, 1024) float32, not normalised; one text a class name.

    Raises:
        ValueError: a text of more than 75 tokens.
    """
    import torch

    from pipeline.networks.inference import arithmetic

    tokenise, tower, precision = net
    device = next(tower.parameters()).device
    with arithmetic(device.type, precision):
        made = tower(torch.from_numpy(tokenise(texts)).to(device))
    return np.asarray(made.float().cpu().numpy(), np.float32)


def towers(weights: Mapping[str, Path], device: str, recipe: Recipe) -> AudioClipTowers:
    """Both media towers for fine-tuning, with the temperature of pictures and sounds.

    Raises:
        BadCheckpoint, ValueError: as `load`.
    """
    return AudioClipTowers(_state(weights), str(weights["audioclip"]), device, recipe)


class AudioClipTowers:
    """`pipeline.finetune.loop.Towers` of AudioCLIP: learns `visual.*`, `audio.*` and `logit_scale_ai`."""

    def __init__(self, state: Mapping[str, Tensor], where: str, device: str, recipe: Recipe) -> None:
        import torch
        from torch import nn

        self._rest = {key: tensor for key, tensor in state.items() if not key.startswith(("visual.", "audio."))}
        scale = state.get("logit_scale_ai", torch.tensor(2.6592600))
        self.log_scale = nn.Parameter(scale.detach().clone().float())
        image_net, audio_net = _image_net(state, recipe, where), _audio_net(state, recipe, where)
        self.module = nn.ModuleDict({"visual": image_net, "audio": audio_net})
        # The file's tensors are mapped from it, and must not change with what is learnt.
        for parameter in self.module.parameters():
            parameter.data = parameter.data.clone()
        for buffer in self.module.buffers():
            buffer.data = buffer.data.clone()
        audio_net.fbsp.bias.requires_grad_(False)
        self.module.register_parameter("logit_scale_ai", self.log_scale)
        self.module.to(device)
        self._scale = _sound_scale(recipe)

    def image(self, frames_BHWC: Tensor) -> Tensor:
        """(B, D) features of frames."""
        made: Tensor = self.module["visual"](normalised(frames_BHWC))
        return made

    def audio(self, sound_BN: Tensor) -> Tensor:
        """(B, D) features of sound in [-1, 1]."""
        made: Tensor = self.module["audio"](sound_BN * self._scale)
        return made

    def published_state(self) -> dict[str, Tensor]:
        """Every key of the file that was loaded, with what has been learnt."""
        learnt = {key: tensor.detach().cpu() for key, tensor in self.module.state_dict().items()}
        return {key: tensor.clone() for key, tensor in (self._rest | learnt).items()}


def normalised(frames_BHWC: Tensor) -> Tensor:
    """RGB in units of 1/255, (B, H, W, 3), to float32 (B, 3, H, W), channels last in memory, normalised as CLIP's."""
    from pipeline.networks import inference

    return inference.normalised(frames_BHWC, MEAN, DEVIATION)


def _encode_images(net: AudioClip, frames_BHWC: Tensor) -> Tensor:
    from pipeline.networks.inference import arithmetic

    assert net.image_net is not None
    with arithmetic(net.device, net.recipe.precision):
        made: Tensor = net.image_net(normalised(frames_BHWC))
    return made


def _hear(net: AudioClip, clips: Sequence[Clips]) -> list[tuple[NDArray[np.float32] | None, NDArray[np.bool_]]]:
    if net.audio_net is None:
        return [(None, np.zeros(item.count, np.bool_)) for item in clips]
    from pipeline.networks.inference import arithmetic, encode_sounds

    assert net.recipe.audio is not None
    scale = _sound_scale(net.recipe)

    def forward(sounds: Tensor) -> Tensor:
        assert net.audio_net is not None
        with arithmetic(net.device, net.recipe.precision):
            made: Tensor = net.audio_net(sounds * scale)
        return made

    return list(
        encode_sounds(
            clips,
            functools.partial(_cropped, net.recipe),
            forward,
            width=net.audio_width,
            min_coverage=net.recipe.audio.min_coverage,
            device=net.device,
            batch_sounds=BATCH_SOUNDS,
        )
    )


def _cropped(recipe: Recipe, samples_SN: NDArray[np.float32], real_SN: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What of each window the network hears."""
    crop_s = recipe.settings.get("crop_s")
    if crop_s is None:
        return samples_SN
    assert recipe.audio is not None
    size = sample_at(exact_seconds(crop_s), recipe.audio.rate_hz)
    # A file that ends within the window is heard as a file of its length.
    ends_S = [int(np.flatnonzero(real_N)[-1]) + 1 for real_N in real_SN]
    return np.stack([evaluation_crop(row_N[:end], size) for row_N, end in zip(samples_SN, ends_S, strict=True)])


def _state(weights: Mapping[str, Path]) -> dict[str, Tensor]:
    from pipeline.networks.checkpoint import read_state

    return read_state(weights["audioclip"])


def _image_net(state: Mapping[str, Tensor], recipe: Recipe, where: str) -> Any:
    import torch

    from pipeline.networks.checkpoint import fill, sizes, with_prefix
    from pipeline.networks.clip_resnet import ClipResNet, Config

    own = with_prefix(state, "visual.")
    config = sizes(Config.of, own, where=where)
    _check_size(recipe, config, Config.published(), f"{where}, image tower")
    if recipe.video is not None and (recipe.video.height_px, recipe.video.width_px) != (config.image_px,) * 2:
        side = config.image_px
        raise ValueError(
            f"recipe {recipe.name}: the image tower of {where} takes {side} x {side} pictures, the recipe makes "
            f"{recipe.video.height_px} x {recipe.video.width_px}; "
            f"--set video.height_px={side} --set video.width_px={side}"
        )
    with torch.device("meta"):
        net = ClipResNet(config)
    fill(net, own, where=f"{where}, image tower")
    return net


def _audio_net(state: Mapping[str, Tensor], recipe: Recipe, where: str) -> Any:
    import torch

    from pipeline.networks.checkpoint import fill, sizes, with_prefix
    from pipeline.networks.esresnext import Config, EsResNeXt

    own = with_prefix(state, "audio.")
    config = sizes(Config.of, own, where=where)
    _check_size(recipe, config, Config.published(), f"{where}, audio tower")
    with torch.device("meta"):
        net = EsResNeXt(config)
    fill(net, own, where=f"{where}, audio tower")
    return net


def _check_size(recipe: Recipe, config: object, published: object, where: str) -> None:
    if recipe.settings["size"] == "published" and config != published:
        raise ValueError(
            f"{where}: needs the published sizes {published}, got {config}; "
            "if that is meant, --set settings.size=from-weights"
        )


def _sound_scale(recipe: Recipe) -> float:
    return FULL_SCALE if recipe.settings["audio_scale"] == "int16" else 1.0
