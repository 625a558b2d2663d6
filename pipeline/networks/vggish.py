"""VGGish, as torchvggish has it: log-mel examples of 0.96 s to 128 numbers each. Keys are the published ones.

Shape suffixes: B examples, T mel frames, M mel bands.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EXAMPLE_FRAMES, MEL_BANDS, WIDTH = 96, 64, 128
# Channels of the convolutions, each with a ReLU; None is a pool.
_LAYERS = (64, None, 128, None, 256, 256, None, 512, 512, None)
# After PCA embeddings are held to +-2 and take 256 steps.
_QUANTISE_MIN, _QUANTISE_MAX = -2.0, 2.0


class Vggish(nn.Module):
    """Log-mel examples to raw embeddings; the last layer has a ReLU too."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for outer in _LAYERS:
            if outer is None:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, outer, 3, padding=1), nn.ReLU()]
                channels = outer
        self.features = nn.Sequential(*layers)
        flat = channels * (EXAMPLE_FRAMES // 16) * (MEL_BANDS // 16)
        self.embeddings = nn.Sequential(
            nn.Linear(flat, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, WIDTH), nn.ReLU()
        )

    def forward(self, logmel_B1TM: Tensor) -> Tensor:
        """(B, 128), none below 0.

        Args:
            logmel_B1TM: (B, 1, 96, 64); see `pipeline.preprocess.vggish_log_mel`.
        """
        # TensorFlow's order: time, mel, channel.
        flat = self.features(logmel_B1TM).permute(0, 2, 3, 1).flatten(1)
        made: Tensor = self.embeddings(flat)
        return made


def postprocess(embeddings_BD: Tensor, vectors_DD: Tensor, means_D: Tensor) -> Tensor:
    """AudioSet's PCA and 8-bit steps: (B, 128) whole numbers in 0 .. 255, halves to even.

    Args:
        embeddings_BD: raw ones.
        vectors_DD, means_D: the published `pca_eigen_vectors` and `pca_means`.
    """
    turned = (embeddings_BD - means_D.flatten()) @ vectors_DD.T
    held = turned.clamp(_QUANTISE_MIN, _QUANTISE_MAX)
    return torch.round((held - _QUANTISE_MIN) * (255.0 / (_QUANTISE_MAX - _QUANTISE_MIN)))
