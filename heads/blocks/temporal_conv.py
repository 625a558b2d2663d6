"""Masked convolution over time, the sinusoid of places in time, and residual branches that begin almost closed.

Sequences are (B, T, C) throughout: norms and linear maps then need no transposing, and a norm over channels is
`nn.LayerNorm(C)`, whose eps of 1e-5 is the published one.

B items, T segments, C channels in, O channels out.

Source: Zhang et al., ECCV 2022 (ActionFormer); the branches' scale is LayerScale of Touvron et al., ICCV 2021 (CaiT).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Where the scale of a residual branch starts (published).
INITIAL_SCALE = 1e-4


class MaskedConv(nn.Module):
    """Convolution over time whose result is zero where the segment is not real: (B, T, C) to (B, T / stride, O).

    Padding changes nothing as long as the input is zero there, too.

    Args:
        in_width, out_width: C and O.
        kernel: odd.
        stride: the result stands at every `stride`-th segment, from the first on.
        groups: of channels; `in_width` makes a convolution of each channel for itself.

    Raises:
        ValueError: a size is not positive, the kernel is even, or the groups divide a width with a rest.
    """

    def __init__(
        self, in_width: int, out_width: int, kernel: int = 3, *, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        if min(in_width, out_width, kernel, stride, groups) < 1 or kernel % 2 == 0:
            raise ValueError(
                "a convolution over time needs sizes above 0 and an odd kernel, got "
                f"in_width {in_width}, out_width {out_width}, kernel {kernel}, stride {stride}, groups {groups}"
            )
        self.conv = nn.Conv1d(in_width, out_width, kernel, stride, kernel // 2, groups=groups, bias=bias)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x_BTC: Tensor, mask_BT: Tensor) -> Tensor:
        """The convolution, at `strided(mask_BT, stride)`.

        Args:
            x_BTC: float, finite everywhere.
            mask_BT: bool, the real segments of the input.
        """
        stride = self.conv.stride[0]
        return over_time(x_BTC, self.conv) * strided(mask_BT, stride)[..., None]


class ConvStack(nn.Module):
    """Masked convolutions without bias, each followed by a norm over channels and ReLU: (B, T, C) to (B, T, O).

    Zero outside the mask. (The published code leaves the norm's bias there, which the next convolution then sees.)

    Args:
        in_width, out_width: C and O.
        layers: how many convolutions.
        kernel: odd.
    """

    def __init__(self, in_width: int, out_width: int, *, layers: int = 2, kernel: int = 3) -> None:
        super().__init__()
        widths = [in_width] + [out_width] * layers
        self.convs = nn.ModuleList(MaskedConv(widths[i], widths[i + 1], kernel, bias=False) for i in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(out_width) for _ in range(layers))

    def forward(self, x_BTC: Tensor, mask_BT: Tensor) -> Tensor:
        """The last convolution's output, normalised and rectified.

        Args:
            x_BTC: float, zero outside the mask.
            mask_BT: bool, the real segments.
        """
        for conv, norm in zip(self.convs, self.norms, strict=True):
            assert isinstance(conv, MaskedConv), "made so above"
            # A norm of zeros is its bias: only what comes behind it needs the mask.
            y_BTO = over_time(x_BTC, conv.conv)
            x_BTC = F.relu(norm(y_BTO)) * mask_BT[..., None]
        return x_BTC


def over_time(x_BTC: Tensor, conv: nn.Conv1d) -> Tensor:
    """A convolution over time of channels-last data, (B, T, C) to (B, T / stride, O).

    As one of pictures of height 1 the data stay as they lie in memory, which conv1d would transpose twice: a third
    faster on a CPU, and ten times where each channel is convolved for itself.
    """
    x_BC1T = x_BTC.transpose(1, 2).unsqueeze(2)
    y_BO1T: Tensor = F.conv2d(
        x_BC1T,
        conv.weight.unsqueeze(2),
        conv.bias,
        stride=(1, conv.stride[0]),
        padding=(0, conv.kernel_size[0] // 2),
        groups=conv.groups,
    )
    return y_BO1T.squeeze(2).transpose(1, 2)


def pooled(x_BTC: Tensor, stride: int) -> Tensor:
    """The greatest value of `stride + 1` segments around every `stride`-th, by channel; stride 1 is x itself."""
    if stride == 1:
        return x_BTC
    x_BC1T = x_BTC.transpose(1, 2).unsqueeze(2)
    y_BC1T: Tensor = F.max_pool2d(x_BC1T, (1, stride + 1), (1, stride), (0, (stride + 1) // 2))
    return y_BC1T.squeeze(2).transpose(1, 2)


def strided(mask_BT: Tensor, stride: int) -> Tensor:
    """The mask of every `stride`-th segment."""
    return mask_BT[:, ::stride]


def sinusoid(num_segments: int, width: int, *, device: str | torch.device = "cpu") -> Tensor:
    """Places in time as sines (even channels) and cosines (odd), (T, C) float32 in [-1, 1] / sqrt(C).

    For any length: the published code stretches its table over inputs longer than it has seen in training, so that
    padding would move every place; here places go on.
    """
    # In float64, as published: an angle of some hundred radians loses its last digits in float32.
    places_T1 = torch.arange(num_segments, dtype=torch.float64)[:, None]
    pairs_C = torch.arange(width, dtype=torch.float64).div(2, rounding_mode="floor")
    angles_TC = places_T1 / torch.pow(10000.0, 2 * pairs_C / width)
    even_C = torch.arange(width) % 2 == 0
    values_TC = torch.where(even_C, angles_TC.sin(), angles_TC.cos())
    return (values_TC / math.sqrt(width)).to(device=device, dtype=torch.float32)


class AffineDropPath(nn.Module):
    """A residual branch with a learned scale a channel, which in training leaves out whole items by chance.

    Args:
        width: C.
        drop: the share of items left out in training; the others grow by 1 / (1 - drop).

    Raises:
        ValueError: the width is not positive, or `drop` is not in [0, 1).
    """

    def __init__(self, width: int, drop: float = 0.1) -> None:
        super().__init__()
        if width < 1 or not 0 <= drop < 1:
            raise ValueError(f"a residual branch needs a width above 0 and drop in [0, 1), got {width} and {drop}")
        self.drop = drop
        self.scale = nn.Parameter(torch.full((width,), INITIAL_SCALE))

    def forward(self, residual_BTC: Tensor, branch_BTC: Tensor) -> Tensor:
        """residual + scale x branch, (B, T, C)."""
        scale: Tensor = self.scale
        if self.training and self.drop > 0:
            kept_B11 = torch.rand(len(branch_BTC), 1, 1, device=branch_BTC.device) >= self.drop
            scale = scale * kept_B11.to(scale.dtype) / (1 - self.drop)
        return torch.addcmul(residual_BTC, branch_BTC, scale)
