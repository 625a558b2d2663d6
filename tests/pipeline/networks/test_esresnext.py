"""ESResNeXt-fbsp against the published network's outputs under seeded weights, step by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import get_window
from torch import Tensor

from pipeline.networks.checkpoint import fill
from pipeline.networks.esresnext import Config, EsResNeXt, blackman_harris, frames_of
from tests.pipeline import parity

STEPS = ("conv1", "layer1", "att1", "layer4", "att4", "att5")


@pytest.mark.parametrize("name", ["audioclip_audio_1s", "audioclip_audio_1s_initfbsp", "audioclip_audio_5s"])
def test_esresnext_equals_the_published(shared: Path, name: str) -> None:
    case = parity.load(shared, name)
    with torch.device("meta"):
        net = EsResNeXt(Config.published())
    fill(net, case.state, where="golden", prefix="audio.")
    net.eval().requires_grad_(False)
    seen: dict[str, Tensor] = {}
    for step in STEPS:
        net.get_submodule(step).register_forward_hook(
            lambda module, inputs, made, key=f"mid.audio.{step}": seen.__setitem__(key, made)
        )
    with torch.inference_mode():
        made = net(case.inputs["x"][:, 0])
        picture = net.spectrogram(case.inputs["x"][:, 0])
    parity.check(shared, case, made)
    if "mid.x_db" in case.want:
        assert picture.shape == (2, 3, 341, 77 if "1s" in name else 392)
        parity.check(shared, case, picture, "mid.x_db")
    for key, value in seen.items():
        if key in case.want:
            parity.check(shared, case, value, key)


def test_window_is_scipys() -> None:
    window = blackman_harris(1654)
    np.testing.assert_allclose(window.numpy(), get_window("blackmanharris", 1654).astype(np.float32), atol=1e-7)


@pytest.mark.parametrize(("size", "count", "before"), [(1, 1, 826), (1654, 1, 0), (1655, 2, 280), (44100, 77, 95)])
def test_frames_reach_the_end_and_are_centred(size: int, count: int, before: int) -> None:
    frames = frames_of(torch.arange(1, size + 1, dtype=torch.float32)[None])
    assert frames.shape == (1, count, 1654)
    assert frames[0, 0, before] == 1
    assert frames[0].max() == size
    if before:
        assert frames[0, 0, before - 1] == 0


def test_filters_are_made_once_when_frozen_and_anew_when_learning() -> None:
    net = EsResNeXt(Config(blocks=(1, 1, 1, 1), width=16, groups=8, filters=33, embedding=8)).eval()
    sound = 1000 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    net.requires_grad_(False)
    with torch.inference_mode():
        first = net(sound)
        net.fbsp.fc.data += 1
        assert torch.equal(net(sound), first)
    net.requires_grad_(True).train()
    net(sound).square().sum().backward()
    assert net.fbsp.fc.grad is not None
    assert bool(torch.isfinite(net.fbsp.fc.grad).all())
    assert net.fbsp.m.grad is not None
    assert bool(torch.isfinite(net.fbsp.m.grad).all())


def test_decibels_and_the_first_convolution_are_float32_whatever_the_autocast() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = EsResNeXt(Config(blocks=(1, 1, 1, 1), width=16, groups=8, filters=257, embedding=8)).eval()
        sound = torch.randn(1, 44100) * 8000
    seen: list[Tensor] = []
    net.bn1.register_forward_hook(lambda module, inputs, made: seen.append(made))
    with torch.inference_mode():
        whole = net(sound)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = net(sound)
    assert torch.equal(*seen)
    # The rest did run in bfloat16.
    assert not torch.equal(whole, rounded.float())


def test_config_of_state_reads_the_sizes() -> None:
    small = Config(blocks=(1, 2, 1, 1), width=16, groups=4, filters=99, embedding=24)
    net = EsResNeXt(small)
    assert Config.of(net.state_dict()) == small
    with pytest.raises(ValueError, match=r"an ESResNeXt-fbsp \(a stage layer1 to layer4 is missing\)"):
        Config.of({"conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="divide"):
        Config(width=10, groups=3)
