"""What is computed of each segment for itself, of the real ones alone. B batch, T segments, C channels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Above this share of real segments gathering them costs what it saves.
_NEARLY_ALL = 0.95


def of_real(each: Callable[[Tensor], Tensor], x_BTC: Tensor, mask_BT: Tensor) -> Tensor:
    """What `each` makes of each segment for itself, padding left out.

    UnAV-100's videos last 42 of at most 60 seconds on the mean, so that a third of a batch is padding. On a GPU, which
    would have to wait for the number of real segments, and where nearly all are real, padding is computed all the same;
    what stands there then means nothing.
    """
    if mask_BT.device.type != "cpu":
        return each(x_BTC)
    real_N = mask_BT.flatten().nonzero().squeeze(1)
    if len(real_N) > _NEARLY_ALL * mask_BT.numel():
        return each(x_BTC)
    out_NC = each(x_BTC.flatten(0, 1).index_select(0, real_N))
    none_RC = torch.zeros(mask_BT.numel(), out_NC.shape[1], dtype=out_NC.dtype, device=out_NC.device)
    return none_RC.index_copy(0, real_N, out_NC).reshape(*mask_BT.shape, -1)
