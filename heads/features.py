"""What goes into a head: `FeatureBatch`, the padded features of some items, and `Target`, what is true of them.

B items of a batch, T segments, K classes, E events, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FeatureBatch:
    """Padded features of B items.

    Attributes:
        visual, audio: float vectors (B, T, D), sets (B, T, R, D) or maps (B, T, ..., D), of any value where not valid;
            None where there is no such modality.
        mask_BT: bool, True where the segment is real.
        visual_valid_BT, audio_valid_BT: bool, True where the feature was computed; False outside the mask.
    """

    visual: Tensor | None
    audio: Tensor | None
    mask_BT: Tensor
    visual_valid_BT: Tensor
    audio_valid_BT: Tensor

    def __post_init__(self) -> None:
        shape = self.mask_BT.shape
        for name in ("visual", "audio"):
            values, valid_BT = self.modality(name)
            if values is not None and (values.ndim < 3 or values.shape[:2] != shape):
                raise ValueError(f"{name} features of {tuple(shape)} segments needed, got shape {tuple(values.shape)}")
            if valid_BT.shape != shape or valid_BT.dtype != torch.bool:
                raise ValueError(
                    f"bool validity of {name} features of {tuple(shape)} segments needed, got {valid_BT.dtype} "
                    f"{tuple(valid_BT.shape)}"
                )

    @classmethod
    def of(
        cls,
        visual: Tensor | None,
        audio: Tensor | None,
        mask_BT: Tensor,
        visual_valid_BT: Tensor | None = None,
        audio_valid_BT: Tensor | None = None,
    ) -> Self:
        """A batch whose features are all valid inside the mask, unless their validity is given."""

        def inside(values: Tensor | None, valid_BT: Tensor | None) -> Tensor:
            if values is None:
                return torch.zeros_like(mask_BT)
            return mask_BT if valid_BT is None else valid_BT & mask_BT

        return cls(
            visual=visual,
            audio=audio,
            mask_BT=mask_BT,
            visual_valid_BT=inside(visual, visual_valid_BT),
            audio_valid_BT=inside(audio, audio_valid_BT),
        )

    def modality(self, name: str) -> tuple[Tensor | None, Tensor]:
        """Features and validity of "visual" or "audio"."""
        return (self.visual, self.visual_valid_BT) if name == "visual" else (self.audio, self.audio_valid_BT)

    def to(self, device: str | torch.device) -> Self:
        """The batch on a device."""
        return self._each(lambda x: x.to(device))

    def items(self, index: Tensor | slice) -> Self:
        """The batch of some of its items."""
        return self._each(lambda x: x[index])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(
            visual=None if self.visual is None else change(self.visual),
            audio=None if self.audio is None else change(self.audio),
            mask_BT=change(self.mask_BT),
            visual_valid_BT=change(self.visual_valid_BT),
            audio_valid_BT=change(self.audio_valid_BT),
        )


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is true of a batch: of its segments, or its events.

    Attributes:
        classes_BT: int64, one class a segment, `background` where no event is; None with several labels.
        labels_BTK: bool, any number of classes a segment; None with one label.
        background: index of the output for no event; None with several labels.
        events_BE2: float32, start and end of each event in grid units (see `heads.dense.points`); None where a head
            learns from segments.
        event_labels_BE: int64, the events' classes; -1 where an item has no further event.
    """

    classes_BT: Tensor | None = None
    labels_BTK: Tensor | None = None
    background: int | None = None
    events_BE2: Tensor | None = None
    event_labels_BE: Tensor | None = None

    def has_event(self, mask_BT: Tensor) -> Tensor:
        """(B, T) bool, the real segments with an event."""
        if self.classes_BT is not None:
            return (self.classes_BT != self.background) & mask_BT
        assert self.labels_BTK is not None, "a target of segments has classes or labels"
        return self.labels_BTK.any(dim=-1) & mask_BT
