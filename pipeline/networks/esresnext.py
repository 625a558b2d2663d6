"""AudioCLIP's audio tower: ESResNeXt-fbsp, raw audio at 44.1 kHz to one vector.

A learnt time-frequency transform (complex frequency B-splines) in place of the Fourier transform, its power in three
bands as the three channels of an image, a ResNeXt-50 (32 x 4d), and after each stage a mask computed from the stage's
input. Keys are those of the published state dict without the prefix `audio.`.

The transform's filters depend on parameters alone: in evaluation they are made once. Power spans 18 decades, so the
transform, the decibels and the first convolution with its norm are float32 whatever the autocast.

Shape suffixes: B waveforms, N samples, T frames, L samples a frame, Q filters, F frequencies of a band, C channels.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from catalog.fields import Size, check_fields
from pipeline.networks.checkpoint import stage_blocks

EXPANSION = 4
# Of the frame in samples; Blackman-Harris, padded with zeros to FILTER_SIZE.
WINDOW_SIZE, HOP_SIZE, FILTER_SIZE = 1654, 561, 2048
BANDS = 3
_SILENCE = 1e-18
_TINY = 1e-8
# Of the masks' depthwise convolutions: along frequency, along time, in turn; the last one sees both.
_MASK_KERNELS = ((3, 1), (1, 5), (3, 1), (1, 5), (3, 5))


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes; the defaults are the published ones (32.1 M parameters).

    Attributes:
        blocks: bottlenecks of the four stages.
        width: channels after the first convolution; stage k has width 2^k inner and 4 times as many outer channels.
        groups: of the 3x3 convolutions; the inner width of a block is twice the stage's.
        filters: Q, complex filters; the first 3 (Q // 3) make the image.
        embedding: D.
    """

    blocks: tuple[Size, Size, Size, Size] = (3, 4, 6, 3)
    width: Size = 64
    groups: Size = 32
    filters: Annotated[int, Field(ge=BANDS)] = 1025
    embedding: Size = 1024

    def __post_init__(self) -> None:
        check_fields(self)
        if 2 * self.width % self.groups:
            raise ValueError(f"an ESResNeXt's groups must divide twice its width, got {self}")

    @classmethod
    def published(cls) -> Config:
        """The sizes of the published checkpoint."""
        return cls()

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Config:
        """The sizes that a state dict (keys without prefix) speaks of.

        Raises:
            ValueError: it is no such network's.
        """
        try:
            blocks = stage_blocks(state)
            inner, grouped = state["layer1.0.conv2.weight"].shape[:2]
            return cls(
                blocks=blocks,
                width=int(state["conv1.weight"].shape[0]),
                groups=int(inner // grouped),
                filters=int(state["fbsp.fc"].shape[0]),
                embedding=int(state["fc.weight"].shape[0]),
            )
        except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
            raise ValueError(f"not the state dict of an ESResNeXt-fbsp ({error})") from error


class EsResNeXt(nn.Module):
    """Sound to unnormalised features."""

    window: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.fbsp = _SplineFilters(config.filters)
        self.register_buffer("window", blackman_harris(WINDOW_SIZE))
        width = config.width
        self.conv1 = nn.Conv2d(BANDS, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for stage, count in enumerate(config.blocks):
            outer = width * 2**stage * EXPANSION
            blocks = [
                _Bottleneck(
                    channels if not block else outer, outer, config.groups, stride=2 if stage and not block else 1
                )
                for block in range(count)
            ]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            setattr(self, f"att{stage + 1}", _Mask(channels, outer, _MASK_KERNELS[stage]))
            channels = outer
        self.att5 = _Mask(channels, channels, _MASK_KERNELS[4])
        self.fc = nn.Linear(channels, config.embedding)

    def forward(self, sound_BN: Tensor) -> Tensor:
        """(B, D) features, unnormalised.

        Args:
            sound_BN: float32 mono at 44.1 kHz in the int16 range, +-32768, at least one sample.
        """
        # Decibels reach 100 with steps of tenths that matter, and the first convolution's output has a mean far above
        # its spread: bfloat16, with 8 bits, keeps neither.
        with torch.autocast(sound_BN.device.type, enabled=False):
            x = self.bn1(self.conv1(self.spectrogram(sound_BN)))
        x = F.max_pool2d(F.relu(x), 3, stride=2, padding=1)
        for stage in (1, 2, 3, 4):
            made = self.get_submodule(f"layer{stage}")(x)
            x = made * self.get_submodule(f"att{stage}")(x, made.shape[-2:])
        pooled = x.mean(dim=(2, 3), keepdim=True) * self.att5(x, (1, 1))
        features_BD: Tensor = self.fc(pooled.flatten(1))
        return features_BD

    def spectrogram(self, sound_BN: Tensor) -> Tensor:
        """Power in decibels, (B, 3, F, T): low, middle and high frequencies as channels."""
        with torch.autocast(sound_BN.device.type, enabled=False):
            # The published scaling of 16-bit integers to [-1, 1]: zero becomes 1.5e-5.
            scaled_BN = 2 * (sound_BN.float() + 32768) / 65535 - 1
            frames_BTL = frames_of(scaled_BN) * self.window
            power_BTQ = self.fbsp(frames_BTL)
            band = self.config.filters // BANDS
            power_BTQ = power_BTQ[..., : BANDS * band]
            silent = torch.where(power_BTQ > 0, power_BTQ, _SILENCE)
            decibels = 10 * torch.log10(silent)
            return decibels.view(*decibels.shape[:2], BANDS, band).permute(0, 2, 3, 1)


def frames_of(sound_BN: Tensor) -> Tensor:
    """Overlapping frames, (B, T, 1654): as many as reach the end, missing samples are zeros on both sides."""
    size = sound_BN.shape[-1]
    count = 1 if size <= WINDOW_SIZE else 1 + math.ceil((size - WINDOW_SIZE) / HOP_SIZE)
    missing = (count - 1) * HOP_SIZE + WINDOW_SIZE - size
    padded = F.pad(sound_BN, (missing // 2, missing - missing // 2))
    return padded.unfold(-1, WINDOW_SIZE, HOP_SIZE)


def blackman_harris(size: int) -> Tensor:
    """The periodic 4-term Blackman-Harris window, float32."""
    turn = 2 * math.pi * torch.arange(size, dtype=torch.float64) / size
    terms = (0.35875, -0.48829, 0.14128, -0.01168)
    window: Tensor = sum((term * torch.cos(k * turn) for k, term in enumerate(terms)), torch.zeros(()))
    return window.float()


class _SplineFilters(nn.Module):
    """Complex frequency B-spline wavelets: the power of each frame at each of them."""

    _made: tuple[Tensor, Tensor] | None

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.zeros(filters))
        self.fb = nn.Parameter(torch.ones(filters))
        self.fc = nn.Parameter(torch.arange(filters, dtype=torch.float32))
        # An empty tensor of the published file; the transform has no bias.
        self.bias = nn.Parameter(torch.zeros(0), requires_grad=False)
        self._made = None

    def forward(self, frames_BTL: Tensor) -> Tensor:
        real_LQ, imaginary_LQ = self._filters()
        return (frames_BTL @ real_LQ).square() + (frames_BTL @ imaginary_LQ).square()

    def _filters(self) -> tuple[Tensor, Tensor]:
        """(1654, Q) twice: the middle part of the filters, all that meets a sample."""
        if self.training or self.fc.requires_grad:
            self._made = None
            return self.filters()
        if self._made is None or self._made[0].device != self.fc.device:
            self._made = self.filters()
        return self._made

    def filters(self) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of every filter, float32 (1654, Q)."""
        t_L = math.pi * torch.linspace(-1, 1, FILTER_SIZE, device=self.fc.device) + _TINY
        phase_QL = self.fc[:, None] * t_L
        argument_QL = self.fb[:, None] * t_L / (self.m[:, None] + _TINY)
        base_QL = torch.where(argument_QL == 0, 1.0, torch.sin(argument_QL) / argument_QL)
        # base^m as a complex power: a negative base has the phase pi m.
        size_QL = base_QL.abs().clamp_min(torch.finfo(torch.float32).tiny).pow(self.m[:, None])
        turn_QL = torch.where(base_QL < 0, math.pi * self.m[:, None], torch.zeros((), device=t_L.device))
        scale_QL = size_QL * self.fb[:, None].sqrt() / math.sqrt(FILTER_SIZE)
        # cos(x) - i sin(x), turned: cos(turn - x) + i sin(turn - x).
        real_LQ = (scale_QL * torch.cos(turn_QL - phase_QL)).T
        imaginary_LQ = (scale_QL * torch.sin(turn_QL - phase_QL)).T
        edge = (FILTER_SIZE - WINDOW_SIZE) // 2
        inner = slice(edge, edge + WINDOW_SIZE)
        return real_LQ[inner].contiguous(), imaginary_LQ[inner].contiguous()


class _Bottleneck(nn.Module):
    """ResNeXt's block: 1x1, grouped 3x3 with the stride, 1x1."""

    def __init__(self, channels: int, outer: int, groups: int, *, stride: int) -> None:
        super().__init__()
        inner = outer // 2
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outer, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outer)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or channels != outer:
            parts = OrderedDict(
                [("0", nn.Conv2d(channels, outer, 1, stride=stride, bias=False)), ("1", nn.BatchNorm2d(outer))]
            )
            self.downsample = nn.Sequential(parts)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class _Mask(nn.Module):
    """A stage's input, pooled to the size of its output, to a factor in (0, 1) a channel and position."""

    def __init__(self, channels: int, outer: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv_depth = nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels)
        self.conv_point = nn.Conv2d(channels, outer, 1)
        self.bn = nn.BatchNorm2d(outer)

    def forward(self, x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
        pooled = F.adaptive_max_pool2d(x, tuple(size))
        return torch.sigmoid(self.bn(self.conv_point(self.conv_depth(pooled))))
