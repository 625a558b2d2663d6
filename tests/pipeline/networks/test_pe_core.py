"""PE core's image tower against numbers of timm 1.0.31's `vit_pe_core_*` with the weights drawn below."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.networks.pe_core import Config, PeCore, architecture_of

LARGE, GIGANTIC = "vit_pe_core_large_patch14_336", "vit_pe_core_gigantic_patch14_448"
# The gigantic one has no class token and counts its patches from 0.
GOLDENS = {
    LARGE: (
        Config(
            width=64,
            layers=2,
            hidden=256,
            pool_hidden=256,
            side_px=56,
            features=6,
            architecture=architecture_of(LARGE, {"num_heads": 4}),
        ),
        [
            [0.966054, -0.13884, 0.605933, -0.337177, -0.41897, -1.243054],
            [0.989519, -0.144714, 0.583849, -0.306291, -0.354099, -1.147418],
        ],
    ),
    GIGANTIC: (
        Config(
            width=64,
            layers=2,
            hidden=128,
            pool_hidden=256,
            side_px=70,
            features=6,
            has_class_token=False,
            architecture=architecture_of(GIGANTIC, {"num_heads": 4}),
        ),
        [
            [0.420754, -0.065732, -1.037592, 0.336318, -0.45558, 0.21345],
            [0.474707, -0.104389, -1.055369, 0.323676, -0.471626, 0.200758],
        ],
    ),
}


def drawn(network: PeCore) -> dict[str, Tensor]:
    rng = np.random.default_rng(0)
    state = {}
    for key, like in sorted(network.state_dict().items()):
        shape = tuple(like.shape)
        scale = 0.3 if len(shape) < 2 or shape[0] == 1 else float(np.prod(shape[1:])) ** -0.5
        state[key] = torch.from_numpy((rng.standard_normal(shape) * scale).astype(np.float32))
    return state


@pytest.mark.parametrize("name", GOLDENS)
def test_features_equal_the_published_codes(name: str) -> None:
    config, want = GOLDENS[name]
    network = PeCore(config).eval()
    state = drawn(network)
    network.load_state_dict(state)
    assert Config.of(state, config.architecture) == config
    shape = (2, 3, config.side_px, config.side_px)
    images = torch.from_numpy(np.random.default_rng(1).standard_normal(shape).astype(np.float32))
    with torch.inference_mode():
        got = network(images).numpy()
    # The goldens have six decimals.
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-6)


def test_published_sizes_are_the_large_towers() -> None:
    with torch.device("meta"):
        network = PeCore(Config.published())
    assert sum(parameter.numel() for parameter in network.parameters()) == 317_152_256
    assert Config.of(network.state_dict(), Config().architecture) == Config()


def test_other_towers_are_refused() -> None:
    with pytest.raises(ValueError, match="image tower 'resnet50' is none of those known here: vit_pe_core_tiny"):
        architecture_of("resnet50", {})
    with pytest.raises(ValueError, match="the argument swiglu_mlp=True is not supported"):
        architecture_of(LARGE, {"swiglu_mlp": True})
    with pytest.raises(ValueError, match="not the state dict of a PE core tower"):
        Config.of({}, Config().architecture)
    state = drawn(PeCore(GOLDENS[LARGE][0]))
    with pytest.raises(ValueError, match="heads of a multiple of 4 numbers"):
        Config.of(state, replace(Config().architecture, heads=32))
    with pytest.raises(ValueError, match="square RGB images"):
        Config.of(state | {"pos_embed": torch.zeros(1, 16, 64)}, Config().architecture)
