"""Optical flow of pairs of one video's frames, prepared for I3D as video_features does.

Each frame is encoded once, each pair once. Frames are padded for RAFT, and its flow is not cut back: the centre crop is
of the padded size.

Shape suffixes: F frames, N pairs, B frames or pairs, C channels, H W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.networks.i3d import SIDE_PX
from pipeline.networks.inference import arithmetic
from pipeline.networks.raft import Raft

MULTIPLE_PX = 8
# Pixels a frame; faster motion counts as this.
LIMIT_PX = 20.0


def pair_flows(
    raft: Raft,
    frames_FHWC: NDArray[np.uint8 | np.float32],
    pairs_N2: NDArray[np.integer],
    *,
    iterations: int,
    device: str,
    precision: str,
    batch_pairs: int,
) -> Tensor:
    """I3D's input of each pair, float32 (N, 2, 224, 224) on `device`; see `prepared`.

    RAFT's features of a frame are kept only while the pairs at hand need it, so memory is bounded by `batch_pairs` and
    the result.

    Args:
        raft: frozen, on `device`.
        frames_FHWC: whole frames of one video, RGB in units of 1/255.
        pairs_N2: indices of frames, at least one pair; ascending, so that a frame's pairs come together.
        iterations: RAFT's.
        precision: see `pipeline.networks.inference.arithmetic`.
        batch_pairs: how many go through RAFT at once.
    """
    held: dict[int, tuple[Tensor, Tensor]] = {}
    made = []
    for low in range(0, len(pairs_N2), batch_pairs):
        batch_N2 = pairs_N2[low : low + batch_pairs]
        wanted = np.unique(batch_N2).tolist()
        held = {number: held[number] for number in wanted if number in held}
        new = [number for number in wanted if number not in held]
        with arithmetic(device, precision):
            if new:
                frames = torch.from_numpy(frames_FHWC[new]).to(device).permute(0, 3, 1, 2).float()
                features, context = raft.encode(padded(frames))
                held |= {number: (features[i], context[i]) for i, number in enumerate(new)}
            first, second = ([held[number] for number in column.tolist()] for column in batch_N2.T)
            flow = raft.between(
                torch.stack([features for features, _ in first]),
                torch.stack([features for features, _ in second]),
                torch.stack([context for _, context in first]),
                iterations,
            )
            made.append(prepared(flow))
    return torch.cat(made)


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
    """I3D's input of B pairs, float32 (B, 2, 224, 224) in [-1, 257 / 255]; see `quantised`."""
    return 2 * quantised(flow_B2HW) / 255 - 1
