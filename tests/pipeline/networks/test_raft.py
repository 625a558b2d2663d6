"""RAFT against the published network's flow under seeded weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.checkpoint import fill
from pipeline.i3d_flow import padded
from pipeline.networks.raft import Raft
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
