"""ONE-PEACE's video tower and its audio and text branches, out of their published checkpoints.

Shape suffixes: S segments, P frames a segment, F distinct frames, K distinct windows, T frames of a window, N tokens a
frame, C channels, B batch, L samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.recipe import Recipe
from pipeline.clips import Segments
from pipeline.encoder import Shapes
from pipeline.encoders.one_peace.checkpoint import audio_width, read_branch, read_video, video_config
from pipeline.encoders.one_peace.recipes import LONGEST_S, RATE_HZ, SPEC, Settings
from pipeline.networks.inference import FrozenTowers, TokenTower, by_shape
from pipeline.networks.one_peace import OnePeace
from pipeline.networks.one_peace_video import VideoTower
from pipeline.preprocess import spectrogram
from pipeline.preprocess.frames import centre, first_held
from pipeline.preprocess.tokenizers import GptTokeniser

# Of Kinetics-400's transform, in units of 1/255.
MEAN, DEVIATION = (122.771, 116.746, 104.094), (68.5, 66.632, 70.323)
BATCH_FRAMES, BATCH_WINDOWS, BATCH_AUDIO = 32, 4, 32


@dataclass(frozen=True, kw_only=True)
class OnePeaceTowers(FrozenTowers):
    """The networks of a recipe."""

    video: VideoTower | None
    branch: OnePeace | None

    def visual(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """(n, C); a window is encoded once, however many segments it is, a frame becomes patches once."""
        tower = self.video
        assert tower is not None
        frames, windows, index = [], [], []  # index: of the segments among the windows of all clips
        num_frames = num_windows = 0
        for clips, rows in segments:
            held_SP = first_held(clips.frame_index_SP[rows])
            distinct_KP, index_S = np.unique(held_SP, axis=0, return_inverse=True)
            used, own = np.unique(distinct_KP, return_inverse=True)
            frames.append(centre(clips.frames_FHWC[used], tower.config.side_px))
            windows.append(own.reshape(distinct_KP.shape) + num_frames)
            index.append(index_S.reshape(-1) + num_windows)
            num_frames += used.size
            num_windows += len(distinct_KP)
        frames_FHWC = np.concatenate(frames)
        stems = [self._stem(tower, frames_FHWC[low : low + BATCH_FRAMES]) for low in range(0, num_frames, BATCH_FRAMES)]
        tokens_FNC = torch.cat(stems)
        windows_KT = torch.from_numpy(np.concatenate(windows)).to(self.device)
        made = [
            self._window_features(tower, tokens_FNC[windows_KT[low : low + BATCH_WINDOWS]])
            for low in range(0, num_windows, BATCH_WINDOWS)
        ]
        features_KC = np.concatenate(made)
        return features_KC[np.concatenate(index)]

    def audio(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """(n, D)."""
        branch = self.branch
        assert branch is not None
        kind = Settings.of(self.recipe).audio_feature

        def feature(audio_BL: Tensor) -> Tensor:
            if kind == "unit":
                unit: Tensor = branch(audio_BL)
                return unit
            token = branch.tokens(audio_BL)[:, 0]
            return branch.project(token) if kind == "projected" else token

        inputs = [audio_input(span_N) for one in segments for span_N in spectrogram.real_spans(*one)]
        return by_shape(inputs, lambda x: self.forward(feature, x), device=self.device, batch_size=BATCH_AUDIO)

    def _stem(self, tower: VideoTower, frames_FHWC: NDArray[np.uint8 | np.float32]) -> Tensor:
        frames = torch.from_numpy(np.ascontiguousarray(frames_FHWC)).to(self.device)
        return self.forward(lambda x: tower.stem(normalised(x)), frames)

    def _window_features(self, tower: VideoTower, tokens_BTNC: Tensor) -> NDArray[np.float32]:
        features_BC = self.forward(lambda x: tower.class_tokens(x).float().mean(dim=1), tokens_BTNC)
        made: NDArray[np.float32] = features_BC.cpu().numpy()
        return made


def shapes_from(recipe: Recipe, weights: Mapping[str, Path]) -> Shapes:
    """Of one segment's features: widths are those of the checkpoints.

    Raises:
        BadCheckpoint: a file is damaged or not ONE-PEACE's.
    """
    visual, audio = SPEC.visual_shape, SPEC.audio_shape
    if Settings.of(recipe).size == "from-weights":
        if recipe.video is not None and "one_peace_k400" in weights:
            visual = (video_config(weights["one_peace_k400"]).width,)
        if recipe.audio is not None and "one_peace" in weights:
            audio = (audio_width(weights["one_peace"], recipe),)
    return visual, audio


def load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> OnePeaceTowers:
    """The towers that `recipe` asks for, frozen.

    Raises:
        BadCheckpoint: a file is damaged or not ONE-PEACE's.
        ValueError: sizes other than the published, or frames other than the video tower's in number or size.
    """
    return OnePeaceTowers(
        recipe=recipe,
        device=device,
        video=None if recipe.video is None else read_video(weights["one_peace_k400"], device, recipe),
        branch=None if recipe.audio is None else read_branch(weights["one_peace"], "audio", device, recipe),
    )


def load_text(weights: Mapping[str, Path], device: str, recipe: Recipe) -> TokenTower:
    """The text branch: (K, 1536) unit vectors; of a text the first 70 tokens count.

    Raises:
        BadCheckpoint, ValueError: as `load`; or a file is not GPT-2's vocabulary or fairseq's dictionary of it.
    """
    return TokenTower(
        tokenise=GptTokeniser(weights["bpe_encoder"], weights["bpe_merges"], weights["bpe_dictionary"]),
        tower=read_branch(weights["one_peace"], "text", device, recipe),
        device=device,
        precision=recipe.precision,
    )


def normalised(frames_BHWC: Tensor) -> Tensor:
    """RGB in units of 1/255, (B, H, W, 3), to float32 (B, 3, H, W) as the video tower was trained on: rounded to whole
    numbers, as OpenCV's resizing gives them, minus Kinetics' mean, by its deviation.
    """
    mean, deviation = (torch.tensor(values, device=frames_BHWC.device) for values in (MEAN, DEVIATION))
    return ((frames_BHWC.float().round() - mean) / deviation).permute(0, 3, 1, 2)


def audio_input(samples_N: NDArray[np.float32]) -> NDArray[np.float32]:
    """The audio branch's input of a file or window: mean 0, variance 1; repeated to 1 s where it is shorter.

    Args:
        samples_N: mono at 16 kHz, at least one and at most 15 s of them (more are left out, after the mean is taken).

    Returns:
        float32 of 16,000 to 240,000 samples.
    """
    exact_N = samples_N.astype(np.float64)
    heard_N = ((exact_N - exact_N.mean()) / np.sqrt(exact_N.var() + 1e-5))[: LONGEST_S * RATE_HZ]
    if heard_N.size < RATE_HZ:
        heard_N = np.tile(heard_N, -(-RATE_HZ // heard_N.size))[:RATE_HZ]
    return np.asarray(heard_N, np.float32)
