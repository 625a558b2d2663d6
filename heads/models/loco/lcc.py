"""Locality-aware correspondence correction: what is heard and seen at nearby times of one video is drawn together.

Features of audio and frames are halved in width by a linear map each and brought to length 1. All N valid segments of
a batch meet in one matrix of cosines / tau, and each row of it learns to follow an objective, in both directions:

    loss(visual to audio) = -1/N sum_i sum_j y_ij log softmax_j(v_i a_j / tau)                            (equation 2)
    y_ij ~ exp(-d_ij^2 / (2 sigma^2)), d_ij = |i - j| / sqrt(2), for segments of one video                (equation 3)
    y_ij = 0 for segments of two videos                                                                   (equation 4)
    loss = (loss(visual to audio) + loss(audio to visual)) / 2                                            (equation 5)

d is the distance to the diagonal of the matrix of one video. sigma and tau are learned.

No code was ever published. Readings of what the paper leaves open:

- each row of y is brought to sum 1. With a bare density the loss is least for sigma without end (y goes to 0), with a
  kernel of peak 1 for sigma 0. The target is still trained by the loss that it defines and may drift to the diagonal,
  so sigma is kept in [0.5, 8] grid steps: beyond, it is put back to the edge, and keeps its gradient there. (On planted
  features it went from 1.0 to 1.2 within 8 epochs and stayed.)
- sigma starts at 1 grid step, tau at 0.07 and within [0.01, 0.5];
- "softened target" gives 0.8 to the synchronous pair and shares 0.2 among the others of its video;
- only segments that have both modalities take part.

The gradient reaches sigma through y alone: with the rows' sums at 1 it follows the covariance of d^2 and the logits.

B batch, T segments, C width, H = C / 2, N segments of the batch that take part.

Source: the LoCo paper (locality-aware cross-modal correspondence learning for dense audio-visual events localization),
section 3.3, equations 2 to 5, table 2b; tau after Li et al., NeurIPS 2021 (ALBEF).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Objective = Literal["gaussian", "fixed", "diagonal", "softened"]

SIGMA = 1.0
TAU = 0.07
# Grid steps. At 0.5 a neighbour still weighs 37 % of the synchronous segment, at 0.2 0.2 %: that is the diagonal.
SIGMA_RANGE = (0.5, 8.0)
TAU_RANGE = (0.01, 0.5)
# What the synchronous pair gives away under "softened".
SMOOTHING = 0.2


class CorrespondenceCorrection(nn.Module):
    """LCC's loss of a batch.

    Args:
        width: C, of both modalities; even.
        objective: y. "gaussian" learns sigma, "fixed" keeps it, "diagonal" has 1 for the synchronous pair alone,
            "softened" smooths that over the video (table 2b).
        sigma: where it starts, in grid steps, within `SIGMA_RANGE`.
        tau: where the temperature starts, within `TAU_RANGE`.
        stride: only every stride-th segment takes part, to save memory: the matrix has N^2 entries.

    Raises:
        ValueError: an argument is out of range.
    """

    sigma_raw: Tensor

    def __init__(
        self,
        width: int,
        *,
        objective: Objective = "gaussian",
        sigma: float = SIGMA,
        tau: float = TAU,
        stride: int = 1,
    ) -> None:
        super().__init__()
        if width < 2 or width % 2 or stride < 1:
            raise ValueError(f"LCC needs an even width and a stride of at least 1, got {width}, {stride}")
        if not (SIGMA_RANGE[0] <= sigma <= SIGMA_RANGE[1] and TAU_RANGE[0] <= tau <= TAU_RANGE[1]):
            raise ValueError(f"LCC needs sigma in {SIGMA_RANGE} and tau in {TAU_RANGE}, got {sigma}, {tau}")
        self.objective: Objective = objective
        self.stride = stride
        self.visual = nn.Linear(width, width // 2)
        self.audio = nn.Linear(width, width // 2)
        self.tau_raw = nn.Parameter(torch.tensor(float(tau)))
        if objective == "gaussian":
            self.sigma_raw = nn.Parameter(torch.tensor(float(sigma)))
        else:
            self.register_buffer("sigma_raw", torch.tensor(float(sigma)))

    @property
    def sigma(self) -> float:
        """The standard deviation of the Gaussian as it stands, in grid steps."""
        return float(self.sigma_raw.detach().clamp(*SIGMA_RANGE))

    @property
    def tau(self) -> float:
        """The temperature as it stands."""
        return float(self.tau_raw.detach().clamp(*TAU_RANGE))

    def project(self, visual_BTC: Tensor, audio_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """Both modalities in the common space: (B, T, H) of length 1."""
        return F.normalize(self.visual(visual_BTC), dim=-1), F.normalize(self.audio(audio_BTC), dim=-1)

    def forward(self, visual_BTC: Tensor, audio_BTC: Tensor, mask_BT: Tensor) -> Tensor:
        """Equation 5, in nats a segment; 0 without any segment.

        Args:
            visual_BTC, audio_BTC: of the unimodal encoders; finite, also outside the mask.
            mask_BT: bool, the segments that take part.
        """
        if self.stride > 1:
            visual_BTC, audio_BTC, mask_BT = (x[:, :: self.stride] for x in (visual_BTC, audio_BTC, mask_BT))
        visual_BTH, audio_BTH = self.project(visual_BTC, audio_BTC)
        # In reduced precision sums over thousands of exponentials would be too coarse.
        with torch.autocast(mask_BT.device.type, enabled=False):
            return self._loss(visual_BTH.float(), audio_BTH.float(), mask_BT)

    def objective_of(self, mask_BT: Tensor) -> Tensor:
        """y inside each video: (B, T, T) float32, symmetric before its rows are brought to sum 1; else 0.

        Args:
            mask_BT: bool, the segments that take part, `stride` grid steps apart.
        """
        place_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
        same_TT = place_T[:, None] == place_T
        pairs_BTT = mask_BT[:, :, None] & mask_BT[:, None, :]
        if self.objective == "diagonal":
            return (pairs_BTT & same_TT).to(self.sigma_raw.dtype)
        if self.objective == "softened":
            others_B11 = (mask_BT.sum(dim=1) - 1)[:, None, None]
            smooth_B11 = torch.where(others_B11 > 0, SMOOTHING, 0.0)
            own_BTT = torch.where(same_TT, 1 - smooth_B11, smooth_B11 / others_B11.clamp(min=1)).to(
                self.sigma_raw.dtype
            )
            return torch.where(pairs_BTT, own_BTT, 0.0)
        apart_TT = (self.stride * (place_T[:, None] - place_T)).to(self.sigma_raw.dtype)
        # d^2 / (2 sigma^2) with d = apart / sqrt(2); the rows' sums are those of a softmax.
        log_TT = -((apart_TT / (2 * self._held(self.sigma_raw, SIGMA_RANGE))) ** 2)
        log_BTT = log_TT.expand(len(mask_BT), -1, -1).masked_fill(~mask_BT[:, None, :], -math.inf)
        # Rows outside the mask: their own place stands in, so that no row is -inf throughout, which would be NaN.
        log_BTT = log_BTT.masked_fill(same_TT & ~mask_BT[:, :, None], 0.0)
        return log_BTT.softmax(dim=-1) * mask_BT[:, :, None]

    def _held(self, raw: Tensor, within: tuple[float, float]) -> Tensor:
        """The number at the edge of its range where it has left it, with its slope: a plain clamp has none there."""
        if self.training:
            with torch.no_grad():  # set back, so that the way back is one step and not as many as led out
                raw.clamp_(*within)
        return raw + (raw.detach().clamp(*within) - raw.detach())

    def _loss(self, visual_BTH: Tensor, audio_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        visual_NH, audio_NH = visual_BTH[mask_BT], audio_BTH[mask_BT]
        if not len(visual_NH):
            return visual_BTH.sum() * 0
        tau = self._held(self.tau_raw, TAU_RANGE)
        logits_NN = visual_NH / tau @ audio_NH.T
        # Rows of y sum to 1, so sum_j y_ij log softmax_j = sum_j y_ij logit_ij - log of the row's sum of exponentials;
        # y is 0 between videos, so the first term needs no more than sums of neighbours' vectors.
        spread = logits_NN.logsumexp(dim=1).sum() + logits_NN.logsumexp(dim=0).sum()
        y_BTT = self.objective_of(mask_BT)
        drawn = (visual_BTH * (y_BTT @ audio_BTH) + audio_BTH * (y_BTT @ visual_BTH)).sum() / tau
        return (spread - drawn) / (2 * len(visual_NH))
