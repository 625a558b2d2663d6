"""Optical flow of pairs of one video's frames: each frame is encoded once, each pair once.

Shape suffixes: F frames, N pairs, H W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.encoders.i3d_vggish.flow import padded, prepared
from pipeline.networks.inference import arithmetic
from pipeline.networks.raft import Raft


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
    """What I3D takes of each pair, float32 (N, 2, 224, 224) on `device`; see `pipeline.encoders.i3d_vggish.flow`.

    What RAFT makes of frames is kept only while the pairs at hand need it, so memory is bounded by `batch_pairs` and
    the result.

    Args:
        raft: frozen, on `device`.
        frames_FHWC: whole frames of one video, RGB in units of 1/255.
        pairs_N2: numbers of frames, at least one pair; ascending, so that a frame's pairs come together.
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
