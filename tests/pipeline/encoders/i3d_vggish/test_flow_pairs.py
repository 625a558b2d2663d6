"""Flow of pairs that share frames, against each pair by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.encoders.i3d_vggish.flow import padded, prepared
from pipeline.encoders.i3d_vggish.flow_pairs import pair_flows
from pipeline.networks.raft import Raft
from pipeline.unit import one_thread


@pytest.fixture(scope="module")
def raft() -> Raft:
    torch.manual_seed(0)
    return Raft().eval()


def test_pairs_equal_each_by_itself_over_the_end_of_a_batch(raft: Raft) -> None:
    # Not only neighbours: a pair may skip a frame, and the second batch needs a frame of the first.
    frames = np.random.default_rng(0).integers(0, 256, (4, 224, 230, 3), dtype=np.uint8)
    pairs = np.array([[0, 1], [0, 2], [1, 3]])
    with one_thread():
        made = pair_flows(raft, frames, pairs, iterations=1, device="cpu", precision="float32", batch_pairs=2)
    assert made.shape == (3, 2, 224, 224)
    shown = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    with one_thread(), torch.inference_mode():
        for number, (a, b) in enumerate(pairs.tolist()):
            want = prepared(raft(padded(shown[a : a + 1]), padded(shown[b : b + 1]), 1))[0]
            apart = (made[number] - want).abs()
            # A flow on the edge between two of the 256 steps may fall to either: one step, seldom.
            assert apart.max() <= 2 / 255 + 1e-6
            assert (apart > 1e-6).float().mean() < 1e-3
            assert want.std() > 1e-3
    assert (made[0] - made[1]).abs().max() > 2 / 255
