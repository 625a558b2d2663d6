"""An attention over places run over slices of the batch, so that what it makes a place stays in a core's cache.

At 128 items of 10 x 49 places the 512 numbers a place are 128 MB, written and read again by relu, by its gradient and
by the next map. In slices of 4 MB an audio-guided attention's step takes 0.90 CPU s instead of 1.12 (one thread; the
two products of 62,720 x 512 x 512 alone take 0.72). On a GPU the batch is run whole.

B batch, T segments, R places, V and A widths.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_SLICE_BYTES = 4 * 2**20


def in_item_slices(
    attention: Callable[[Tensor, Tensor], Tensor], visual_BTRV: Tensor, audio_BTA: Tensor, *, width: int
) -> Tensor:
    """`attention(visual_BTRV, audio_BTA)`, which must treat each item alone.

    Args:
        width: float32 numbers that it makes a place.
    """
    items = max(1, _SLICE_BYTES // max(1, 4 * width * visual_BTRV.shape[1] * visual_BTRV.shape[2]))
    if visual_BTRV.device.type != "cpu" or items >= len(visual_BTRV):
        return attention(visual_BTRV, audio_BTA)
    slices = zip(torch.split(visual_BTRV, items), torch.split(audio_BTA, items), strict=True)
    return torch.cat([attention(visual, audio) for visual, audio in slices])
