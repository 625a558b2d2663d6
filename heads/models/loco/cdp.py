"""Cross-modal dynamic perception: cross-attention with a predicted window offset and scale.

    base windows   w consecutive points each, next to each other                                          (section 3.4)
    Q, K, V        linear maps of one modality (Q) and of the other (K, V)                                (equation 6)
    size, offset = Conv1x1(LeakyReLU(mean of Q over the window)), two numbers a head                      (equation 7)
    K', V'         w samples of K, V at start + offset + j (1 + size), j = 0 .. w - 1, for each head by itself
    Z = Q's stream + attention of Q, K', V' in a sliding window of w;  out = Z + FFN(LN(Z))               (equation 8)

Samples lie between two points and are their linear mixture; beyond the sequence everything is 0. Nothing holds a size
above -1: below it a window is sampled backwards. The convolution starts at 0, so training starts from the base windows,
which is the ablation "fixed" to the bit. "global" attends to all points (table 2c).

No code was ever published. Readings of what the paper leaves open: Q alone predicts the windows, in points (offset) and
in shares of w (size); the mean is over the window's real points, and the last window may be shorter; a sliding window
of w reaches w // 2 points a side, as in the code base that the paper builds on; norms come before the maps; residual
branches have a learned scale that starts near 0 and are dropped at random, as there.

Nothing here is slower than linear in T but "global". Windows, heads and samples are rows of one gather.

B batch, T points of a level, C width, H heads, D = C / H, N windows of W points.

Source: the LoCo paper (locality-aware cross-modal correspondence learning for dense audio-visual events localization),
section 3.4, tables 2c and 2d; window regression after Zhang et al., ECCV 2022 (VSA).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.blocks.temporal_conv import AffineDropPath
from heads.blocks.window_attention import window_attention

Cross = Literal["cdp", "fixed", "global"]


class WindowAdaptation(nn.Module):
    """Where each head looks for each base window.

    Args:
        width: C.
        num_heads: H.
        window: W.
    """

    def __init__(self, width: int, *, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads, self.window = num_heads, window
        self.predict = nn.Linear(width, 2 * num_heads)
        nn.init.zeros_(self.predict.weight)
        nn.init.zeros_(self.predict.bias)

    def forward(self, query_BTC: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Size and offset, both (B, N, H) float32, N = T / W rounded up.

        The target window of base window n is [n W + offset, n W + offset + W (1 + size)) in points.

        Args:
            query_BTC: Q; what lies outside the mask does not matter.
            mask_BT: bool, True where real. A window without any real point has a mean of 0.
        """
        batch, count, width = query_BTC.shape
        missing = -count % self.window
        windows = (batch, (count + missing) // self.window, self.window)
        query_BTC = query_BTC * mask_BT[..., None]
        sum_BNC = F.pad(query_BTC, (0, 0, 0, missing)).reshape(*windows, width).sum(dim=2)
        real_BN = F.pad(mask_BT, (0, missing)).reshape(windows).sum(dim=2)
        mean_BNC = sum_BNC / real_BN.clamp(min=1)[..., None]
        size_BNH, offset_BNH = self.predict(F.leaky_relu(mean_BNC)).float().chunk(2, dim=-1)
        return size_BNH, offset_BNH


def sample_windows(values_BTHD: Tensor, size_BNH: Tensor, offset_BNH: Tensor, *, window: int) -> Tensor:
    """Samples of each target window at the places of its base window, (B, T, H, D) float32.

    Point j of window n gets, for head h, the value at n W + offset + j (1 + size): the linear mixture of the two points
    around, and 0 beyond the sequence. Gradients reach values, sizes and offsets.

    Args:
        values_BTHD: finite everywhere, 0 where not real.
        size_BNH, offset_BNH: N = T / W rounded up.
        window: W.
    """
    batch, count, heads, width = values_BTHD.shape
    device = values_BTHD.device
    step_W11 = torch.arange(window, device=device)[:, None]
    # From the window's start: whole positions of long sequences would leave too few digits for the fraction.
    place_BNWH = offset_BNH.float()[:, :, None] + step_W11 * (1 + size_BNH.float()[:, :, None])
    # Beyond the sequence from any start: far numbers have no integer.
    place_BNWH = place_BNWH.clamp(-count - 2.0, count + 2.0)
    before_BNWH = place_BNWH.detach().floor()
    share_BNWH = place_BNWH - before_BNWH
    start_N11 = window * torch.arange(offset_BNH.shape[1], device=device)[:, None, None]
    # Two neighbours a sample, as positions in the sequence; (B, T, H, 2) from here on.
    first_BTH = (before_BNWH.long() + start_N11).flatten(1, 2)[:, :count]
    share_BTH = share_BNWH.flatten(1, 2)[:, :count]
    points_BTH2 = torch.stack((first_BTH, first_BTH + 1), dim=-1)
    weights_BTH2 = torch.stack((1 - share_BTH, share_BTH), dim=-1)
    inside_BTH2 = (points_BTH2 >= 0) & (points_BTH2 < count)
    item_B111 = count * torch.arange(batch, device=device)[:, None, None, None]
    head_H1 = torch.arange(heads, device=device)[:, None]
    rows_BTH2 = (points_BTH2.clamp(0, count - 1) + item_B111) * heads + head_H1
    # Gather and mix in one: 13 times faster than two index_select on a CPU.
    samples_RD = F.embedding_bag(
        rows_BTH2.flatten(0, 2),
        values_BTHD.float().reshape(-1, width),
        per_sample_weights=(weights_BTH2 * inside_BTH2).flatten(0, 2),
        mode="sum",
    )
    return samples_RD.view(batch, count, heads, width)


class DynamicPerception(nn.Module):
    """A transformer block in which one stream asks another of the same length: (B, T, C) to (B, T, C).

    Args:
        width: C, a multiple of `num_heads`.
        num_heads: H.
        window: W, of the base windows and of the sliding attention.
        cross: what is attended to (table 2c).
        expansion: of the feed-forward layer.
        dropout: after the attention's output map and in the feed-forward layer.
        drop_path: share of items whose residual branch is left out in training.

    Raises:
        ValueError: a size is out of range.
    """

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        window: int,
        cross: Cross = "cdp",
        expansion: int = 4,
        dropout: float = 0.0,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        if min(width, num_heads, window, expansion) < 1 or width % num_heads:
            raise ValueError(
                "perception needs sizes above 0 and a width that is a multiple of num_heads, got "
                f"width {width}, num_heads {num_heads}, window {window}, expansion {expansion}"
            )
        self.num_heads, self.window, self.cross = num_heads, window, cross
        self.query_norm, self.other_norm, self.norm = (nn.LayerNorm(width) for _ in range(3))
        self.query = nn.Linear(width, width)
        # Keys and values of a head lie side by side, so that a sample is one row.
        self.key_value = nn.Linear(width, 2 * width)
        self.adaptation: WindowAdaptation | None = None
        if cross == "cdp":
            self.adaptation = WindowAdaptation(width, num_heads=num_heads, window=window)
        self.output = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))
        self.feed = nn.Sequential(
            nn.Linear(width, expansion * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(expansion * width, width),
            nn.Dropout(dropout),
        )
        self.attended, self.fed = AffineDropPath(width, drop_path), AffineDropPath(width, drop_path)

    def forward(self, x_BTC: Tensor, other_BTC: Tensor, mask_BT: Tensor) -> Tensor:
        """The stream `x_BTC` after its look at `other_BTC`; exactly 0 outside the mask.

        Args:
            x_BTC: the stream that asks and keeps its residual; finite everywhere.
            other_BTC: the stream that is asked; finite everywhere. May be `x_BTC` itself.
            mask_BT: bool, True where real.
        """
        query_BTC = self.query(self.query_norm(x_BTC))
        values_BTHE = self.key_value(self.other_norm(other_BTC)) * mask_BT[..., None]
        values_BTHE = values_BTHE.unflatten(2, (self.num_heads, -1))
        if self.adaptation is not None:
            size_BNH, offset_BNH = self.adaptation(query_BTC, mask_BT)
            sampled_BTHE = sample_windows(values_BTHE, size_BNH, offset_BNH, window=self.window)
            values_BTHE = sampled_BTHE.to(values_BTHE.dtype)
        key_BTHD, value_BTHD = values_BTHE.chunk(2, dim=-1)
        attended_BTC = window_attention(
            query_BTC,
            key_BTHD.flatten(2),
            value_BTHD.flatten(2),
            mask_BT,
            num_heads=self.num_heads,
            window=None if self.cross == "global" else self.window,
        )
        x_BTC = self.attended(x_BTC, self.output(attended_BTC))
        x_BTC = self.fed(x_BTC, self.feed(self.norm(x_BTC)))
        return x_BTC * mask_BT[..., None]
