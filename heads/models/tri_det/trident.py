"""TriDet's starts and ends: expected distances to the points at which a class starts or ends.

    p(start of class k lies j points before t) = softmax over j of (start_k(t - j) + before_j(t)),    j = 0 ... bins
    distance to the start = sum over j of j p(j)

and so for the end, behind the point. Starts and ends are said of each class and point; their part sees the pyramid's
features without passing a gradient on. Points outside the level count as 0.

B items, G places of all levels with gaps, P points, K classes, J = bins + 1 distances.

Source: Shi et al., CVPR 2023 (TriDet), section 3.3, and its published code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.dense.decoder import PRIOR, PointConvs
from heads.dense.level_sequence import LevelSequence


class TridentRegression(nn.Module):
    """A pyramid's features to offsets of each class.

    Args:
        width: C of the features.
        num_classes: K.
        levels: of the pyramid.
        bins: the farthest distance, in points of the level.
        hidden: channels of the convolutions between.
    """

    def __init__(self, width: int, num_classes: int, *, levels: int, bins: int = 16, hidden: int = 512) -> None:
        super().__init__()
        self.bins = bins
        self.start = PointConvs(width, num_classes, hidden=hidden, prior=PRIOR)
        self.end = PointConvs(width, num_classes, hidden=hidden, prior=PRIOR)
        self.center = PointConvs(width, 2 * (bins + 1), hidden=hidden)
        self.scale_L = nn.Parameter(torch.ones(levels))

    def forward(self, x_BGC: Tensor, mask_BG: Tensor, lay: LevelSequence) -> Tensor:
        """Distances to start and end, (B, P, K, 2) in points of the level, between 0 and `bins`; 0 outside the mask.

        Args:
            x_BGC: features of all levels with gaps of at least `bins`, zero outside the mask.
            mask_BG: bool, True where a point stands on a real segment.
            lay: how the levels lie.
        """
        assert lay.gap >= self.bins, "a level would see the next one's starts"
        distances_J = torch.arange(self.bins + 1, dtype=x_BGC.dtype, device=x_BGC.device)
        scale_P = torch.cat([scale.expand(count) for scale, count in zip(self.scale_L, lay.counts, strict=True)])
        near_BP2J = lay.points(self.center(x_BGC, mask_BG)).reshape(len(x_BGC), -1, 2, self.bins + 1)
        near_BP2J = F.relu(near_BP2J * scale_P[:, None, None])
        start_BGK = F.pad(self.start(x_BGC.detach(), mask_BG), (0, 0, self.bins, 0))
        end_BGK = F.pad(self.end(x_BGC.detach(), mask_BG), (0, 0, 0, self.bins))
        sides = []
        for side, (edge_BGK, far_J) in enumerate(((start_BGK, distances_J.flip(0)), (end_BGK, distances_J))):
            logits_BPKJ = lay.points(edge_BGK.unfold(1, self.bins + 1, 1)) + near_BP2J[:, :, side, None]
            sides.append(logits_BPKJ.softmax(dim=-1) @ far_J)
        offsets_BPK2 = torch.stack(sides, dim=-1)
        return offsets_BPK2 * lay.points(mask_BG)[..., None, None]
