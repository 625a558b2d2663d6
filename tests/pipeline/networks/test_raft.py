"""RAFT against the published network's flow under seeded weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.encoders.i3d_vggish.flow import padded
from pipeline.networks.checkpoint import fill
from pipeline.networks.raft import Raft, upsampled
from tests.pipeline import parity


def net_of(state: dict[str, Tensor]) -> Raft:
    with torch.device("meta"):
        net = Raft()
    fill(net, state, where="golden", optional=("num_batches_tracked",))
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def case(shared: Path) -> parity.Case:
    return parity.load(shared, "raft_flow")


@pytest.fixture(scope="module")
def net(case: parity.Case) -> Raft:
    return net_of(case.state)


def test_raft_equals_the_published(shared: Path, case: parity.Case, net: Raft) -> None:
    first, second = padded(case.inputs["image1"]), padded(case.inputs["image2"])
    assert list(first.shape[2:]) == case.meta["pixels"]
    with torch.inference_mode():
        for iterations, key in ((1, "out_iters1"), (4, "out_iters4"), (20, "out")):
            parity.check(shared, case, net(first, second, iterations)[0], key)
        features, context = net.encode(first)
    parity.check(shared, case, features, "mid.fnet")
    parity.check(shared, case, context, "mid.cnet")


def test_keys_are_the_published(shared: Path) -> None:
    told = json.loads((shared / "parity/encoders/raft-sintel.keys.json").read_text())
    with torch.device("meta"):
        net = Raft()
    own = {key: list(value.shape) for key, value in net.state_dict().items()}
    assert own == {key: shape for key, shape, _ in told["tensors"]}
    assert sum(parameter.numel() for parameter in net.parameters()) == told["params"]


def test_chain_shares_frames_and_equals_its_pairs(net: Raft) -> None:
    generator = torch.Generator().manual_seed(0)
    frames = 255 * torch.rand(4, 3, 64, 72, generator=generator)
    with torch.inference_mode():
        features, context = net.encode(frames)
        chain = net.flow(features, context, 3)
        assert chain.shape == (3, 2, 64, 72)
        assert chain.dtype == torch.float32
        # Frames and pairs do not see their batch; a batch of another size rounds otherwise.
        torch.testing.assert_close(chain, net(frames[:-1], frames[1:], 3), rtol=0, atol=1e-4)
        torch.testing.assert_close(chain[1:2], net(frames[1:2], frames[2:3], 3), rtol=0, atol=1e-4)
        torch.testing.assert_close(chain, net.flow(features, context[:-1], 3), rtol=0, atol=1e-4)
        # The chain runs one way.
        assert (chain[1:2] - net(frames[2:3], frames[1:2], 3)).abs().max() > 0.1


def test_upsampling_equals_a_weighted_mean_of_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    flow = torch.randn(1, 2, 3, 4, generator=generator)
    weights = torch.randn(1, 576, 3, 4, generator=generator)
    fine = upsampled(flow, weights)
    assert fine.shape == (1, 2, 24, 32)
    around = F.pad(flow, (1, 1, 1, 1))
    for row, column in ((0, 0), (23, 31), (9, 20), (16, 7)):
        y, x, inner = row // 8, column // 8, (row % 8) * 8 + column % 8
        shares = weights[0, :, y, x].view(9, 64)[:, inner].softmax(dim=0)
        near = around[0, :, y : y + 3, x : x + 3].reshape(2, 9)
        torch.testing.assert_close(fine[0, :, row, column], 8 * (near * shares).sum(dim=1))


def test_half_precision_keeps_coordinates_in_float32(net: Raft) -> None:
    generator = torch.Generator().manual_seed(0)
    frames = 255 * torch.rand(2, 3, 64, 64, generator=generator)
    with torch.inference_mode():
        exact = net(frames[:1], frames[1:], 2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = net(frames[:1], frames[1:], 2)
    assert rough.dtype == torch.float32
    # bfloat16 keeps 8 bits, and there are some 30 layers between.
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()


def test_other_pictures_are_refused(net: Raft) -> None:
    with pytest.raises(ValueError, match=r"multiples of 8 and at least 64, got \(1, 3, 66, 64\); pad them"):
        net.encode(torch.zeros(1, 3, 66, 64))
    with pytest.raises(ValueError, match=r"got \(1, 3, 56, 64\)"):
        net.encode(torch.zeros(1, 3, 56, 64))
    with pytest.raises(ValueError, match="frames of one shape"):
        net(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 72, 64))
    maps = torch.zeros(2, 256, 8, 8)
    with pytest.raises(ValueError, match="two frames or more and the context of all but the last, got 1 and 1"):
        net.flow(maps[:1], maps[:1])
    with pytest.raises(ValueError, match="two frames or more and the context of all but the last, got 2 and 0"):
        net.flow(maps, maps[:0])
    with pytest.raises(ValueError, match="at least one iteration, got 0"):
        net.flow(maps, maps, 0)
