"""A modality's input as one clean vector a segment. B batch, T segments, R vectors or places of a segment, D width."""

from __future__ import annotations

import torch
from torch import Tensor


def segment_vectors(name: str, values: Tensor | None, valid_BT: Tensor, width: int) -> Tensor:
    """(B, T, D) float32; exactly 0 where not valid, whatever lay there (NaN is "not computed").

    Args:
        name: of the modality, for messages.
        values: (B, T, D), (B, T, R, D) or maps (B, T, ..., D): averaged over all between T and D.
        valid_BT: bool.
        width: D.

    Raises:
        ValueError: `values` is None or of another width or number of segments.
    """
    if values is None or values.ndim < 3 or values.shape[-1] != width or values.shape[:2] != valid_BT.shape:
        got = "none" if values is None else f"shape {tuple(values.shape)}"
        raise ValueError(
            f"the head needs {name} features of {tuple(valid_BT.shape)} segments, width {width}, got {got}"
        )
    values = values.float()
    if values.ndim > 3:
        values = values.flatten(2, -2).mean(dim=2)
    return torch.where(valid_BT[..., None], values, 0.0)
