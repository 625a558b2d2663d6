"""CLIP's image tower of the ResNet kind, as in CLIP RN50 and AudioCLIP: images to one vector each.

A ResNet whose stem has three convolutions, whose strides are average pools, and whose last pool is attention with the
mean of all positions as its only query. Keys are those of the published state dict without the prefix `visual.`.

Shape suffixes: B images, C channels, H W pixels, P positions and the mean before them, D width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from catalog.fields import EvenSize, Size, check_fields
from pipeline.networks.checkpoint import stage_blocks

# Channels grow by this within a block.
EXPANSION = 4
# Of one attention head; CLIP's networks of all sizes have it.
HEAD_WIDTH = 64


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes; the defaults are the published ones (CLIP RN50, 38.3 M parameters).

    Attributes:
        blocks: bottlenecks of the four stages.
        width: channels after the stem; the last stage has 32 times as many.
        image_px: side of the image, a multiple of 32.
        embedding: D.
    """

    blocks: tuple[Size, Size, Size, Size] = (3, 4, 6, 3)
    width: EvenSize = 64
    image_px: Annotated[int, Field(ge=32, multiple_of=32)] = 224
    embedding: Size = 1024

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def positions(self) -> int:
        """Places of the last stage's map."""
        return (self.image_px // 32) ** 2

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
            positions = state["attnpool.positional_embedding"].shape[0] - 1
            side = round(positions**0.5)
            return cls(
                blocks=blocks,
                width=int(state["conv3.weight"].shape[0]),
                image_px=32 * side,
                embedding=int(state["attnpool.c_proj.weight"].shape[0]),
            )
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"not the state dict of a CLIP ResNet ({error})") from error


class ClipResNet(nn.Module):
    """Normalised images to unnormalised features."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        channels = width
        for stage, count in enumerate(config.blocks):
            inner = width * 2**stage
            blocks = []
            for block in range(count):
                blocks.append(_Bottleneck(channels, inner, stride=2 if stage and not block else 1))
                channels = inner * EXPANSION
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.attnpool = _AttentionPool(config.positions, channels, config.embedding)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """(B, D) features, unnormalised.

        Args:
            images_BCHW: (B, 3, image_px, image_px), normalised by CLIP's mean and deviation.

        Raises:
            ValueError: images of another size.
        """
        side = self.config.image_px
        if tuple(images_BCHW.shape[1:]) != (3, side, side):
            raise ValueError(f"the image tower takes (B, 3, {side}, {side}), got {tuple(images_BCHW.shape)}")
        x = F.relu(self.bn1(self.conv1(images_BCHW)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.avg_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        for stage in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{stage}")(x)
        features_BD: Tensor = self.attnpool(x)
        return features_BD


class _Bottleneck(nn.Module):
    """1x1, 3x3, 1x1; a stride is an average pool before the last convolution and before the shortcut's."""

    def __init__(self, channels: int, inner: int, *, stride: int) -> None:
        super().__init__()
        outer = inner * EXPANSION
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outer, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outer)
        self.stride = stride
        self.downsample: nn.Sequential | None = None
        if stride > 1 or channels != outer:
            # Numbers as published: the pool has no parameters and no number.
            parts = OrderedDict([("0", nn.Conv2d(channels, outer, 1, bias=False)), ("1", nn.BatchNorm2d(outer))])
            self.downsample = nn.Sequential(parts)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride)
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class _AttentionPool(nn.Module):
    """Attention over all positions with their mean as the query."""

    def __init__(self, positions: int, width: int, embedding: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(positions + 1, width) / width**0.5)
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, embedding)
        self.num_heads = max(1, width // HEAD_WIDTH)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        positions_BPC = map_BCHW.flatten(2).transpose(1, 2)
        x_BPC = torch.cat([positions_BPC.mean(dim=1, keepdim=True), positions_BPC], dim=1) + self.positional_embedding
        query, key, value = self.q_proj(x_BPC[:, :1]), self.k_proj(x_BPC), self.v_proj(x_BPC)
        heads = [part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (query, key, value)]
        pooled = F.scaled_dot_product_attention(*heads)
        features_BD: Tensor = self.c_proj(pooled.transpose(1, 2).flatten(1))
        return features_BD
