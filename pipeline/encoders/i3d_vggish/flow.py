"""Optical flow as the published I3D of flow was fed by video_features.

Frames are padded for RAFT, and its flow is not cut back: the centre crop is of the padded size.

Shape suffixes: B frames or pairs, C channels, H W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.networks.i3d import SIDE_PX

MULTIPLE_PX = 8
# Pixels a frame; what is faster counts as this.
LIMIT_PX = 20.0


def padded(frames_BCHW: Tensor) -> Tensor:
    """Frames with sides of the next multiple of 8: edges repeated, half before (rounded down) and half after.

    Args:
        frames_BCHW: float.
    """
    height, width = (-side % MULTIPLE_PX for side in frames_BCHW.shape[2:])
    if not height and not width:
        return frames_BCHW
    sides = [width // 2, width - width // 2, height // 2, height - height // 2]
    return F.pad(frames_BCHW, sides, mode="replicate")


def quantised(flow_B2HW: Tensor) -> Tensor:
    """The centre's 224 x 224 pixels in steps of 8 bits: float32 whole numbers (B, 2, 224, 224), 0 to 256.

    128 is rest, halves go to even, and 20 pixels or more make 256, which a byte would not hold: the published code
    keeps it.

    Args:
        flow_B2HW: pixels, at least 224 x 224.

    Raises:
        ValueError: it is smaller.
    """
    height, width = flow_B2HW.shape[2:]
    if min(height, width) < SIDE_PX:
        raise ValueError(f"I3D's flow needs frames of at least {SIDE_PX} x {SIDE_PX} pixels, got {height} x {width}")
    top, left = (height - SIDE_PX) // 2, (width - SIDE_PX) // 2
    held = flow_B2HW[:, :, top : top + SIDE_PX, left : left + SIDE_PX].float().clamp(-LIMIT_PX, LIMIT_PX)
    return torch.round(128 + 255 / (2 * LIMIT_PX) * held)


def prepared(flow_B2HW: Tensor) -> Tensor:
    """What I3D takes of B pairs, float32 (B, 2, 224, 224) in [-1, 257 / 255]; see `quantised`."""
    return 2 * quantised(flow_B2HW) / 255 - 1
