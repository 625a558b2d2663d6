"""Losses of dense heads: of classes at points, of distances to an event's ends, and what they are divided by.

N pairs of a predicted and a true event that share their point: (distance to the start, distance to the end), >= 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Unions and enclosing lengths below are taken for it (ActionFormer), in strides.
_LEAST = 1e-8


def focal(logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sigmoid focal loss of each element: alpha_t (1 - p_t)^gamma x cross-entropy, in nats.

    Args:
        logits, targets: float of one shape; targets in [0, 1], between them where labels are smoothed.
        alpha: weight of what is true, 1 - alpha of what is not; below 0 nothing is weighed.
        gamma: how much less what is right already counts.

    Raises:
        ValueError: shapes differ.

    Source: Lin et al., ICCV 2017, equation 5, with p_t and alpha_t linear in the target as in fvcore and ActionFormer.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"focal loss needs targets {tuple(logits.shape)} like the logits, got {tuple(targets.shape)}")
    share = torch.sigmoid(logits)
    # 1 - p_t = p + t - 2 p t
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    loss = loss * (share + targets - 2 * share * targets).pow(gamma)
    return loss if alpha < 0 else loss * (1 - alpha + (2 * alpha - 1) * targets)


def giou(predicted_N2: Tensor, target_N2: Tensor) -> Tensor:
    """(N,) 1 - IoU, in [0, 1].

    It is the generalised IoU loss too: two events that share a point have no gap, so the length that encloses both is
    their union and the generalised term is zero.

    Source: Rezatofighi et al., CVPR 2019; in one dimension as ActionFormer.
    """
    return 1 - _iou(predicted_N2, target_N2)


def diou(predicted_N2: Tensor, target_N2: Tensor) -> Tensor:
    """(N,) 1 - IoU + (distance of the middles / length that encloses both)^2.

    Source: Zheng et al., AAAI 2020; in one dimension as ActionFormer, UnAV.
    """
    enclosing_N = torch.maximum(predicted_N2, target_N2).sum(dim=-1).clamp(min=_LEAST)
    apart_N2 = predicted_N2 - target_N2
    middles_N = 0.5 * (apart_N2[..., 1] - apart_N2[..., 0])
    return 1 - _iou(predicted_N2, target_N2) + (middles_N / enclosing_N).square()


class Normaliser(nn.Module):
    """A moving average of the positive points of a batch, which both losses are divided by.

    In training it takes a batch in before it is used, at least as one point; in evaluation it stays. It is saved with
    the head.

    Source: UnAV's and ActionFormer's published code (initial value 250 for UnAV; UniAV has 300).
    """

    mean: Tensor

    def __init__(self, initial: float = 250.0, momentum: float = 0.9) -> None:
        """
        Raises:
            ValueError: `initial` is not above 0, or `momentum` outside [0, 1].
        """
        super().__init__()
        if not (initial > 0 and 0 <= momentum <= 1):
            raise ValueError(f"needs initial above 0 and momentum in [0, 1], got {initial} and {momentum}")
        self.momentum = momentum
        self.register_buffer("mean", torch.tensor(float(initial)))

    def forward(self, positive: Tensor) -> Tensor:
        """() float32 without gradient: the average, with `positive` (a count) in it if training."""
        if self.training:
            count = positive.detach().to(self.mean).clamp(min=1.0)
            self.mean.mul_(self.momentum).add_(count * (1 - self.momentum))
        return self.mean.clone()


def _iou(predicted_N2: Tensor, target_N2: Tensor) -> Tensor:
    shared_N = torch.minimum(predicted_N2, target_N2).sum(dim=-1)
    union_N = predicted_N2.sum(dim=-1) + target_N2.sum(dim=-1) - shared_N
    return shared_N / union_N.clamp(min=_LEAST)
