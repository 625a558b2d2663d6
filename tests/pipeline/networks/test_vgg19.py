"""VGG-19's maps against a forward pass written out from the published list of layers; no golden exists."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.networks.vgg19 import Vgg19Maps

# torchvision's numbers of the convolutions, and after which of them a pool follows.
NUMBERS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
POOLED = (2, 7, 16, 25, 34)
CHANNELS = (64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512)


def slowly(state: dict[str, Tensor], x: Tensor) -> Tensor:
    for number in NUMBERS:
        x = F.conv2d(x, state[f"features.{number}.weight"], state[f"features.{number}.bias"], padding=1).clamp(min=0)
        if number in POOLED:
            x = F.max_pool2d(x, 2)
    return x


def test_maps_equal_the_list_of_layers() -> None:
    torch.manual_seed(0)
    net = Vgg19Maps().eval()
    state = net.state_dict()
    assert list(state) == [f"features.{number}.{part}" for number in NUMBERS for part in ("weight", "bias")]
    shapes = [tuple(state[f"features.{number}.weight"].shape) for number in NUMBERS]
    assert shapes == [(o, i, 3, 3) for i, o in zip((3, *CHANNELS[:-1]), CHANNELS, strict=True)]
    assert sum(value.numel() for value in state.values()) == 20_024_384
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        made = net(image)
        want = slowly(state, image)
    assert made.shape == (1, 2, 3, 512)
    torch.testing.assert_close(made[0, 1, 2], want[0, :, 1, 2])
    torch.testing.assert_close(made.permute(0, 3, 1, 2), want)
