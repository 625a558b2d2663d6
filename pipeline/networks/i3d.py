"""I3D: Inception with its filters inflated to time, clips of frames or of optical flow to vectors.

There are two published sets of weights of the same numbers. They differ in their keys, in how the edges are padded and
in BatchNorm's eps, so they give different features; `LAYOUTS` holds the differences and `Config.of` reads the layout
from the keys:

- "piergiaj" (`rgb_imagenet.pt`, `flow_imagenet.pt`): padding by TensorFlow's rule "SAME", from the actual size;
- "hassony2" (`i3d_rgb.pt`, `i3d_flow.pt`, as UnAV-100's features were made): a fixed padding and pools that round up.

For sizes that halve evenly the two agree on shapes; of 17 frames they make 3 and 2 time steps.

Shape suffixes: B clips, C colours (or the two directions of flow), T frames, H W pixels, D features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from catalog.fields import check_fields

LayoutName = Literal["piergiaj", "hassony2"]
Modality = Literal["rgb", "flow"]

SIDE_PX = 224
CHANNELS: Mapping[str, int] = {"rgb": 3, "flow": 2}
WIDTH, CLASSES = 64, 400
# Positions and time steps that the last average sees.
_POOL_SIDE, _POOL_STEPS = 7, 2

Size = tuple[int, int, int]


class Conv(NamedTuple):
    """A cubic convolution, its BatchNorm and a ReLU."""

    channels: int
    kernel: int
    stride: int = 1


class Pool(NamedTuple):
    """A max pool."""

    kernel: Size
    stride: Size


class Block(NamedTuple):
    """Channels of an Inception block's convolutions: 1x1; 1x1 then 3x3; 1x1 then 3x3; 1x1 after a pool."""

    one: int
    to_first: int
    first: int
    to_second: int
    second: int
    pooled: int


# In front of an Inception block's last convolution.
_AROUND = Pool((3, 3, 3), (1, 1, 1))
_LAST = Block(384, 192, 384, 48, 128, 128)
# As published; names are TensorFlow's.
TRUNK: Mapping[str, Conv | Pool | Block] = {
    "Conv3d_1a_7x7": Conv(64, 7, 2),
    "MaxPool3d_2a_3x3": Pool((1, 3, 3), (1, 2, 2)),
    "Conv3d_2b_1x1": Conv(64, 1),
    "Conv3d_2c_3x3": Conv(192, 3),
    "MaxPool3d_3a_3x3": Pool((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": Block(64, 96, 128, 16, 32, 32),
    "Mixed_3c": Block(128, 128, 192, 32, 96, 64),
    "MaxPool3d_4a_3x3": Pool((3, 3, 3), (2, 2, 2)),
    "Mixed_4b": Block(192, 96, 208, 16, 48, 64),
    "Mixed_4c": Block(160, 112, 224, 24, 64, 64),
    "Mixed_4d": Block(128, 128, 256, 24, 64, 64),
    "Mixed_4e": Block(112, 144, 288, 32, 64, 64),
    "Mixed_4f": Block(256, 160, 320, 32, 128, 128),
    "MaxPool3d_5a_2x2": Pool((2, 2, 2), (2, 2, 2)),
    "Mixed_5b": Block(256, 160, 320, 32, 128, 128),
    "Mixed_5c": _LAST,
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What one published set of weights has of its own.

    Attributes:
        lower: names of the trunk's parts are in small letters.
        branches: names of an Inception block's six convolutions.
        norm, logits: names of a BatchNorm and of the classifier.
        eps: BatchNorm's.
        same: edges are padded for the actual size as TensorFlow does; else for a multiple of the stride, and pools
            round up.
        least_frames: of a clip, for two time steps in the end.
    """

    lower: bool
    branches: tuple[str, str, str, str, str, str]
    norm: str
    logits: str
    eps: float
    same: bool
    least_frames: int

    def named(self, part: str) -> str:
        """A part of the trunk as this layout calls it."""
        return part.lower() if self.lower else part

    def padding(self, size: int, kernel: int, stride: int) -> tuple[int, int]:
        """Zeros before and after `size` positions."""
        reach = (math.ceil(size / stride) - 1) * stride + kernel - size if self.same else kernel - stride
        total = max(reach, 0)
        return total // 2, total - total // 2


LAYOUTS: Mapping[str, Layout] = {
    "piergiaj": Layout(
        lower=False,
        branches=("b0", "b1a", "b1b", "b2a", "b2b", "b3b"),
        norm="bn",
        logits="logits",
        eps=1e-3,
        same=True,
        least_frames=9,
    ),
    "hassony2": Layout(
        lower=True,
        branches=("branch_0", "branch_1.0", "branch_1.1", "branch_2.0", "branch_2.1", "branch_3.1"),
        norm="batch3d",
        logits="conv3d_0c_1x1",
        eps=1e-5,
        same=False,
        least_frames=10,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which published network, and its sizes.

    Attributes:
        layout: of keys, padding and eps; see `LAYOUTS`.
        modality: what it looks at.
        width: channels of the first convolution; all others are published for 64 and scale with it, rounded down.
        classes: K.
    """

    layout: LayoutName
    modality: Modality
    width: Annotated[int, Field(ge=4)] = WIDTH
    classes: Annotated[int, Field(ge=1)] = CLASSES

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def features(self) -> int:
        """D: 1024 as published."""
        return sum(map(self.scaled, (_LAST.one, _LAST.first, _LAST.second, _LAST.pooled)))

    def scaled(self, channels: int) -> int:
        """Channels here where the published network has `channels`."""
        return channels * self.width // WIDTH

    @classmethod
    def published(cls, layout: LayoutName, modality: Modality) -> Config:
        """The sizes of a published file."""
        return cls(layout=layout, modality=modality)

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Config:
        """The layout, modality and sizes that a state dict speaks of.

        Raises:
            ValueError: it is no I3D's.
        """
        modalities: Mapping[int, Modality] = {3: "rgb", 2: "flow"}
        names: tuple[LayoutName, ...] = ("piergiaj", "hassony2")
        for name in names:
            first = state.get(f"{LAYOUTS[name].named('Conv3d_1a_7x7')}.conv3d.weight")
            last = state.get(f"{LAYOUTS[name].logits}.conv3d.weight")
            if first is not None and last is not None and first.ndim == last.ndim == 5 and first.shape[1] in modalities:
                width, channels = first.shape[:2]
                return cls(layout=name, modality=modalities[channels], width=int(width), classes=int(last.shape[0]))
        raise ValueError(
            "not the state dict of an I3D: needs Conv3d_1a_7x7.conv3d.weight and logits.conv3d.weight (piergiaj), or "
            "conv3d_1a_7x7.conv3d.weight and conv3d_0c_1x1.conv3d.weight (hassony2), of 3 colours or 2 directions"
        )


class I3d(nn.Module):
    """Clips to features; keys are those of the layout's published files."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        layout = LAYOUTS[config.layout]
        channels = CHANNELS[config.modality]
        # In a list: they are registered under their published names already.
        self._trunk: list[nn.Module] = []
        for name, part in TRUNK.items():
            module: nn.Module
            if isinstance(part, Pool):
                module = _Pool(layout, part)
            elif isinstance(part, Conv):
                outer = config.scaled(part.channels)
                module = _Conv(layout, channels, outer, part.kernel, part.stride)
                channels = outer
            else:
                module = _Block(layout, channels, Block(*map(config.scaled, part)))
                channels = module.channels
            self.add_module(layout.named(name), module)
            self._trunk.append(module)
        classifier = nn.Module()
        classifier.conv3d = nn.Conv3d(channels, config.classes, 1)
        self.add_module(layout.logits, classifier)
        self._classifier = [classifier.conv3d]

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        """(B, D) features: the mean over time of `steps`.

        Args:
            clips_BCTHW: see `steps`.
        """
        return self.steps(clips_BCTHW).mean(dim=2)

    def steps(self, clips_BCTHW: Tensor) -> Tensor:
        """(B, D, T / 8 - 1) features in time, none below 0; where 8 does not divide T, each layout has its own count.

        piergiaj's own extraction keeps them; video_features, and with it UnAV-100, takes their mean.

        Args:
            clips_BCTHW: float (B, 3 or 2, T, 224, 224) in [-1, 1]: frames as 2x / 255 - 1, flow as
                `pipeline.encoders.i3d_vggish.flow` makes it. T is at least 9 in piergiaj's layout, 10 in hassony2's.

        Raises:
            ValueError: clips of another shape.
        """
        channels = CHANNELS[self.config.modality]
        if clips_BCTHW.ndim != 5 or clips_BCTHW.shape[1] != channels or clips_BCTHW.shape[3:] != (SIDE_PX, SIDE_PX):
            raise ValueError(
                f"this I3D needs clips (B, {channels}, T, {SIDE_PX}, {SIDE_PX}), got {tuple(clips_BCTHW.shape)}"
            )
        least = LAYOUTS[self.config.layout].least_frames
        if clips_BCTHW.shape[2] < least:
            raise ValueError(f"an I3D ({self.config.layout}) needs at least {least} frames, got {clips_BCTHW.shape[2]}")
        x = clips_BCTHW
        for part in self._trunk:
            x = part(x)
        return F.avg_pool3d(x, (_POOL_STEPS, _POOL_SIDE, _POOL_SIDE), stride=1).flatten(2)

    def class_logits(self, steps_BDT: Tensor) -> Tensor:
        """(B, K, T) logits of Kinetics' classes of what `steps` made; a clip's are their mean over time."""
        made: Tensor = self._classifier[0](steps_BDT[..., None, None])
        return made.flatten(2)


class _Conv(nn.Module):
    def __init__(self, layout: Layout, channels: int, outer: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.layout, self.kernel, self.stride = layout, kernel, stride
        self.conv3d = nn.Conv3d(channels, outer, kernel, stride=stride, bias=False)
        norm = nn.BatchNorm3d(outer, eps=layout.eps)
        self.add_module(layout.norm, norm)
        self._norm = [norm]

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        x_BCTHW = _padded(x_BCTHW, self.layout, self.kernel, self.stride)
        return F.relu(self._norm[0](self.conv3d(x_BCTHW)), inplace=True)


class _Pool(nn.Module):
    def __init__(self, layout: Layout, pool: Pool) -> None:
        super().__init__()
        self.layout, self.pool = layout, pool

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return max_pool(x_BCTHW, self.layout, self.pool)


class _Block(nn.Module):
    """Four branches side by side."""

    def __init__(self, layout: Layout, channels: int, block: Block) -> None:
        super().__init__()
        self._layout = layout
        self.channels = block.one + block.first + block.second + block.pooled
        self._branches = [
            _Conv(layout, channels, block.one, 1),
            _Conv(layout, channels, block.to_first, 1),
            _Conv(layout, block.to_first, block.first, 3),
            _Conv(layout, channels, block.to_second, 1),
            _Conv(layout, block.to_second, block.second, 3),
            _Conv(layout, channels, block.pooled, 1),
        ]
        for path, module in zip(layout.branches, self._branches, strict=True):
            *above, name = path.split(".")
            parent: nn.Module = self
            for step in above:
                if step not in dict(parent.named_children()):
                    parent.add_module(step, nn.Module())
                parent = parent.get_submodule(step)
            parent.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        one, to_first, first, to_second, second, pooled = self._branches
        highest = max_pool(x, self._layout, _AROUND)
        return torch.cat([one(x), first(to_first(x)), second(to_second(x)), pooled(highest)], dim=1)


def _padded(x_BCTHW: Tensor, layout: Layout, kernel: int, stride: int) -> Tensor:
    sides = [layout.padding(size, kernel, stride) for size in x_BCTHW.shape[2:]]
    if not any(map(any, sides)):
        return x_BCTHW
    # Torch counts from the last dimension.
    return F.pad(x_BCTHW, [zeros for side in reversed(sides) for zeros in side])


def max_pool(x_BCTHW: Tensor, layout: Layout, pool: Pool) -> Tensor:
    """A max pool, one direction after the other: on a CPU torch's takes a third of the network's time, this one 3 %.

    The published pools pad with zeros; x is a ReLU's, so these change nothing and are left out.
    """
    for dim, (kernel, stride) in enumerate(zip(*pool, strict=True), 2):
        if kernel > 1:
            x_BCTHW = _max_along(x_BCTHW, dim, kernel, stride, layout.padding(x_BCTHW.shape[dim], kernel, stride)[0])
    return x_BCTHW


def _max_along(x: Tensor, dim: int, kernel: int, stride: int, before: int) -> Tensor:
    """Both layouts have as many windows as strides begin; `before` positions of the first one lie outside."""
    size = x.shape[dim]
    count = -(-size // stride)
    every = (slice(None),) * dim
    made = x[(*every, slice(0, None, stride))].clone()  # of each window the position that always lies inside
    for shift in range(-before, kernel - before):
        low, high = max(0, -(shift // stride)), min(count, -((shift - size) // stride))
        if shift and low < high:
            window = made[(*every, slice(low, high))]
            torch.maximum(
                window, x[(*every, slice(low * stride + shift, None, stride))].narrow(dim, 0, high - low), out=window
            )
    return made
