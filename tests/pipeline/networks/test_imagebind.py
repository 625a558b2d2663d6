"""ImageBind's towers against the published network's outputs under seeded weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.networks.checkpoint import BadCheckpoint, fill
from pipeline.networks.imagebind import Config, Modality, Tower, belongs
from tests.pipeline import parity


def tower_of(state: dict[str, Tensor], modality: Modality) -> Tower:
    own = {key: tensor for key, tensor in state.items() if belongs(key, modality)}
    with torch.device("meta"):
        net = Tower(Config.of(own, modality))
    fill(net, own, where="golden", infinite=("text.mask",))
    return net.eval().requires_grad_(False)


def compare(shared: Path, name: str) -> None:
    case = parity.load(shared, name)
    kind = name.rsplit("_", 1)[1]
    modality: Modality = "vision" if kind in ("vision", "video") else "audio" if kind == "audio" else "text"
    net = tower_of(case.state, modality)
    seen: dict[str, Tensor] = {}
    for number, block in enumerate(net.modality_trunks[modality].blocks):  # type: ignore[arg-type]  # a ModuleList
        block.register_forward_hook(
            lambda module, inputs, made, key=f"mid.modality_trunks.{modality}.blocks.{number}": seen.__setitem__(
                key, made
            )
        )
    x = case.inputs["x"]
    with torch.inference_mode():
        if kind == "video":
            # (B, 3 clips, 3, 2, H, W)
            parity.check(shared, case, net(x.flatten(0, 1)).reshape(*x.shape[:2], -1).mean(dim=1))
            return
        if kind == "audio":
            parity.check(shared, case, net(x.flatten(0, 1)).reshape(*x.shape[:2], -1).mean(dim=1))
            parity.check(shared, case, net(x[:, 0]), "out_clip0")
            return
        parity.check(shared, case, net(x))
    for key, value in seen.items():
        if key in case.want:
            # Upstream's trunk has tokens first.
            parity.check(shared, case, value.transpose(0, 1), key)


@pytest.mark.parametrize("kind", ["vision", "video", "audio", "text"])
def test_imagebind_equals_the_published(shared: Path, kind: str) -> None:
    compare(shared, f"imagebind_tiny_{kind}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vision", "video", "audio", "text"])
def test_imagebind_of_full_depth_equals_the_published(shared: Path, kind: str) -> None:
    compare(shared, f"imagebind_full_{kind}")


def test_config_of_the_published_keys(shared: Path) -> None:
    rows = json.loads((shared / "parity/encoders/imagebind_huge.keys.json").read_text())["tensors"]
    state = {name: torch.empty(shape, device="meta") for name, shape, _ in rows}
    for modality in ("vision", "audio", "text"):
        assert Config.of(state, modality) == Config.published(modality)
        with torch.device("meta"):
            keys = Tower(Config.published(modality)).state_dict().keys()
        assert keys == {key for key in state if belongs(key, modality)}


def test_another_networks_state_is_an_error(shared: Path) -> None:
    with pytest.raises(ValueError, match="not the state dict of an ImageBind"):
        Config.of({"visual.conv1.weight": torch.zeros(1)}, "audio")
    case = parity.load(shared, "imagebind_tiny_text")
    del case.state["modality_trunks.text.blocks.0.norm_1.weight"]
    with pytest.raises(BadCheckpoint, match=r"missing: modality_trunks\.text\.blocks\.0\.norm_1\.weight"):
        tower_of(case.state, "text")
