"""A split on the device: everything moved once, batches gathered by index, no worker processes.

N items, B items of a batch, T segments, R rows, K classes, E events.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.store.modal import Modal
from heads.data.split import Split
from heads.features import FeatureBatch, Target


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

    def batch(self, items_B: Tensor) -> tuple[FeatureBatch, Target]:
        """Some items whole, with their truth, which the split must have been given; `items_B` int64 on the device."""
        assert self._true is not None, "the split has no truth"
        true = self._true[items_B]
        one_label = true.ndim == 2
        target = Target(classes_BT=true, background=self._background) if one_label else Target(labels_BTK=true)
        return self._gathered(self._rows_NT[items_B], self._mask_NT[items_B]), target

    def crops(self, items_B: Tensor, starts_B: Tensor, lengths_B: Tensor) -> FeatureBatch:
        """A crop of each item: its segments `[start, start + length)`, padded to the longest.

        Args:
            items_B, starts_B, lengths_B: int64 on the device; crops lie inside the items.
        """
        offset_T = torch.arange(int(lengths_B.max()), device=items_B.device)
        mask_BT = offset_T < lengths_B[:, None]
        rows_BT = self._rows_NT[items_B[:, None], torch.where(mask_BT, starts_B[:, None] + offset_T, 0)]
        return self._gathered(rows_BT, mask_BT)

    def _gathered(self, rows_BT: Tensor, mask_BT: Tensor) -> FeatureBatch:
        visual, visual_valid_BT = _gather(self._visual, rows_BT, mask_BT)
        audio, audio_valid_BT = _gather(self._audio, rows_BT, mask_BT)
        return FeatureBatch(
            visual=visual,
            audio=audio,
            mask_BT=mask_BT,
            visual_valid_BT=visual_valid_BT,
            audio_valid_BT=audio_valid_BT,
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
