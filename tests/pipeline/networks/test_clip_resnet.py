"""CLIP's ResNet against the published network's outputs under seeded weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.networks.checkpoint import fill
from pipeline.networks.clip_resnet import ClipResNet, Config
from tests.pipeline import parity


def test_clip_resnet_equals_the_published(shared: Path) -> None:
    case = parity.load(shared, "audioclip_image")
    with torch.device("meta"):
        net = ClipResNet(Config.published())
    fill(net, case.state, where="golden", prefix="visual.")
    seen: dict[str, torch.Tensor] = {}
    for stage in (1, 2, 3, 4):
        net.get_submodule(f"layer{stage}").register_forward_hook(
            lambda module, inputs, made, name=f"mid.visual.layer{stage}": seen.__setitem__(name, made)
        )
    with torch.inference_mode():
        made = net.eval()(case.inputs["x"])
    parity.check(shared, case, made)
    parity.check(shared, case, torch.nn.functional.normalize(made, dim=1), "out_norm")
    for name, value in seen.items():
        parity.check(shared, case, value, name)
    assert sum(parameter.numel() for parameter in net.parameters()) == 38_316_896


def test_config_of_state_reads_the_sizes() -> None:
    small = Config(blocks=(1, 2, 1, 1), width=16, image_px=64, embedding=24)
    net = ClipResNet(small)
    assert Config.of(net.state_dict()) == small
    assert net.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 24)


def test_other_sizes_raise() -> None:
    net = ClipResNet(Config(blocks=(1, 1, 1, 1), width=16, image_px=64, embedding=8))
    with pytest.raises(ValueError, match=r"takes \(B, 3, 64, 64\), got \(1, 3, 32, 32\)"):
        net(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="image_px must be a multiple of 32"):
        Config(image_px=100)
    with pytest.raises(ValueError, match=r"a CLIP ResNet \(a stage layer1 to layer4 is missing\)"):
        Config.of({"conv1.weight": torch.zeros(1)})
