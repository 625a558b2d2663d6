"""ImageBind's towers out of its published checkpoint.

Shape suffixes: S segments, K clips a segment, C distinct clips, F frames, B batch, H W pixels, D feature width.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.recipe import Recipe
from pipeline.clips import Clips, Segments
from pipeline.encoder import Shapes
from pipeline.encoders.imagebind.fbank import mel_inputs
from pipeline.encoders.imagebind.recipes import SPEC, Settings
from pipeline.networks.checkpoint import build, need_published, read_state, sizes
from pipeline.networks.imagebind import Config, Modality, Tower, belongs
from pipeline.networks.inference import FrozenTowers, TokenTower, encode_audio, encode_frames, frozen, normalised
from pipeline.preprocess.tokenizers import Tokeniser

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
BATCH_FRAMES, BATCH_WINDOWS = 16, 16
BATCH_CLIPS = 5  # of two frames, three views each


@dataclass(frozen=True, kw_only=True)
class ImageBind(FrozenTowers):
    """The towers of a recipe."""

    vision: Tower | None
    hearing: Tower | None

    def visual(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """(n, D)."""
        vision, video = self.vision, self.recipe.video
        assert vision is not None
        assert video is not None
        if video.clip_s is not None:
            return np.concatenate([self._clip_means(vision, *one) for one in segments])

        def forward(frames_BHWC: Tensor) -> Tensor:
            return self.forward(vision, normalised(frames_BHWC, MEAN, DEVIATION))

        return encode_frames(segments, forward, device=self.device, batch_frames=BATCH_FRAMES)

    def audio(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """(n, D)."""
        hearing, audio = self.hearing, self.recipe.audio
        assert hearing is not None
        assert audio is not None
        kind = Settings.of(self.recipe).audio_clip
        return encode_audio(
            segments,
            functools.partial(mel_inputs, kind=kind),
            lambda mels: self._mean_of_clips(hearing, mels, BATCH_WINDOWS),
            device=self.device,
            batch_size=BATCH_WINDOWS,
            context_s=audio.context_s if kind == "context" else Fraction(0),
        )

    def _clip_means(self, vision: Tower, clips: Clips, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """(n, D): the mean over each segment's clips of two frames and their three views."""
        pairs_SK2 = clips.frame_index_SP[rows].reshape(len(rows), -1, 2)
        # A clip that begins before the first frame begins with the last it has; one that ends before it is left out.
        pairs_SK2 = np.where(pairs_SK2 < 0, pairs_SK2[:, :, 1:], pairs_SK2)
        seen_SK = pairs_SK2[:, :, 1] >= 0
        # The clips of a segment that is no longer than one are the same: encoded once.
        distinct_C2, index = np.unique(pairs_SK2[seen_SK], axis=0, return_inverse=True)
        made = []
        for low in range(0, len(distinct_C2), BATCH_CLIPS):
            given = views(clips.frames_FHWC, distinct_C2[low : low + BATCH_CLIPS], self.device)
            made.append(self._mean_of_clips(vision, given, BATCH_FRAMES).cpu().numpy())
        made_CD = np.concatenate(made)
        index_SK = np.zeros(seen_SK.shape, np.intp)
        index_SK[seen_SK] = index.reshape(-1)
        means = [
            made_CD[index_K[seen_K]].mean(axis=0, dtype=np.float32)
            for index_K, seen_K in zip(index_SK, seen_SK, strict=True)
        ]
        return np.stack(means)

    def _mean_of_clips(self, tower: Tower, x: Tensor, batch_size: int) -> Tensor:
        """(n, D): the mean over each row's K clips (n, K, ...) of their scaled unit vectors, not renormalised."""
        flat = x.flatten(0, 1)
        parts = [self.forward(tower, flat[low : low + batch_size]).float() for low in range(0, len(flat), batch_size)]
        return torch.cat(parts).reshape(*x.shape[:2], -1).mean(dim=1)


def shapes_from(recipe: Recipe, weights: Mapping[str, Path]) -> Shapes:
    """Of one segment's features: the width is the checkpoint's.

    Raises:
        BadCheckpoint: the file is damaged or not ImageBind's.
    """
    if Settings.of(recipe).size == "published" or "imagebind" not in weights:
        return SPEC.visual_shape, SPEC.audio_shape
    path = weights["imagebind"]
    modality: Modality = "vision" if recipe.video is not None else "audio"
    width = sizes(functools.partial(Config.of, modality=modality), read_state(path), where=str(path)).embedding
    return (width,), (width,)


def load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> ImageBind:
    """The towers that `recipe` asks for, frozen.

    Raises:
        BadCheckpoint: the file is damaged or not ImageBind's.
        ValueError: a checkpoint of other sizes than the published.
    """
    state, where = read_state(weights["imagebind"]), str(weights["imagebind"])
    return ImageBind(
        recipe=recipe,
        device=device,
        vision=None if recipe.video is None else _tower(state, "vision", recipe, where, device),
        hearing=None if recipe.audio is None else _tower(state, "audio", recipe, where, device),
    )


def load_text(weights: Mapping[str, Path], device: str, recipe: Recipe) -> TokenTower:
    """The text tower: (K, 1024) unit vectors times the learnt text scale; of a text the first 75 tokens count.

    Raises:
        BadCheckpoint, ValueError: as `load`; or the vocabulary is not CLIP's.
    """
    return TokenTower(
        tokenise=Tokeniser(weights["bpe"], too_long="cut"),
        tower=_tower(read_state(weights["imagebind"]), "text", recipe, str(weights["imagebind"]), device),
        device=device,
        precision=recipe.precision,
    )


def views(frames_FHWC: NDArray[np.uint8 | np.float32], pairs_C2: NDArray[np.int32], device: str = "cpu") -> Tensor:
    """The three views of clips of two frames, float32 (C, 3, 3, 2, 224, 224): clip, crop, colour, frame.

    Args:
        frames_FHWC: (F, 672, 224, 3) RGB in units of 1/255, three crops one below the other.
        pairs_C2: which frames a clip has.
    """
    frames = torch.from_numpy(frames_FHWC[pairs_C2.reshape(-1)]).to(device)
    side = frames.shape[2]
    images = normalised(frames.reshape(-1, side, side, 3), MEAN, DEVIATION).reshape(len(pairs_C2), 2, 3, 3, side, side)
    return images.permute(0, 2, 3, 1, 4, 5)


def _tower(state: Mapping[str, Tensor], modality: Modality, recipe: Recipe, where: str, device: str) -> Tower:
    own = {key: tensor for key, tensor in state.items() if belongs(key, modality)}
    config = sizes(functools.partial(Config.of, modality=modality), own, where=where)
    where = f"{where}, {modality} tower"
    need_published(config, Config.published(modality), size=Settings.of(recipe).size, where=where)
    return frozen(build(lambda: Tower(config), own, where=where, infinite=("text.mask",)), device)
