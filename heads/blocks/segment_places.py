"""A modality's input as the clean set of vectors of each segment. B batch, T segments, R vectors or places, D width."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heads.blocks.standardise import Standardise

# A config from a damaged file must not name shapes that torch cannot.
MAX_WIDTH = 2**24


class SegmentPlaces(nn.Module):
    """(B, T, D), (B, T, R, D) or maps (B, T, ..., D) to (B, T, R, D) float32, exactly 0 where not valid.

    Args:
        modality: its name, for messages.
        width: D.
        standardise: features by channel with moments of the training split, over the places too. Published heads before
            AVE-CLIP take the encoders' numbers as they are.
    """

    def __init__(self, modality: str, width: int, *, standardise: bool) -> None:
        super().__init__()
        self.modality, self.width = modality, width
        self.standard = Standardise(width) if standardise else None

    def fit(self, values: NDArray[np.floating] | None, valid: NDArray[np.bool_]) -> None:
        """Take the moments, if wanted: features (N, T, ..., D) or (rows, ..., D), validity (N, T) or (rows,)."""
        if self.standard is not None and values is not None:
            self.standard.fit(values, valid)

    def forward(self, values: Tensor | None, valid_BT: Tensor) -> Tensor:
        """The vectors of each segment, (B, T, R, D).

        Args:
            values: float; what is not valid may hold anything, NaN too.
            valid_BT: bool.

        Raises:
            ValueError: `values` is None or of another width or number of segments.
        """
        if values is None or values.ndim < 3 or values.shape[-1] != self.width or values.shape[:2] != valid_BT.shape:
            got = "none" if values is None else f"shape {tuple(values.shape)}"
            raise ValueError(
                f"the head looks at {self.modality} features of {tuple(valid_BT.shape)} segments, "
                f"width {self.width}, got {got}"
            )
        values_BTRD = (values[:, :, None] if values.ndim == 3 else values.flatten(2, -2)).float()
        if self.standard is not None:
            standard_BTRD: Tensor = self.standard(values_BTRD, valid_BT)
            return standard_BTRD
        # A batch of maps is 128 MB: it is copied only where something is to be replaced.
        return values_BTRD if bool(valid_BT.all()) else torch.where(valid_BT[..., None, None], values_BTRD, 0.0)


def check_both(head: str, *, modality: str, visual_width: int, audio_width: int) -> None:
    """For heads that relate sound to picture.

    Raises:
        ValueError: one modality alone is asked for, or the features have only one, or a width is out of range.
    """
    if modality not in ("both", "audio", "visual"):
        raise ValueError(f"modality must be both, audio or visual, got {modality!r}")
    if modality != "both":
        raise ValueError(
            f"{head} relates sound to picture and needs both, got modality {modality}; for one modality alone take "
            "the head ave_clip or linear"
        )
    for name, width in (("visual", visual_width), ("audio", audio_width)):
        if not 1 <= width <= MAX_WIDTH:
            raise ValueError(f"{head} needs {name} features of a width from 1 to {MAX_WIDTH}, got {width}")
