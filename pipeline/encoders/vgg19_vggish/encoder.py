"""VGG-19's maps and VGGish's embeddings, out of their published checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from catalog.recipe import Recipe
from pipeline.clips import Segments
from pipeline.encoders.vgg19_vggish.recipes import Settings
from pipeline.networks.checkpoint import BadCheckpoint, build, read_state
from pipeline.networks.inference import FrozenTowers, encode_audio, encode_frames, frozen, normalised
from pipeline.networks.vgg19 import Vgg19Maps
from pipeline.networks.vggish import Vggish, postprocess
from pipeline.preprocess.vggish_log_mel import examples

# ImageNet's, as torchvision states them.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH_FRAMES, BATCH_EXAMPLES = 16, 32


@dataclass(frozen=True, kw_only=True)
class VggPair(FrozenTowers):
    """The networks of a recipe, and VGGish's PCA (vectors (128, 128), means (128,)) where it is wanted."""

    maps: Vgg19Maps | None
    vggish: Vggish | None
    pca: tuple[Tensor, Tensor] | None

    def visual(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """(n, 7, 7, 512)."""
        maps = self.maps
        assert maps is not None

        def forward(frames_BHWC: Tensor) -> Tensor:
            return self.forward(maps, normalised(frames_BHWC, MEAN, DEVIATION))

        return encode_frames(segments, forward, device=self.device, batch_frames=BATCH_FRAMES)

    def audio(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """(n, 128)."""
        vggish = self.vggish
        assert vggish is not None

        def prepare(samples_SN: NDArray[np.float32], _: NDArray[np.bool_]) -> NDArray[np.float32]:
            return np.stack([examples(samples_N)[0] for samples_N in samples_SN])

        def forward(logmel: Tensor) -> Tensor:
            made = self.forward(vggish, logmel).float().cpu()
            return made if self.pca is None else postprocess(made, *self.pca)

        return encode_audio(segments, prepare, forward, device=self.device, batch_size=BATCH_EXAMPLES)


def load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> VggPair:
    """The networks that `recipe` asks for, frozen.

    Raises:
        BadCheckpoint: a file is damaged or of another network.
    """
    maps = vggish = pca = None
    if recipe.video is not None:
        path = weights["vgg19"]
        built = build(Vgg19Maps, read_state(path), where=f"{path}, VGG-19", ignore=("classifier.",))
        maps = frozen(built, device, channels_last=True)
    if recipe.audio is not None:
        path = weights["vggish"]
        vggish = frozen(build(Vggish, read_state(path), where=f"{path}, VGGish", ignore=("pproc.",)), device)
        if Settings.of(recipe).pca:
            pca = _pca(weights["vggish_pca"])
    return VggPair(recipe=recipe, device=device, maps=maps, vggish=vggish, pca=pca)


def _pca(path: Path) -> tuple[Tensor, Tensor]:
    state = {key.removeprefix("pproc."): tensor for key, tensor in read_state(path).items()}
    vectors, means = state.get("pca_eigen_vectors"), state.get("pca_means")
    if vectors is None or means is None or vectors.shape != (128, 128) or means.numel() != 128:
        held = ", ".join(f"{key} {tuple(tensor.shape)}" for key, tensor in state.items())
        raise BadCheckpoint(f"{path}: needs pca_eigen_vectors (128, 128) and pca_means (128), got {held[:200]}")
    if not all(bool(tensor.isfinite().all()) for tensor in (vectors, means)):
        raise BadCheckpoint(f"{path}: holds NaN or infinity; fetch or copy it again")
    return vectors.float(), means.float().flatten()
