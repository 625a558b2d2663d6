"""CLIP's image and CLAP's audio embeddings, by the transformers library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.recipe import Recipe
from pipeline.clips import Segments
from pipeline.encoder import Shapes, TextTower
from pipeline.encoders.clip_clap.recipes import SPEC
from pipeline.networks.inference import FrozenTowers, arithmetic, encode_audio, encode_frames, frozen, normalised
from pipeline.networks.transformers_folder import load_part, read_config, read_json, whole_number

BATCH_FRAMES, BATCH_WINDOWS = 32, 8


@dataclass(frozen=True, kw_only=True)
class ClipClap(FrozenTowers):
    """The models of a recipe, the mean and deviation of CLIP's frames, and CLAP's feature extractor."""

    clip: Any
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    clap: Any
    extractor: Any

    def visual(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """(n, D of CLIP)."""

        def images(frames_BHWC: Tensor) -> Tensor:
            return _tensor(
                self.clip.get_image_features(pixel_values=normalised(frames_BHWC, self.mean, self.deviation))
            )

        def forward(frames_BHWC: Tensor) -> Tensor:
            return self.forward(images, frames_BHWC)

        return encode_frames(segments, forward, device=self.device, batch_frames=BATCH_FRAMES)

    def audio(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """(n, D of CLAP)."""
        assert self.recipe.audio is not None
        rate_hz = self.recipe.audio.rate_hz

        def prepare(samples_SN: NDArray[np.float32], _: NDArray[np.bool_]) -> NDArray[np.float32]:
            given = self.extractor(list(samples_SN), sampling_rate=rate_hz, return_tensors="np")
            return np.asarray(given["input_features"], np.float32)

        def embed(mels: Tensor) -> Tensor:
            # No window is longer than the model's clip (`load` refuses that). The library, asked about fused models,
            # draws one of the batch by chance and calls it longer.
            is_longer = torch.zeros(len(mels), 1, dtype=torch.bool, device=mels.device)
            return _tensor(self.clap.get_audio_features(input_features=mels, is_longer=is_longer))

        def forward(mels: Tensor) -> Tensor:
            return self.forward(embed, mels)

        return encode_audio(segments, prepare, forward, device=self.device, batch_size=BATCH_WINDOWS)


def shapes_from(recipe: Recipe, weights: Mapping[str, Path]) -> Shapes:
    """Of one segment's features: each model's `projection_dim`.

    Raises:
        BadCheckpoint: a folder is damaged or of another model type.
    """
    visual, audio = SPEC.visual_shape, SPEC.audio_shape
    if recipe.video is not None and "clip" in weights:
        visual = (whole_number(read_config(weights["clip"], "clip"), "projection_dim", 512, weights["clip"]),)
    if recipe.audio is not None and "clap" in weights:
        audio = (whole_number(read_config(weights["clap"], "clap"), "projection_dim", 512, weights["clap"]),)
    return visual, audio


def load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> ClipClap:
    """The models that `recipe` asks for, frozen.

    Raises:
        BadCheckpoint: a folder is damaged or of another model type.
        ValueError: frames or audio of another size or rate than the checkpoint's.
    """
    clip = clap = extractor = None
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    if recipe.video is not None:
        folder = weights["clip"]
        vision = read_config(folder, "clip").get("vision_config", {})
        side = whole_number(vision, "image_size", 224, folder)
        if (recipe.video.height_px, recipe.video.width_px) != (side, side):
            raise ValueError(
                f"recipe {recipe.name}: {folder} takes {side} x {side} frames; "
                f"--set video.height_px={side} --set video.width_px={side}"
            )
        processor = read_json(folder, "preprocessor_config.json")
        mean, deviation = _three(processor, "image_mean", folder), _three(processor, "image_std", folder)
        clip = frozen(load_part("CLIPModel", folder), device)
    if recipe.audio is not None:
        folder = weights["clap"]
        read_config(folder, "clap")
        extractor = load_part("ClapFeatureExtractor", folder)
        if extractor.sampling_rate != recipe.audio.rate_hz:
            raise ValueError(
                f"recipe {recipe.name}: {folder} takes {extractor.sampling_rate} Hz; "
                f"--set audio.rate_hz={extractor.sampling_rate}"
            )
        if recipe.grid.window_s * extractor.sampling_rate > extractor.nb_max_samples:
            raise ValueError(
                f"recipe {recipe.name}: CLAP takes {extractor.max_length_s} s at most; it would cut longer ones by "
                "chance"
            )
        clap = frozen(load_part("ClapModel", folder), device)
    return ClipClap(
        recipe=recipe, device=device, clip=clip, mean=mean, deviation=deviation, clap=clap, extractor=extractor
    )


def load_text(weights: Mapping[str, Path], device: str, recipe: Recipe) -> TextTower:
    """Both models with their tokenizers, frozen: (K, CLIP's width + CLAP's width), CLIP's text features first.

    Raises:
        BadCheckpoint: a folder is damaged or of another model type.
    """
    parts = []
    for name, model in (("clip", "CLIPModel"), ("clap", "ClapModel")):
        read_config(weights[name], name)
        tokenise = load_part("AutoTokenizer", weights[name])
        parts.append((tokenise, frozen(load_part(model, weights[name]), device)))

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        made = []
        for tokenise, model in parts:
            given = tokenise(list(texts), padding=True, truncation=True, return_tensors="pt").to(device)
            with arithmetic(device, recipe.precision):
                made.append(_tensor(model.get_text_features(**given)).float().cpu().numpy())
        return np.concatenate(made, axis=1).astype(np.float32)

    return encode


def _tensor(made: Any) -> Tensor:
    """Of the library's answer: a tensor, or (since version 5) an output that holds it as `pooler_output`."""
    tensor: Tensor = getattr(made, "pooler_output", made)
    return tensor


def _three(processor: Mapping[str, Any], name: str, folder: Path) -> tuple[float, ...]:
    value = processor.get(name)
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(v, int | float) and v > 0 for v in value):
        raise ValueError(
            f"{folder}/preprocessor_config.json: {name} needs three numbers above 0, got {str(value)[:80]}"
        )
    return tuple(float(v) for v in value)
