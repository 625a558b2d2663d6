"""A split on the device: everything moved once, batches gathered by index, no worker processes.

N items, B items of a batch, T segments, R rows, K classes, E events.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.store.modal import Modal
from heads.data.split import Split


@dataclass(frozen=True, kw_only=True)
class Target:
    """The truth of a batch.

    Attributes:
        mask_BT: bool, the segments that are real.
        classes_BT: int64, one class a segment, `background` where no event is; None with several labels.
        labels_BTK: bool, any number of classes a segment; None with one label.
        background: number of the output that stands for no event; None with several labels.
        events_BE2: float32, start and end of each event in grid units (see `heads.dense.points`); None where a head
            learns from segments.
        event_labels_BE: int64, the events' classes; -1 where an item has no further event.
    """

    mask_BT: Tensor
    classes_BT: Tensor | None = None
    labels_BTK: Tensor | None = None
    background: int | None = None
    events_BE2: Tensor | None = None
    event_labels_BE: Tensor | None = None

    @property
    def event_BT(self) -> Tensor:
        """bool, real segments with an event."""
        if self.classes_BT is not None:
            return (self.classes_BT != self.background) & self.mask_BT
        assert self.labels_BTK is not None
        return self.labels_BTK.any(dim=-1) & self.mask_BT


@dataclass(frozen=True, kw_only=True)
class DeviceBatch:
    """Padded features of B items, as a head takes them, and their truth.

    Attributes:
        visual, audio: float32 (B, T, *shape), 0 where not valid; None where there is no such modality.
        visual_valid_BT, audio_valid_BT: bool, False outside the mask.
        target: None where the split has no truth.
    """

    visual: Tensor | None
    audio: Tensor | None
    mask_BT: Tensor
    visual_valid_BT: Tensor
    audio_valid_BT: Tensor
    target: Target | None


class DeviceSplit:
    """A split's rows as tensors. On the CPU they share the split's memory; on a GPU they are copied once."""

    def __init__(
        self,
        split: Split,
        true: NDArray[np.int64] | NDArray[np.bool_] | None,
        device: str,
        *,
        background: int | None = None,
    ) -> None:
        """Moves `split`.

        Args:
            true: (N, T) classes or (N, T, K) labels, as `heads.data.targets.truth` gives them.
            background: for classes, the number of the last output.
        """
        self._rows_NT = torch.from_numpy(np.maximum(split.rows_NT, 0)).to(device)
        self._mask_NT = torch.from_numpy(split.mask_NT).to(device)
        self._visual, self._audio = _moved(split.visual, device), _moved(split.audio, device)
        self._true = None if true is None else torch.from_numpy(true).to(device)
        self._background = background

    def batch(self, items_B: Tensor) -> DeviceBatch:
        """The features of some items; `items_B` int64 on the device."""
        rows_BT, mask_BT = self._rows_NT[items_B], self._mask_NT[items_B]
        target = None
        if self._true is not None:
            true = self._true[items_B]
            if true.ndim == 2:
                target = Target(mask_BT=mask_BT, classes_BT=true, background=self._background)
            else:
                target = Target(mask_BT=mask_BT, labels_BTK=true)
        return self._gathered(rows_BT, mask_BT, target)

    def stretches(self, items_B: Tensor, starts_B: Tensor, lengths_B: Tensor, target: Target | None) -> DeviceBatch:
        """A stretch of each item: its segments `[start, start + length)`, padded to the longest.

        Args:
            items_B, starts_B, lengths_B: int64 on the device; stretches lie inside the items.
            target: of the stretches; its mask is replaced by theirs.
        """
        place_T = torch.arange(int(lengths_B.max()), device=items_B.device)
        mask_BT = place_T < lengths_B[:, None]
        rows_BT = self._rows_NT[items_B[:, None], torch.where(mask_BT, starts_B[:, None] + place_T, 0)]
        if target is not None:
            target = dataclasses.replace(target, mask_BT=mask_BT)
        return self._gathered(rows_BT, mask_BT, target)

    def _gathered(self, rows_BT: Tensor, mask_BT: Tensor, target: Target | None) -> DeviceBatch:
        visual, visual_valid_BT = _gather(self._visual, rows_BT, mask_BT)
        audio, audio_valid_BT = _gather(self._audio, rows_BT, mask_BT)
        return DeviceBatch(
            visual=visual,
            audio=audio,
            mask_BT=mask_BT,
            visual_valid_BT=visual_valid_BT,
            audio_valid_BT=audio_valid_BT,
            target=target,
        )


def _moved(rows: Modal | None, device: str) -> tuple[Tensor, Tensor] | None:
    if rows is None:
        return None
    values = rows.values if rows.values.flags.writeable else rows.values.copy()
    return torch.from_numpy(values).to(device), torch.from_numpy(rows.valid).to(device)


def _gather(rows: tuple[Tensor, Tensor] | None, rows_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor | None, Tensor]:
    if rows is None:
        return None, torch.zeros_like(mask_BT)
    values, valid_R = rows
    if not len(valid_R):
        return values.new_zeros((*rows_BT.shape, *values.shape[1:])).float(), torch.zeros_like(mask_BT)
    # One index_select of whole rows is several times faster than indexing with two axes.
    taken = values.index_select(0, rows_BT.flatten()).view(*rows_BT.shape, *values.shape[1:]).float()
    valid_BT = valid_R[rows_BT] & mask_BT
    if not bool(mask_BT.all()):
        taken[~mask_BT] = 0
    return taken, valid_BT
