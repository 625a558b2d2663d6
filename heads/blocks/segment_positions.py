"""A modality's input as the clean set of vectors of each segment. B batch, T segments, R vectors or places, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from catalog.store.modal import Modal
from heads.blocks.segment_head import SegmentHead
from heads.blocks.standardise import Standardise
from heads.features import FeatureBatch


class SegmentPositions(nn.Module):
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

    def fit(self, rows: Modal | None) -> None:
        """Take the moments of the training split, if wanted."""
        if self.standard is not None and rows is not None:
            self.standard.fit(rows.values, rows.valid)

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


class PairedPositions(SegmentHead):
    """Base of heads that relate sound to picture: the input of each, `visual_input` and `audio_input` in the state.

    Args:
        visual_width, audio_width: of the features.
        standardise: see `SegmentPositions`.
    """

    def __init__(self, visual_width: int, audio_width: int, *, standardise: bool) -> None:
        super().__init__()
        self.visual_input = SegmentPositions("visual", visual_width, standardise=standardise)
        self.audio_input = SegmentPositions("audio", audio_width, standardise=standardise)

    def fit_statistics(self, visual: Modal | None, audio: Modal | None) -> None:
        """Take the standardisation, if wanted, from the training split."""
        self.visual_input.fit(visual)
        self.audio_input.fit(audio)

    def inputs(self, batch: FeatureBatch) -> tuple[Tensor, Tensor]:
        """The picture's vectors of each segment (B, T, R, V), and the mean of the sound's (B, T, A).

        Raises:
            ValueError: a modality is missing, or of another width or number of segments.
        """
        visual_BTRV = self.visual_input(batch.visual, batch.visual_valid_BT)
        audio_BTRA = self.audio_input(batch.audio, batch.audio_valid_BT)
        return visual_BTRV, audio_BTRA.mean(dim=2)
