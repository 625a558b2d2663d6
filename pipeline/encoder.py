"""An encoder: what a plug-in of `pipeline/encoders` declares and offers, and the registry that finds it by name.

An encoder is a file of `pipeline/encoders`, found by name. It declares

    SPEC: EncoderSpec
    PRESETS: tuple[Recipe, ...]
    load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> object  # the net; heavy imports belong in here
    encode(net: object, clips: Sequence[Clips]) -> list[Features]             # one for each, in order, of its length

and, where they apply,

    check(recipe: Recipe) -> None       # ValueError for settings that cannot be; needs no weights, runs before `load`
    shapes(recipe: Recipe, weights: Mapping[str, Path]) -> Shapes             # where SPEC's hang on settings or weights
    load_text(weights: Mapping[str, Path], device: str, recipe: Recipe) -> object
    encode_text(net: object, texts: Sequence[str]) -> NDArray[np.float32]     # (K, D)

`weights` maps the names of `SPEC.assets` to their paths. One call of `encode` gets at most `SPEC.batch_segments`
segments.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from catalog.plugins import Plugins
from catalog.recipe import Recipe
from catalog.store.modal import Features
from pipeline.clips import Clips
from pipeline.weights.asset import Asset

ENCODERS = Plugins(package="pipeline.encoders", part="encoder", noun="encoder")
_NAME = re.compile(r"[a-z][a-z0-9_]*")

# Of one segment: visual and audio, None where there is no such feature.
Shapes = tuple[tuple[int, ...] | None, tuple[int, ...] | None]


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """What an encoder is and gives.

    Attributes:
        name: its file's name.
        visual_shape, audio_shape: of one segment's feature, (D,) or a map's (7, 7, 512); None without such a tower.
        assets: the checkpoints and vocabularies it needs; none for an encoder without weights.
        text_width: D of the text tower's features; None without one.
        licence: of the weights (of the code, where there are none).
        citation: paper or code that it follows.
        batch_segments: the most segments that one call of `encode` gets.
        device: where it is meant to run; "gpu" also runs on a CPU, slowly.
    """

    name: str
    visual_shape: tuple[int, ...] | None
    audio_shape: tuple[int, ...] | None
    licence: str
    citation: str
    batch_segments: int
    assets: tuple[Asset, ...] = ()
    text_width: int | None = None
    device: Literal["cpu", "gpu"] = "cpu"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"an encoder's name is its file's: small letters, digits and '_', got {self.name!r}")
        if self.visual_shape is None and self.audio_shape is None:
            raise ValueError(f"encoder {self.name} needs a visual_shape, an audio_shape or both")
        for shape in (self.visual_shape, self.audio_shape):
            if shape is not None and (not shape or min(shape) < 1):
                raise ValueError(f"encoder {self.name}: shapes need sizes of at least 1, got {shape}")
        if self.batch_segments < 1:
            raise ValueError(f"encoder {self.name}: batch_segments must be at least 1, got {self.batch_segments}")
        if self.device not in ("cpu", "gpu"):
            raise ValueError(f"encoder {self.name}: device must be 'cpu' or 'gpu', got {self.device!r}")
        names = [asset.name for asset in self.assets]
        if len(set(names)) != len(names):
            raise ValueError(f"encoder {self.name}: two assets have one name: {', '.join(names)}")

    @property
    def needs_weights(self) -> bool:
        """Whether media features hang on a checkpoint."""
        return any(asset.use == "features" for asset in self.assets)


class EncoderModule(Protocol):
    """The plug-in contract: what a file of `pipeline/encoders` defines."""

    SPEC: EncoderSpec
    PRESETS: tuple[Recipe, ...]

    def load(self, weights: Mapping[str, Path], device: str, recipe: Recipe) -> object:
        """The net, frozen and on `device`."""

    def encode(self, net: object, clips: Sequence[Clips]) -> list[Features]:
        """One `Features` for each of `clips`, in order."""


class TextModule(EncoderModule, Protocol):
    """The plug-in contract of an encoder with a text tower."""

    def load_text(self, weights: Mapping[str, Path], device: str, recipe: Recipe) -> object:
        """The text tower, frozen and on `device`."""

    def encode_text(self, net: object, texts: Sequence[str]) -> NDArray[np.float32]:
        """Features of `texts`, (K, D) float32."""


def encoder_names() -> tuple[str, ...]:
    """The encoders there are, sorted; none is imported."""
    return ENCODERS.names()


@functools.cache
def encoder_module(name: str) -> EncoderModule:
    """The plug-in of that name.

    Raises:
        ValueError: there is none.
    """
    module = cast(EncoderModule, ENCODERS.load(name))
    if module.SPEC.name != name:
        raise ValueError(f"encoder {name} calls itself {module.SPEC.name!r} in SPEC; the two must agree")
    return module


def encoder_spec(name: str) -> EncoderSpec:
    """What the encoder of that name declares.

    Raises:
        ValueError: there is none.
    """
    return encoder_module(name).SPEC


def encoder_presets(name: str) -> tuple[Recipe, ...]:
    """The presets of the encoder of that name.

    Raises:
        ValueError: there is none.
    """
    return encoder_module(name).PRESETS


def assets_of(recipe: Recipe) -> tuple[Asset, ...]:
    """The assets that `recipe` takes; those of its text tower too."""
    assets = encoder_module(recipe.encoder).SPEC.assets
    return tuple(asset for asset in assets if asset.setting is None or recipe.settings.get(asset.setting) is True)
