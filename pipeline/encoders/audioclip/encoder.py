"""AudioCLIP's towers out of its published checkpoint: frozen, and for fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from catalog.grid import exact_seconds, sample_at
from catalog.recipe import Recipe
from pipeline.clips import Segments
from pipeline.encoder import Shapes
from pipeline.encoders.audioclip.crop import evaluation_crop
from pipeline.encoders.audioclip.recipes import Settings, shapes
from pipeline.networks import clip_resnet, clip_text, esresnext
from pipeline.networks.checkpoint import build, need_published, read_state, sizes, with_prefix
from pipeline.networks.inference import FrozenTowers, TokenTower, encode_audio, encode_frames, frozen, normalised
from pipeline.preprocess.tokenizers import Tokeniser

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
FULL_SCALE = 32768.0
# Frames and windows of audio that go through a tower at once: 128 frames take 1.2 GB of activations.
BATCH_FRAMES, BATCH_WINDOWS = 32, 16


@dataclass(frozen=True, kw_only=True)
class AudioClip(FrozenTowers):
    """The networks of a recipe."""

    image_net: clip_resnet.ClipResNet | None
    audio_net: esresnext.EsResNeXt | None

    def visual(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """(n, D), or (n, P, D) with `keep_frames`."""
        network = self.image_net
        assert network is not None

        def forward(frames_BHWC: Tensor) -> Tensor:
            return self.forward(network, normalised(frames_BHWC, MEAN, DEVIATION))

        keep = Settings.of(self.recipe).keep_frames
        return encode_frames(segments, forward, device=self.device, batch_frames=BATCH_FRAMES, keep=keep)

    def audio(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """(n, D)."""
        network = self.audio_net
        assert network is not None
        scale = _audio_scale(self.recipe)

        def forward(audio_BN: Tensor) -> Tensor:
            return self.forward(network, audio_BN * scale)

        return encode_audio(segments, self._cropped, forward, device=self.device, batch_size=BATCH_WINDOWS)

    def _cropped(self, samples_SN: NDArray[np.float32], real_SN: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The part of each window that the network takes."""
        crop_s = Settings.of(self.recipe).crop_s
        if crop_s is None:
            return samples_SN
        assert self.recipe.audio is not None
        size = sample_at(exact_seconds(crop_s), self.recipe.audio.rate_hz)
        # A file that ends within the window is heard as a file of its length.
        ends_S = [int(np.flatnonzero(real_N)[-1]) + 1 for real_N in real_SN]
        return np.stack([evaluation_crop(row_N[:end], size) for row_N, end in zip(samples_SN, ends_S, strict=True)])


def shapes_from(recipe: Recipe, weights: Mapping[str, Path]) -> Shapes:
    """Of one segment's features: the width is the image tower's.

    Raises:
        BadCheckpoint: the file is damaged or not AudioCLIP's.
    """
    visual, audio = shapes(recipe)
    if Settings.of(recipe).size == "from-weights" and "audioclip" in weights and visual is not None:
        path = weights["audioclip"]
        width = sizes(clip_resnet.Config.of, with_prefix(read_state(path), "visual."), where=str(path)).embedding
        visual, audio = (*visual[:-1], width), (width,)
    return visual, audio


def load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> AudioClip:
    """The towers that `recipe` asks for, frozen.

    Raises:
        BadCheckpoint: the file is damaged or not AudioCLIP's.
        ValueError: a checkpoint of other sizes than the published, or frames of another size than its own.
    """
    path = weights["audioclip"]
    state = read_state(path)
    image_net = audio_net = None
    if recipe.video is not None:
        image_net = frozen(_image_net(state, recipe, str(path)), device, channels_last=True)
    if recipe.audio is not None:
        audio_net = frozen(_audio_net(state, recipe, str(path)), device, channels_last=True)
    return AudioClip(recipe=recipe, device=device, image_net=image_net, audio_net=audio_net)


def load_text(weights: Mapping[str, Path], device: str, recipe: Recipe) -> TokenTower:
    """The text tower: (K, 1024), not normalised; a text of more than 75 tokens is a ValueError.

    Raises:
        BadCheckpoint, ValueError: as `load`; or the vocabulary is not CLIP's.
    """
    where = f"{weights['audioclip']}, text tower"
    own = {key: tensor for key, tensor in read_state(weights["audioclip"]).items() if key.startswith(clip_text.KEYS)}
    config = sizes(clip_text.Config.of, own, where=where)
    need_published(config, clip_text.Config.published(), size=Settings.of(recipe).size, where=where)
    tower = build(lambda: clip_text.ClipText(config), own, where=where)
    return TokenTower(
        tokenise=Tokeniser(weights["bpe"], too_long="error"),
        tower=frozen(tower, device),
        device=device,
        precision=recipe.precision,
    )


def load_trainable(weights: Mapping[str, Path], device: str, recipe: Recipe) -> TrainableAudioClip:
    """Both media towers for fine-tuning, with the temperature of frames and audio.

    Raises:
        BadCheckpoint, ValueError: as `load`.
    """
    return TrainableAudioClip(read_state(weights["audioclip"]), str(weights["audioclip"]), device, recipe)


class TrainableAudioClip:
    """`pipeline.finetune.loop.Towers` of AudioCLIP: learns `visual.*`, `audio.*` and `logit_scale_ai`."""

    def __init__(self, state: Mapping[str, Tensor], where: str, device: str, recipe: Recipe) -> None:
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
        self._scale = _audio_scale(recipe)

    def image(self, frames_BHWC: Tensor) -> Tensor:
        """(B, D) features of frames."""
        made: Tensor = self.module["visual"](normalised(frames_BHWC, MEAN, DEVIATION))
        return made

    def audio(self, audio_BN: Tensor) -> Tensor:
        """(B, D) features of audio in [-1, 1]."""
        made: Tensor = self.module["audio"](audio_BN * self._scale)
        return made

    def published_state(self) -> dict[str, Tensor]:
        """Every key of the file that was loaded, with what has been learnt."""
        learnt = {key: tensor.detach().cpu() for key, tensor in self.module.state_dict().items()}
        return {key: tensor.clone() for key, tensor in (self._rest | learnt).items()}


def _image_net(state: Mapping[str, Tensor], recipe: Recipe, where: str) -> clip_resnet.ClipResNet:
    own = with_prefix(state, "visual.")
    config = sizes(clip_resnet.Config.of, own, where=where)
    tower = f"{where}, image tower"
    need_published(config, clip_resnet.Config.published(), size=Settings.of(recipe).size, where=tower)
    if recipe.video is not None and (recipe.video.height_px, recipe.video.width_px) != (config.image_px,) * 2:
        side = config.image_px
        raise ValueError(
            f"recipe {recipe.name}: the image tower of {where} takes {side} x {side} frames, the recipe makes "
            f"{recipe.video.height_px} x {recipe.video.width_px}; "
            f"--set video.height_px={side} --set video.width_px={side}"
        )
    return build(lambda: clip_resnet.ClipResNet(config), own, where=tower)


def _audio_net(state: Mapping[str, Tensor], recipe: Recipe, where: str) -> esresnext.EsResNeXt:
    own = with_prefix(state, "audio.")
    config = sizes(esresnext.Config.of, own, where=where)
    tower = f"{where}, audio tower"
    need_published(config, esresnext.Config.published(), size=Settings.of(recipe).size, where=tower)
    return build(lambda: esresnext.EsResNeXt(config), own, where=tower)


def _audio_scale(recipe: Recipe) -> float:
    return FULL_SCALE if Settings.of(recipe).audio_scale == "int16" else 1.0
