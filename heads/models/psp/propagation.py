"""Positive sample propagation: each segment takes up what goes with it in the other modality, weak ties cut.

beta = relu(V2 A1^T / sqrt(D)); each row is made to sum to 1, what does not exceed the threshold is cut, and the rest is
made to sum to 1 again. A segment of the picture adds beta A2 to itself, one of the sound the same from beta^T and V1;
then a linear map, relu, dropout, one LayerNorm for both. Fused is their mean.

Reading for other numbers of segments: the published threshold, 0.099, lies just under the mean weight of 10 segments.
It is held relative to the mean weight, threshold x 10 / n with n real segments; at n = 10 that is the published code.

B batch, T segments, D width, E output width.

Source: Zhou et al., CVPR 2021 (PSP), equations 3 to 7, and its published code (LayerNorm's eps, no biases, Xavier).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The number of segments that thresholds were chosen for, and what keeps a row without ties from 0 / 0.
_SEGMENTS, _EPS = 10, 1e-8


class PositiveSamplePropagation(nn.Module):
    """(B, T, D) of each modality to (B, T, E).

    Args:
        width: D of both.
        output_width: E; None takes D.
        threshold: of a weight, for 10 segments; 0 cuts nothing.
        dropout: after each relu.

    Raises:
        ValueError: a width is below 1, the threshold negative, or dropout not in [0, 1).
    """

    def __init__(
        self, width: int, *, output_width: int | None = None, threshold: float = 0.099, dropout: float = 0.1
    ) -> None:
        super().__init__()
        output = width if output_width is None else output_width
        if min(width, output) < 1 or not threshold >= 0 or not 0 <= dropout < 1:
            raise ValueError(
                "positive sample propagation needs widths of at least 1, a threshold of at least 0 and dropout in "
                f"[0, 1), got width {width}, output {output}, threshold {threshold}, dropout {dropout}"
            )
        self.threshold = threshold
        self.visual_first, self.visual_second, self.audio_first, self.audio_second = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.visual_output, self.audio_output = (nn.Linear(width, output, bias=False) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(output, eps=1e-6)
        for linear in self.children():
            if isinstance(linear, nn.Linear):
                nn.init.xavier_uniform_(linear.weight)

    def forward(self, visual_BTD: Tensor, audio_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fused, visual and audio vectors, each (B, T, E); outside the mask they mean nothing.

        Args:
            visual_BTD, audio_BTD: float, finite everywhere.
            mask_BT: bool; the rest gives nothing to real segments.
        """
        visual_first_BTD = self._branch(self.visual_first, visual_BTD)
        visual_second_BTD = self._branch(self.visual_second, visual_BTD)
        audio_first_BTD = self._branch(self.audio_first, audio_BTD)
        audio_second_BTD = self._branch(self.audio_second, audio_BTD)
        scale = visual_BTD.shape[-1] ** -0.5
        ties_BTT = torch.relu(scale * visual_second_BTD @ audio_first_BTD.transpose(1, 2))
        ties_BTT = ties_BTT * (mask_BT[:, :, None] & mask_BT[:, None, :])
        threshold_B11 = self.threshold * (_SEGMENTS / mask_BT.sum(dim=1).clamp(min=1))[:, None, None]
        heard_BTD = _positive(ties_BTT, threshold_B11) @ audio_second_BTD
        seen_BTD = _positive(ties_BTT.transpose(1, 2), threshold_B11) @ visual_first_BTD
        visual_BTE = self.norm(self._branch(self.visual_output, visual_BTD + heard_BTD))
        audio_BTE = self.norm(self._branch(self.audio_output, audio_BTD + seen_BTD))
        return 0.5 * (visual_BTE + audio_BTE), visual_BTE, audio_BTE

    def _branch(self, linear: nn.Module, x_BTD: Tensor) -> Tensor:
        y_BTE: Tensor = self.dropout(torch.relu(linear(x_BTD)))
        return y_BTE


def _positive(ties_BTT: Tensor, threshold_B11: Tensor) -> Tensor:
    """Rows that sum to 1 with the weak ties cut; a row without any stays 0."""
    weights_BTT = ties_BTT / (ties_BTT.sum(dim=-1, keepdim=True) + _EPS)
    kept_BTT = torch.where(weights_BTT > threshold_B11, weights_BTT, 0.0)
    return kept_BTT / (kept_BTT.sum(dim=-1, keepdim=True) + _EPS)
