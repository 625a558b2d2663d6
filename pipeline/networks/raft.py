"""RAFT: optical flow between two frames, refined step by step from an all-pairs correlation volume.

Keys are those of the published `raft-sintel.pth`, whose `module.` comes from the wrapper that it was trained in; the
large network, 5.3 M parameters. Places are 8 x 8 pixels; coordinates and the flow are float32 whatever the autocast.

What a step adds needs the coarse flow alone, so the eightfold upsampling and its mask are computed once, after the last
step; and what the recurrent unit takes from the context does not change, so that share of its convolutions is computed
once, before the first. Both leave the result as it is but for rounding.

Shape suffixes: B frames or pairs, C channels, H W pixels (h w positions), N the pairs' positions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.networks.raft_correlation import LEVELS, RADIUS, look_up, pyramid

ITERATIONS = 20
STRIDE_PX = 8
FEATURES, HIDDEN, CONTEXT = 256, 128, 128
# The correlation's coarsest level needs a position. Where it has only one a side, below 128 pixels, the published code
# divides by zero; here its value is read like any other.
MIN_SIDE_PX = STRIDE_PX * 2 ** (LEVELS - 1)
# Keeps the mask's gradients in step with the others' in training; the published weights count on it.
_MASK_SCALE = 0.25


class Raft(nn.Module):
    """Pairs of frames to flow in pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Module()
        self.module.fnet = _Encoder(FEATURES, affine=False)
        self.module.cnet = _Encoder(HIDDEN + CONTEXT, affine=True)
        self.module.update_block = _Update()
        # In a tuple: they are registered under their published names already.
        self._parts = (self.module.fnet, self.module.cnet, self.module.update_block)

    def forward(self, first_BCHW: Tensor, second_BCHW: Tensor, iterations: int = ITERATIONS) -> Tensor:
        """Displacement of each pixel of the first frames in the second: float32 (B, 2, H, W), x then y.

        Args:
            first_BCHW, second_BCHW: float RGB (B, 3, H, W) in [0, 255]; H and W are multiples of 8 and at least 64
                (`pipeline.encoders.i3d_vggish.flow.padded` makes them so).
            iterations: steps; 20 as UnAV-100's features were made.

        Raises:
            ValueError: frames of another shape, or no iteration.
        """
        if first_BCHW.shape != second_BCHW.shape:
            raise ValueError(
                f"optical flow needs frames of one shape, got {tuple(first_BCHW.shape)} and {tuple(second_BCHW.shape)}"
            )
        first_BChw, second_BChw = self._features(torch.cat([first_BCHW, second_BCHW])).tensor_split(2)
        return self.between(first_BChw, second_BChw, self._context(first_BCHW), iterations)

    def encode(self, frames_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """What `flow` needs of each frame: features (B, 256, H / 8, W / 8) and context (B, 256, H / 8, W / 8).

        Args:
            frames_BCHW: as `forward` takes frames.
        """
        return self._features(frames_BCHW), self._context(frames_BCHW)

    def flow(self, features_BChw: Tensor, context_BChw: Tensor, iterations: int = ITERATIONS) -> Tensor:
        """Flow from each frame of a chain to the next: float32 (B - 1, 2, H, W), as `forward` gives it.

        Args:
            features_BChw: of `encode`, B frames in order, at least 2.
            context_BChw: of `encode`, the same frames; the last one's is not used and may be left out.
            iterations: steps.

        Raises:
            ValueError: fewer than two frames, or no iteration.
        """
        pairs = len(features_BChw) - 1
        if pairs < 1 or len(context_BChw) < pairs:
            raise ValueError(
                f"a chain needs two frames or more and the context of all but the last, got {pairs + 1} and "
                f"{len(context_BChw)}"
            )
        return self.between(features_BChw[:-1], features_BChw[1:], context_BChw[:pairs], iterations)

    def between(
        self, first_BChw: Tensor, second_BChw: Tensor, context_BChw: Tensor, iterations: int = ITERATIONS
    ) -> Tensor:
        """Flow of pairs, float32 (B, 2, H, W), from the features of both frames and the context of the first.

        Raises:
            ValueError: no iteration.
        """
        if iterations < 1:
            raise ValueError(f"optical flow needs at least one iteration, got {iterations}")
        update = self._parts[2]
        levels = pyramid(first_BChw, second_BChw)
        hidden, context = torch.tanh(context_BChw[:, :HIDDEN]), F.relu(context_BChw[:, HIDDEN:])
        start_B2hw = _positions(context)
        at_B2hw = start_B2hw
        step = update.prepared(context)
        for _ in range(iterations):
            hidden, change_B2hw = step(hidden, look_up(levels, at_B2hw), at_B2hw - start_B2hw)
            at_B2hw = at_B2hw + change_B2hw.float()
        return upsampled(at_B2hw - start_B2hw, update.weights(hidden))

    def _features(self, frames_BCHW: Tensor) -> Tensor:
        made: Tensor = self._parts[0](_scaled(frames_BCHW))
        return made

    def _context(self, frames_BCHW: Tensor) -> Tensor:
        made: Tensor = self._parts[1](_scaled(frames_BCHW))
        return made


class _Encoder(nn.Module):
    """A small residual network, to an eighth of the size."""

    def __init__(self, outer: int, *, affine: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.norm1 = _norm(64, affine)
        self.layer1 = nn.Sequential(_Residual(64, 64, 1, affine), _Residual(64, 64, 1, affine))
        self.layer2 = nn.Sequential(_Residual(64, 96, 2, affine), _Residual(96, 96, 1, affine))
        self.layer3 = nn.Sequential(_Residual(96, 128, 2, affine), _Residual(128, 128, 1, affine))
        self.conv2 = nn.Conv2d(128, outer, 1)

    def forward(self, frames_BCHW: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(frames_BCHW)))
        made: Tensor = self.conv2(self.layer3(self.layer2(self.layer1(x))))
        return made


class _Residual(nn.Module):
    def __init__(self, channels: int, outer: int, stride: int, affine: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, outer, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        self.norm1 = _norm(outer, affine)
        self.norm2 = _norm(outer, affine)
        self.downsample: nn.Sequential | None = None
        if stride > 1:
            # One module under two names, as in the published file.
            self.norm3 = _norm(outer, affine)
            self.downsample = nn.Sequential(nn.Conv2d(channels, outer, 1, stride=stride), self.norm3)

    def forward(self, x: Tensor) -> Tensor:
        made = F.relu(self.norm1(self.conv1(x)))
        made = F.relu(self.norm2(self.conv2(made)))
        return F.relu((x if self.downsample is None else self.downsample(x)) + made)


class _Update(nn.Module):
    """One step: correlation around the current flow, and the flow, to a change of it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Motion()
        self.gru = _Gru()
        self.flow_head = _Head()
        self.mask = nn.Sequential(
            nn.Conv2d(HIDDEN, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 9 * STRIDE_PX * STRIDE_PX, 1)
        )

    def prepared(self, context: Tensor) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The step for a context: (hidden, correlation, flow) to (hidden, change)."""
        recur = self.gru.prepared(context)

        def step(hidden: Tensor, correlation: Tensor, flow_B2hw: Tensor) -> tuple[Tensor, Tensor]:
            hidden = recur(hidden, self.encoder(correlation, flow_B2hw))
            return hidden, self.flow_head(hidden)

        return step

    def weights(self, hidden: Tensor) -> Tensor:
        """(B, 576, h, w) logits of the nine neighbours' weights for each of a position's 64 pixels."""
        made: Tensor = _MASK_SCALE * self.mask(hidden)
        return made


class _Motion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(LEVELS * (2 * RADIUS + 1) ** 2, 256, 1)
        self.convc2 = nn.Conv2d(256, 192, 3, padding=1)
        self.convf1 = nn.Conv2d(2, 128, 7, padding=3)
        self.convf2 = nn.Conv2d(128, 64, 3, padding=1)
        self.conv = nn.Conv2d(256, 126, 3, padding=1)

    def forward(self, correlation: Tensor, flow_B2hw: Tensor) -> Tensor:
        seen = F.relu(self.convc2(F.relu(self.convc1(correlation))))
        moved = F.relu(self.convf2(F.relu(self.convf1(flow_B2hw))))
        joined = F.relu(self.conv(torch.cat([seen, moved], dim=1)))
        return torch.cat([joined, flow_B2hw.to(joined.dtype)], dim=1)


class _Gru(nn.Module):
    """A gated recurrent unit along rows, then one along columns."""

    def __init__(self) -> None:
        super().__init__()
        channels = HIDDEN + CONTEXT + 128
        for number, kernel in ((1, (1, 5)), (2, (5, 1))):
            for gate in "zrq":
                padding = (kernel[0] // 2, kernel[1] // 2)
                self.add_module(f"conv{gate}{number}", nn.Conv2d(channels, HIDDEN, kernel, padding=padding))

    def prepared(self, context: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The unit for a context: (hidden, motion) to hidden."""
        passes = [self._prepared(context, number) for number in (1, 2)]

        def recur(hidden: Tensor, motion: Tensor) -> Tensor:
            for gates, proposed, of_context, padding in passes:
                known_zr, known_q = of_context
                zr = torch.sigmoid(F.conv2d(torch.cat([hidden, motion], dim=1), gates, padding=padding) + known_zr)
                z, r = zr.chunk(2, dim=1)
                q = torch.tanh(F.conv2d(torch.cat([r * hidden, motion], dim=1), proposed, padding=padding) + known_q)
                hidden = (1 - z) * hidden + z * q
            return hidden

        return recur

    def _prepared(self, context: Tensor, number: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], tuple[int, int]]:
        """Weights that see the hidden state and the motion, and what the context adds, biases with it."""
        z, r, q = (self.get_submodule(f"conv{gate}{number}") for gate in "zrq")
        weight = torch.cat([part.get_parameter("weight") for part in (z, r, q)])
        bias = torch.cat([part.get_parameter("bias") for part in (z, r, q)])
        padding = (weight.shape[2] // 2, weight.shape[3] // 2)
        inner = slice(HIDDEN, HIDDEN + CONTEXT)
        added = F.conv2d(context, weight[:, inner], bias, padding=padding)
        others = torch.cat([weight[:, :HIDDEN], weight[:, HIDDEN + CONTEXT :]], dim=1)
        return others[: 2 * HIDDEN], others[2 * HIDDEN :], (added[:, : 2 * HIDDEN], added[:, 2 * HIDDEN :]), padding


class _Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(HIDDEN, 256, 3, padding=1)
        self.conv2 = nn.Conv2d(256, 2, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        made: Tensor = self.conv2(F.relu(self.conv1(hidden)))
        return made


def _norm(channels: int, affine: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if affine else nn.InstanceNorm2d(channels)


def _scaled(frames_BCHW: Tensor) -> Tensor:
    """To [-1, 1]."""
    shape = tuple(frames_BCHW.shape)
    if len(shape) != 4 or shape[1] != 3 or any(side < MIN_SIDE_PX or side % STRIDE_PX for side in shape[2:]):
        raise ValueError(
            f"RAFT needs frames (B, 3, H, W) with sides that are multiples of {STRIDE_PX} and at least {MIN_SIDE_PX}, "
            f"got {shape}; pad them"
        )
    return 2 * (frames_BCHW.float() / 255) - 1


def _positions(like: Tensor) -> Tensor:
    """(B, 2, h, w): x and y of each position."""
    batch, _, height, width = like.shape
    x_w, y_h = (torch.arange(size, device=like.device, dtype=torch.float32) for size in (width, height))
    grid_2hw = torch.stack([x_w.expand(height, width), y_h[:, None].expand(height, width)])
    return grid_2hw.expand(batch, -1, -1, -1)


def upsampled(flow_B2hw: Tensor, weights: Tensor) -> Tensor:
    """(B, 2, 8h, 8w): each pixel is a weighted mean of its position's and the eight neighbours' flow, times 8."""
    batch, _, height, width = flow_B2hw.shape
    side = STRIDE_PX
    shares = weights.float().view(batch, 1, 9, side, side, height, width).softmax(dim=2)
    near = F.unfold(side * flow_B2hw, 3, padding=1).view(batch, 2, 9, 1, 1, height, width)
    fine = (shares * near).sum(dim=2).permute(0, 1, 4, 2, 5, 3)
    return fine.reshape(batch, 2, side * height, side * width)
