"""I3D of both layouts against the published networks' outputs under seeded weights."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.networks.checkpoint import fill
from pipeline.networks.i3d import LAYOUTS, Config, I3d, Layout, LayoutName, Pool, max_pool
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


@pytest.mark.parametrize("name", ["piergiaj_rgb", "piergiaj_flow", "hassony2_rgb", "hassony2_flow"])
def test_keys_and_config_are_the_published(shared: Path, name: str) -> None:
    told = json.loads((shared / f"parity/encoders/i3d_{name}.keys.json").read_text())
    state = {key: torch.empty(shape, device="meta") for key, shape, _ in told["tensors"]}
    config = Config.of(state)
    assert f"{config.layout}_{config.modality}" == name
    assert config == Config.published(config.layout, config.modality)
    assert config.features == 1024
    with torch.device("meta"):
        net = I3d(config)
    assert sum(parameter.numel() for parameter in net.parameters()) == told["params"]
    # The published files were saved before BatchNorm counted its batches.
    own = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in state.items()}


@pytest.mark.parametrize("layout", ["piergiaj", "hassony2"])
def test_narrow_networks_sizes_are_read_from_its_shapes(layout: LayoutName) -> None:
    config = Config(layout=layout, modality="flow", width=12, classes=7)
    with torch.device("meta"):
        net = I3d(config)
    state = net.state_dict()
    assert Config.of(state) == config
    given = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in state.items()}
    fill(net, given, where="with counted batches")


@pytest.mark.parametrize("layout", ["piergiaj", "hassony2"])
def test_steps_follow_the_frames_and_clips_are_independent(layout: LayoutName) -> None:
    torch.manual_seed(0)
    net = I3d(Config(layout=layout, modality="flow", width=4, classes=5)).eval()
    least = LAYOUTS[layout].least_frames
    clips = torch.randn(2, 2, 27, 224, 224)
    with torch.inference_mode():
        for count in (least, 16, 27):
            steps = net.steps(clips[:1, :, :count])
            # Three halvings, up in piergiaj's layout, first down and then up in hassony2's; the last window sees 2.
            halved = math.ceil(count / 2) if layout == "piergiaj" else count // 2
            assert steps.shape == (1, net.config.features, math.ceil(math.ceil(halved / 2) / 2) - 1)
            assert net.class_logits(steps).shape == (1, 5, steps.shape[2])
        torch.testing.assert_close(net(clips)[1:], net.steps(clips[1:]).mean(dim=2))
    with pytest.raises(ValueError, match=rf"\({layout}\) needs at least {least} frames, got {least - 1}"):
        net(clips[:, :, : least - 1])


@pytest.mark.parametrize("layout", LAYOUTS.values())
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (3, 1), (2, 2)])
def test_pools_equal_torchs_of_zero_padded_maps(layout: Layout, kernel: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for size in range(1, 12):
        x = torch.rand(1, 2, size, 7, 12 - size, generator=generator)
        sides = [layout.padding(places, kernel, stride) for places in x.shape[2:]]
        zeros = F.pad(x, [*sides[2], *sides[1], *sides[0]])
        want = F.max_pool3d(zeros, kernel, stride, ceil_mode=not layout.same)
        made = max_pool(x, layout, Pool((kernel,) * 3, (stride,) * 3))
        torch.testing.assert_close(made, want, rtol=0, atol=0)


def test_other_states_and_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="not the state dict of an I3D"):
        Config.of({})
    odd = {
        "Conv3d_1a_7x7.conv3d.weight": torch.zeros(8, 5, 7, 7, 7),
        "logits.conv3d.weight": torch.zeros(3, 8, 1, 1, 1),
    }
    with pytest.raises(ValueError, match="of 3 colours or 2 directions"):
        Config.of(odd)
    with pytest.raises(ValueError, match="width must be at least 4"):
        Config(layout="piergiaj", modality="rgb", width=3)
    with torch.device("meta"):
        net = I3d(Config(layout="piergiaj", modality="rgb", width=4))
    with pytest.raises(ValueError, match=r"needs clips \(B, 3, T, 224, 224\), got \(1, 2, 16, 224, 224\)"):
        net(torch.zeros(1, 2, 16, 224, 224))
    with pytest.raises(ValueError, match=r"got \(1, 3, 16, 256, 224\)"):
        net(torch.zeros(1, 3, 16, 256, 224))
