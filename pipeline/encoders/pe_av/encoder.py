"""PE-AV's towers out of a checkpoint folder.

Shape suffixes: S segments, P frames a segment, B batch, H W pixels, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from catalog.recipe import Recipe
from pipeline.clips import Segments
from pipeline.encoder import Shapes, TextTower
from pipeline.encoders.pe_av.checkpoint import (
    AudioParts,
    VideoParts,
    read_audio_parts,
    read_text_parts,
    read_video_parts,
    width_of,
)
from pipeline.networks.inference import FrozenTowers, arithmetic, by_shape, encode_frames
from pipeline.preprocess import spectrogram

BATCH_FRAMES, BATCH_CLIPS = 32, 8


@dataclass(frozen=True, kw_only=True)
class PeAv(FrozenTowers):
    """The parts of the model that a recipe uses."""

    video_parts: VideoParts | None
    audio_parts: AudioParts | None

    def visual(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """(n, D); clips of as many frames together."""
        parts = self.video_parts
        assert parts is not None
        processor = parts.processor

        def frame_features(frames_BHWC: Tensor) -> Tensor:
            mean = torch.tensor(processor.mean, device=frames_BHWC.device)
            deviation = torch.tensor(processor.deviation, device=frames_BHWC.device)
            images = ((frames_BHWC.float() * processor.scale - mean) / deviation).permute(0, 3, 1, 2)
            return self.forward(parts.tower, images)

        frames_SPD = encode_frames(segments, frame_features, device=self.device, batch_frames=BATCH_FRAMES, keep=True)
        shown_S = np.concatenate([(clips.frame_index_SP[rows] >= 0).sum(axis=1) for clips, rows in segments])
        shown = [frames_PD[-count:] for frames_PD, count in zip(frames_SPD, shown_S.tolist(), strict=True)]
        return self._embed(parts.encoder, parts.head, shown)

    def audio(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """(n, D); clips of one length, after the extractor, together."""
        parts = self.audio_parts
        assert parts is not None
        inputs = []
        for clips, rows in segments:
            for span_N in spectrogram.real_spans(clips, rows):
                given = parts.extractor([span_N], sampling_rate=clips.rate_hz, padding=True, return_tensors="np")
                inputs.append(given["input_values"][0])
        return self._embed(parts.encoder, parts.head, inputs)

    def _embed(self, encoder: nn.Module, head: nn.Module, inputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        def forward(x: Tensor) -> Tensor:
            return self.forward(lambda given: head(encoder(given).pooler_output), x)

        return by_shape(inputs, forward, device=self.device, batch_size=BATCH_CLIPS)


def shapes_from(recipe: Recipe, weights: Mapping[str, Path]) -> Shapes:
    """Of one segment's features: the text tower's width, which both heads lead to.

    Raises:
        BadCheckpoint: the folder is damaged or of another model type.
    """
    width = width_of(weights["pe_av"])
    return (width,), (width,)


def load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> PeAv:
    """The towers that `recipe` asks for, frozen.

    Raises:
        BadCheckpoint: the folder is damaged, of another model type, or of another image tower.
        ValueError: frames or audio of another size, number or rate than the folder's.
    """
    folder = weights["pe_av"]
    return PeAv(
        recipe=recipe,
        device=device,
        video_parts=read_video_parts(folder, device, recipe) if recipe.video is not None else None,
        audio_parts=read_audio_parts(folder, device, recipe) if recipe.audio is not None else None,
    )


def load_text(weights: Mapping[str, Path], device: str, recipe: Recipe) -> TextTower:
    """The text tower with its two heads: (K, 2 D) text_video_embeds, then text_audio_embeds, not normalised.

    Raises:
        BadCheckpoint: the folder is damaged or of another model type.
    """
    parts = read_text_parts(weights["pe_av"], device)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        given = parts.tokenise(list(texts), padding=True, truncation=True, return_tensors="pt")
        with arithmetic(device, recipe.precision):
            first_BD = parts.tower(
                input_ids=given["input_ids"].to(device), attention_mask=given["attention_mask"].to(device)
            ).last_hidden_state[:, 0]
            made = torch.cat([head(first_BD).float() for head in parts.heads], dim=-1)
        features: NDArray[np.float32] = made.cpu().numpy()
        return features

    return encode
