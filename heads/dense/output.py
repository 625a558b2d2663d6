"""What a dense head says at the points of its pyramid. B items, P points, K classes, C = K (class-aware) or 1."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DenseOutput:
    """Of B items, level after level as in `heads.dense.points.Points`.

    Attributes:
        logits_BPK: float, before the sigmoid.
        offsets_BPC2: float >= 0, how far the event's start lies before the point and its end behind it, in strides of
            the point's level; C is K where each class has its own, else 1.
        mask_BP: bool, points that stand on a real segment.
        counts: points of each level; their sum is P.
        auxiliary: a further loss term of this forward pass, weighted; None where there is none.
    """

    logits_BPK: Tensor
    offsets_BPC2: Tensor
    mask_BP: Tensor
    counts: tuple[int, ...]
    auxiliary: Tensor | None = None
