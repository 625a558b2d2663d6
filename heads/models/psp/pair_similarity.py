"""Audio-visual pair similarity: in an item with an event, its seconds should look and sound alike, the others not.

The cosines of an item's segments, cut at 0 and made to sum to 1, are drawn by squared error to 1/n on its n event
segments and 0 elsewhere.

Differences from the published code: its target buffer is never cleared between batches, so that background segments
keep what an earlier item left there; here they are 0, as the paper says. An item without any event has a target of 0
everywhere (there: 1/10 everywhere).

B batch, T segments, D width.

Source: Zhou et al., CVPR 2021 (PSP), equations 8 and 9.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_EPS = 1e-8


def pair_similarity(visual_BTD: Tensor, audio_BTD: Tensor) -> Tensor:
    """Cosine of each segment's two vectors, (B, T)."""
    return (F.normalize(visual_BTD, dim=-1) * F.normalize(audio_BTD, dim=-1)).sum(dim=-1)


def pair_target(event_BT: Tensor) -> Tensor:
    """1/n on the n event segments of an item, (B, T) float32.

    Args:
        event_BT: bool, real segments with an event.
    """
    return event_BT.float() / event_BT.sum(dim=1, keepdim=True).clamp(min=1)


def pair_similarity_loss(similarity_BT: Tensor, target_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error of the normalised similarities.

    Args:
        similarity_BT: as `pair_similarity`.
        target_BT: as `pair_target`.
        mask_BT: bool; the rest weighs nothing, in the normalisation neither.

    Returns:
        (B,) sums over an item's real segments, and (B,) counts of them.
    """
    positive_BT = torch.where(mask_BT, torch.relu(similarity_BT), 0.0)
    share_BT = positive_BT / (positive_BT.sum(dim=1, keepdim=True) + _EPS)
    error_BT = torch.where(mask_BT, (share_BT - target_BT).square(), 0.0)
    return error_BT.sum(dim=1), mask_BT.sum(dim=1)
