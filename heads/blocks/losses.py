"""Losses over the real segments of a batch. B items, T segments, K outputs.

Each gives a sum an item and the number of terms: a batch's mean and the item that went wrong are both to be had.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from heads.features import Target


def segment_loss(logits_BTK: Tensor, target: Target, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """`cross_entropy` where the target has one class a segment, `binary_cross_entropy` where it has any number."""
    if target.classes_BT is not None:
        return cross_entropy(logits_BTK, target.classes_BT, mask_BT)
    assert target.labels_BTK is not None, "a target of segments has classes or labels"
    return binary_cross_entropy(logits_BTK, target.labels_BTK, mask_BT)


def cross_entropy(logits_BTK: Tensor, classes_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax cross-entropy.

    Args:
        classes_BT: int64 in [0, K).
        mask_BT: bool; the rest weighs nothing.

    Returns:
        (B,) sums over an item's real segments in nats, and (B,) counts of them.
    """
    loss_BT = F.cross_entropy(logits_BTK.movedim(-1, 1), classes_BT, reduction="none")
    return torch.where(mask_BT, loss_BT, 0.0).sum(dim=1), mask_BT.sum(dim=1)


def binary_cross_entropy(logits_BTK: Tensor, labels_BTK: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Sigmoid cross-entropy, summed over classes: several labels may hold at once.

    Args:
        labels_BTK: bool.

    Returns:
        As `cross_entropy`.
    """
    loss_BT = F.binary_cross_entropy_with_logits(logits_BTK, labels_BTK.to(logits_BTK.dtype), reduction="none").sum(-1)
    return torch.where(mask_BT, loss_BT, 0.0).sum(dim=1), mask_BT.sum(dim=1)
