"""I3D of both layouts against the published networks' outputs under seeded weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.checkpoint import fill
from pipeline.networks.i3d import Config, I3d
from tests.pipeline import parity


def net_of(state: dict[str, Tensor]) -> I3d:
    with torch.device("meta"):
        net = I3d(Config.of(state))
    fill(net, state, where="golden", optional=("num_batches_tracked",))
    return net.eval().requires_grad_(False)


def compare(shared: Path, name: str) -> None:
    case = parity.load(shared, name)
    net = net_of(case.state)
    seen: dict[str, Tensor] = {}
    names = {key.removeprefix("mid.").lower(): key for key in case.want if key.startswith("mid.")}
    for path, module in net.named_children():
        if path.lower() in names:
            key = names[path.lower()]
            module.register_forward_hook(lambda module, inputs, made, key=key: seen.__setitem__(key, made))
    with torch.inference_mode():
        steps = net.steps(case.inputs["x"])
        logits = net.class_logits(steps)
    if net.config.layout == "hassony2":
        parity.check(shared, case, steps, "avg_pool")
        parity.check(shared, case, steps.mean(dim=2))
        parity.check(shared, case, logits.mean(dim=2), "logits")
    else:
        parity.check(shared, case, steps)
        parity.check(shared, case, logits, "logits")
    assert len(seen) >= 6
    for key, value in seen.items():
        parity.check(shared, case, value, key)


@pytest.mark.parametrize("name", ["hassony2_rgb_17x224", "piergiaj_rgb_17x224"])
def test_i3d_equals_the_published(shared: Path, name: str) -> None:
    compare(shared, f"i3d_{name}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("hassony2_flow_24x224", "hassony2_rgb_24x224", "hassony2_rgb_64x224"),
        *("piergiaj_flow_24x224", "piergiaj_rgb_24x224"),
    ],
)
def test_i3d_of_more_frames_equals_the_published(shared: Path, name: str) -> None:
    compare(shared, f"i3d_{name}")
