"""VGG-19's convolutions, with torchvision's keys: images to the last pooling's map, 7 x 7 x 512 channels."""

from __future__ import annotations

from torch import Tensor, nn

CHANNELS = 512
# Channels of the convolutions, each with a ReLU; None is a pool.
_LAYERS = (
    *(64, 64, None, 128, 128, None),
    *(256, 256, 256, 256, None),
    *(512, 512, 512, 512, None),
    *(512, 512, 512, 512, None),
)


class Vgg19Maps(nn.Module):
    """`features` of torchvision's vgg19, configuration E (20.0 M parameters)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for outer in _LAYERS:
            if outer is None:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, outer, 3, padding=1), nn.ReLU()]
                channels = outer
        self.features = nn.Sequential(*layers)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """(B, H / 32, W / 32, 512) maps, channels last, none below 0.

        Args:
            images_BCHW: (B, 3, H, W) with ImageNet's mean and deviation taken.
        """
        made: Tensor = self.features(images_BCHW).permute(0, 2, 3, 1)
        return made
