"""An encoder: what a plug-in of `pipeline/encoders` declares and offers, and the registry that finds it by name.

An encoder without weights is one file, `NAME.py`. One whose imports are slow (torch) is a folder `NAME/` with
`recipes.py`, which declares it and imports nothing heavy, and `encoder.py` with ordinary imports on top. `recipes.py`
has

    SPEC: EncoderSpec
    PRESETS: tuple[Recipe, ...]

and, where they apply,

    Settings: type[EncoderSettings]                          # of `Recipe.settings`: checked before `load`
    check(recipe: Recipe) -> None                            # ValueError for what else cannot be, likewise
    shapes(recipe: Recipe) -> Shapes                                               # where SPEC's depend on settings

`encoder.py` has

    load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> Towers

and, where they apply,

    shapes_from(recipe: Recipe, weights: Mapping[str, Path]) -> Shapes                # where they depend on weights
    load_text(weights: Mapping[str, Path], device: str, recipe: Recipe) -> TextTower  # SPEC.text_width
    load_trainable(weights, device, recipe) -> pipeline.finetune.loop.Towers          # SPEC.trainable

`weights` maps the names of `SPEC.assets` to their paths. Which segments are valid, batches and NaN are the business of
`pipeline/encode.py`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from catalog.fields import needed
from catalog.plugins import Plugins
from catalog.recipe import Recipe
from pipeline.clips import Segments
from pipeline.weights.asset import Asset

ENCODERS = Plugins(package="pipeline.encoders", part="encoder", noun="encoder")
_DECLARATIONS = Plugins(package="pipeline.encoders", part="recipes", noun="encoder")
_NAME = re.compile(r"[a-z][a-z0-9_]*")

# Of one segment: visual and audio, None where there is no such feature.
Shapes = tuple[tuple[int, ...] | None, tuple[int, ...] | None]

# Texts to features (K, D) float32.
TextTower = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """What an encoder is and what its features are.

    Attributes:
        name: of its file or folder.
        visual_shape, audio_shape: of one segment's feature, (D,) or a map's (7, 7, 512); None without such a tower.
        assets: the checkpoints and vocabularies it needs; none for an encoder without weights.
        text_width: D of the text tower's features; None without one.
        licence: of the weights (of the code, where there are none).
        citation: paper or code that it follows.
        rate_hz: the rate of audio that it takes; None takes any.
        batch_segments: the most segments that one call of a tower gets.
        device: where it is meant to run; "gpu" also runs on a CPU, slowly.
        trainable: `load_trainable` gives its towers for fine-tuning.
    """

    name: str
    visual_shape: tuple[int, ...] | None
    audio_shape: tuple[int, ...] | None
    licence: str
    citation: str
    batch_segments: int
    assets: tuple[Asset, ...] = ()
    text_width: int | None = None
    rate_hz: int | None = None
    device: Literal["cpu", "gpu"] = "cpu"
    trainable: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"an encoder's name is its file's: lower-case letters, digits and '_', got {self.name!r}")
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
        """Whether features of media depend on a checkpoint."""
        return any(asset.use == "features" for asset in self.assets)


class EncoderSettings(BaseModel):
    """Base of an encoder's typed `Recipe.settings`: strict, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """The settings of `recipe`.

        Raises:
            ValueError: names the setting, what it needs and what came.
        """
        try:
            return cls(**recipe.settings)
        except ValidationError as error:
            key = error.errors()[0]["loc"][0]
            got = recipe.settings.get(str(key))
            raise ValueError(f"recipe {recipe.name}: settings.{key} must be {needed(error)}, got {got!r}") from error


class SizedSettings(EncoderSettings):
    """Of an encoder whose networks have published sizes.

    Attributes:
        size: "published", or "from-weights": sizes are read from the checkpoint (small ones for tests and trials).
    """

    size: Literal["published", "from-weights"]


class Towers(Protocol):
    """A loaded encoder's towers, frozen and on their device. A tower that the recipe leaves out is never called."""

    def visual(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """Features of all segments given, one after the other: (n, *visual_shape), finite."""

    def audio(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """Likewise (n, *audio_shape)."""


class Declaration(Protocol):
    """The plug-in contract's light part: `NAME/recipes.py`, or `NAME.py`."""

    SPEC: EncoderSpec
    PRESETS: tuple[Recipe, ...]


class EncoderModule(Protocol):
    """The plug-in contract's other part: `NAME/encoder.py`, or `NAME.py`."""

    def load(self, weights: Mapping[str, Path], device: str, recipe: Recipe) -> Towers:
        """The towers that `recipe` asks for."""


class TextModule(EncoderModule, Protocol):
    """The plug-in contract of an encoder with a text tower."""

    def load_text(self, weights: Mapping[str, Path], device: str, recipe: Recipe) -> TextTower:
        """The text tower, frozen and on `device`."""


def encoder_names() -> tuple[str, ...]:
    """The encoders that exist, sorted; none is imported."""
    return ENCODERS.names()


@functools.cache
def declaration(name: str) -> Declaration:
    """What the encoder of that name declares; its networks are not imported.

    Raises:
        ValueError: there is none.
    """
    module = cast(Declaration, _DECLARATIONS.load(name))
    if module.SPEC.name != name:
        raise ValueError(f"encoder {name} calls itself {module.SPEC.name!r} in SPEC; the two must agree")
    return module


def encoder_module(name: str) -> EncoderModule:
    """The plug-in of that name.

    Raises:
        ValueError: there is none.
    """
    return cast(EncoderModule, ENCODERS.load(name))


def encoder_spec(name: str) -> EncoderSpec:
    """The `SPEC` of an encoder.

    Raises:
        ValueError: there is none.
    """
    return declaration(name).SPEC


def encoder_presets(name: str) -> tuple[Recipe, ...]:
    """The `PRESETS` of an encoder.

    Raises:
        ValueError: there is none.
    """
    return declaration(name).PRESETS


def assets_of(recipe: Recipe) -> tuple[Asset, ...]:
    """The assets of `recipe`, those of its text tower included."""
    assets = encoder_spec(recipe.encoder).assets
    return tuple(asset for asset in assets if asset.setting is None or recipe.settings.get(asset.setting) is True)
