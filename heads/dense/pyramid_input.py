"""Inputs of dense heads: features of a length that halves without a rest. B items, T segments."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from heads.blocks.segment_vectors import segment_vectors
from heads.dense.config import BaselineConfig
from heads.dense.points import divisor
from heads.features import FeatureBatch


def halvable(x_BT: Tensor, levels: int) -> Tensor:
    """(B, T, ...) with zeros behind, so that T is a multiple of 2^(levels - 1)."""
    missing = -x_BT.shape[1] % divisor(levels)
    return F.pad(x_BT, (0, 0) * (x_BT.ndim - 2) + (0, missing)) if missing else x_BT


def modality_features(name: str, batch: FeatureBatch, width: int, levels: int) -> Tensor:
    """One modality's features (B, T, D) float32, zero where not valid, of a length that halves.

    Raises:
        ValueError: they are missing, or of another width or number of segments.
    """
    return halvable(segment_vectors(name, *batch.modality(name), width), levels)


def joined_features(config: BaselineConfig, batch: FeatureBatch) -> Tensor:
    """All features that are looked at side by side, (B, T, joined_width), as `modality_features` gives them.

    Raises:
        ValueError: one is missing, or of another width or number of segments.
    """
    parts: list[Tensor] = []
    if config.uses_visual:
        parts.append(modality_features("visual", batch, config.visual_width, config.levels))
    if config.uses_audio:
        parts.append(modality_features("audio", batch, config.audio_width, config.levels))
    return torch.cat(parts, dim=-1)


def level_masks(mask_BT: Tensor, levels: int) -> list[Tensor]:
    """The mask of each level: a point is real where the segment is that it stands on."""
    return [mask_BT[:, :: 2**level] for level in range(levels)]
