"""Clips in, features out: finds the encoders, checks what they take and give, and cuts their batches.

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

`weights` maps the names of `SPEC.assets` to where they lie. Never more than `SPEC.batch_segments` segments reach one
call of `encode`. The batches follow from the clips given and from nothing else: segments in order, cut at every
multiple of `batch_segments`.

Shape suffixes: S segments, P frames a segment, N sound samples.
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
from pipeline.batches import batches
from pipeline.clips import Clips, Features
from pipeline.weights.asset import Asset

ENCODERS = Plugins(package="pipeline.encoders", part="encoder", noun="encoder")
_NAME = re.compile(r"[a-z][a-z0-9_]*")

# Of a recipe that features are made with: 100 segments a second, finer than pictures and the usual spectrograms come.
MAX_SEGMENTS_AN_HOUR = 360_000
MAX_WINDOW_S = 3600

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


@functools.cache
def _presets() -> dict[str, Recipe]:
    presets: dict[str, Recipe] = {}
    for name in encoder_names():
        for recipe in encoder_module(name).PRESETS:
            if recipe.encoder != name:
                raise ValueError(f"preset {recipe.name} of encoder {name} names the encoder {recipe.encoder!r}")
            if recipe.name in presets:
                raise ValueError(
                    f"two encoders have a preset called {recipe.name}: {presets[recipe.name].encoder}, {name}"
                )
            presets[recipe.name] = recipe
    return dict(sorted(presets.items()))


def presets() -> dict[str, Recipe]:
    """Every encoder's recipes by name, sorted."""
    return dict(_presets())


def find_recipe(name: str) -> Recipe:
    """The preset called `name`.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    try:
        return _presets()[name]
    except KeyError:
        raise ValueError(f"no recipe is called {name!r}; there are {', '.join(_presets())}") from None


def check_settings(recipe: Recipe) -> None:
    """Refuses settings that the recipe's encoder does not know: an ignored setting would still change the fingerprint.

    An encoder's settings are the keys that its presets spell out.

    Raises:
        ValueError: an unknown setting, a tower that the encoder does not have, a revision that its code here does not
            make, a grid beyond MAX_SEGMENTS_AN_HOUR or MAX_WINDOW_S, or what its own `check` refuses.
    """
    module = encoder_module(recipe.encoder)
    _check_grid(recipe)
    revisions = sorted({preset.revision for preset in module.PRESETS})
    if recipe.revision not in revisions:
        raise ValueError(
            f"recipe {recipe.name}: encoder {recipe.encoder} makes revision {' or '.join(map(str, revisions))} here, "
            f"got {recipe.revision}; a revision is no setting, it tells whose code made the features"
        )
    known = {key for preset in module.PRESETS for key in preset.settings}
    for key in recipe.settings:
        if key not in known:
            raise ValueError(
                f"recipe {recipe.name}: encoder {recipe.encoder} has no setting {key!r}; "
                f"it has {', '.join(sorted(known)) or 'none'}"
            )
    for tower, sampling, shape in (
        ("video", recipe.video, module.SPEC.visual_shape),
        ("audio", recipe.audio, module.SPEC.audio_shape),
    ):
        if sampling is not None and shape is None:
            raise ValueError(f"recipe {recipe.name}: encoder {recipe.encoder} takes no {tower}; leave {tower} out")
    own = getattr(module, "check", None)
    if own is not None:
        own(recipe)


def _check_grid(recipe: Recipe) -> None:
    grid = recipe.grid
    if 3600 / grid.hop_s > MAX_SEGMENTS_AN_HOUR:
        raise ValueError(
            f"recipe {recipe.name}: grid.hop_s={float(grid.hop_s):g} makes {float(3600 / grid.hop_s):.3g} segments an "
            f"hour; at most {MAX_SEGMENTS_AN_HOUR:,} are made, a hop of {3600 / MAX_SEGMENTS_AN_HOUR:g} s"
        )
    if grid.window_s > MAX_WINDOW_S:
        raise ValueError(
            f"recipe {recipe.name}: grid.window_s={float(grid.window_s):g} is beyond an hour ({MAX_WINDOW_S} s), "
            "which one segment may last"
        )


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A loaded encoder: frozen, on its device, ready for clips of its recipe.

    Attributes:
        spec: what it declares.
        recipe: what it was loaded for.
        net: whatever its `load` gave.
        visual_shape, audio_shape: of one segment's feature under this recipe and these weights.
    """

    spec: EncoderSpec
    recipe: Recipe
    net: object
    visual_shape: tuple[int, ...] | None
    audio_shape: tuple[int, ...] | None

    def encode(self, clips: Sequence[Clips]) -> list[Features]:
        """The features of `clips`; see `encode_clips`."""
        return encode_clips(clips, self)


def feature_shapes(recipe: Recipe, weights: Mapping[str, Path]) -> Shapes:
    """Shapes of one segment's features, visual and audio, under `recipe` with `weights`; no network is built.

    Raises:
        ValueError: the weights cannot be read.
    """
    module = encoder_module(recipe.encoder)
    shapes = getattr(module, "shapes", None)
    visual, audio = (module.SPEC.visual_shape, module.SPEC.audio_shape) if shapes is None else shapes(recipe, weights)
    return visual if recipe.video is not None else None, audio if recipe.audio is not None else None


def assets_of(recipe: Recipe) -> tuple[Asset, ...]:
    """The assets that `recipe` takes; those of its text tower too."""
    assets = encoder_module(recipe.encoder).SPEC.assets
    return tuple(asset for asset in assets if asset.setting is None or recipe.settings.get(asset.setting) is True)


def load_encoder(recipe: Recipe, weights: Mapping[str, Path] | None = None, device: str = "cpu") -> Encoder:
    """Loads the recipe's encoder.

    Args:
        recipe: a preset, or a changed one.
        weights: asset name -> file; see `pipeline.weights.folder.resolve`. None for an encoder that needs none.
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: no such encoder, settings unknown to it, or weights missing, not wanted or damaged.
    """
    module = encoder_module(recipe.encoder)
    check_settings(recipe)
    given = _wanted_weights(recipe, weights or {})
    visual_shape, audio_shape = feature_shapes(recipe, given)
    net = module.load(given, device, recipe)
    return Encoder(spec=module.SPEC, recipe=recipe, net=net, visual_shape=visual_shape, audio_shape=audio_shape)


class GivenWeights(dict[str, Path]):
    """Asset name -> file, for an encoder; one that it takes and that is not there is told by name.

    Which assets a recipe needs, its encoder alone knows: a tower that is left out needs none.
    """

    def __init__(self, recipe: Recipe, weights: Mapping[str, Path]) -> None:
        super().__init__(weights)
        self._recipe = recipe

    def __missing__(self, name: str) -> Path:
        recipe = self._recipe
        asset = next((asset for asset in assets_of(recipe) if asset.name == name), None)
        if asset is None:
            raise KeyError(name)
        raise ValueError(
            f"recipe {recipe.name}: encoder {recipe.encoder} needs its asset {name} ({asset.filename}) too, "
            f"{', '.join(self) or 'none'} given; give it as {name}=PATH, see `avel weights show {recipe.encoder}`"
        )


def _wanted_weights(recipe: Recipe, weights: Mapping[str, Path]) -> Mapping[str, Path]:
    spec = encoder_module(recipe.encoder).SPEC
    if spec.needs_weights and not weights:
        raise ValueError(
            f"recipe {recipe.name}: encoder {recipe.encoder} needs its checkpoint; "
            f"see `avel weights show {recipe.encoder}`"
        )
    known = {asset.name for asset in assets_of(recipe)}
    for name in weights:
        if name not in known:
            told = f"takes {', '.join(sorted(known))}" if known else "has no weights; leave them out"
            raise ValueError(f"recipe {recipe.name}: no weights {name!r} are wanted: encoder {recipe.encoder} {told}")
    return GivenWeights(recipe, weights)


def encode_clips(clips: Sequence[Clips], encoder: Encoder) -> list[Features]:
    """The features of `clips`, one `Features` for each, in order.

    Args:
        clips: of any videos; every segment of one recipe.
        encoder: for that recipe.

    Returns:
        float32 (or narrower) arrays (S, *shape); a row is NaN exactly where its modality is not valid.

    Raises:
        ValueError: clips of another rate or frame count than the recipe's.
        RuntimeError: the encoder broke its contract (length, shape, dtype, NaN where valid); a bug in the plug-in.
    """
    for item in clips:
        _check_clips(item, encoder.recipe)
    encode = encoder_module(encoder.spec.name).encode
    parts: list[list[Features]] = [[] for _ in clips]
    for batch in batches(clips, encoder.spec.batch_segments, encoder.recipe):
        given = [piece for _, piece in batch]
        features = encode(encoder.net, given)
        if len(features) != len(given):
            raise RuntimeError(f"encoder {encoder.spec.name} gave {len(features)} results for {len(given)} clips")
        for (owner, piece), made in zip(batch, features, strict=True):
            _check_features(made, piece, encoder)
            parts[owner].append(made)
    return [_joined(part) for part in parts]


def _check_clips(clips: Clips, recipe: Recipe) -> None:
    frames = recipe.video.slots if recipe.video is not None else 0
    if clips.frame_index_SP.shape[1] != frames:
        raise ValueError(
            f"{clips.video_id}: recipe {recipe.name} takes {frames} frames a segment, "
            f"the clips have {clips.frame_index_SP.shape[1]}"
        )
    rate_hz = recipe.audio.rate_hz if recipe.audio is not None else 0
    if clips.rate_hz != rate_hz and clips.samples_N.size:
        raise ValueError(f"{clips.video_id}: recipe {recipe.name} takes {rate_hz} Hz, the clips have {clips.rate_hz}")
    index_SP = clips.frame_index_SP
    if index_SP.size and not -1 <= int(index_SP.min()) <= int(index_SP.max()) < clips.frames_FHWC.shape[0]:
        raise ValueError(f"{clips.video_id}: a frame index lies outside the {clips.frames_FHWC.shape[0]} frames given")


def _check_features(made: Features, clips: Clips, encoder: Encoder) -> None:
    for modality, values, valid_S, shape in (
        ("visual", made.visual, made.visual_valid, encoder.visual_shape),
        ("audio", made.audio, made.audio_valid, encoder.audio_shape),
    ):
        where = f"encoder {encoder.spec.name}, {clips.video_id}: {modality}"
        if valid_S.shape != (clips.count,) or valid_S.dtype != np.bool_:
            raise RuntimeError(f"{where} validity must be bool ({clips.count},), got {valid_S.dtype} {valid_S.shape}")
        if shape is None:
            if values is not None or valid_S.any():
                raise RuntimeError(f"{where} must be None and nowhere valid under recipe {encoder.recipe.name}")
            continue
        if values is None or values.shape != (clips.count, *shape) or not np.issubdtype(values.dtype, np.floating):
            got = "None" if values is None else f"{values.dtype} {values.shape}"
            raise RuntimeError(f"{where} must be floating {(clips.count, *shape)}, got {got}")
        flat_SD = values.reshape(clips.count, -1)
        if not np.isfinite(flat_SD[valid_S]).all() or not np.isnan(flat_SD[~valid_S]).all():
            raise RuntimeError(f"{where} must be finite where valid and NaN elsewhere")


def _joined(parts: list[Features]) -> Features:
    if len(parts) == 1:
        return parts[0]

    def whole(values: list[NDArray[np.floating] | None]) -> NDArray[np.floating] | None:
        present = [value for value in values if value is not None]
        return np.concatenate(present) if present else None

    return Features(
        visual=whole([part.visual for part in parts]),
        audio=whole([part.audio for part in parts]),
        visual_valid=np.concatenate([part.visual_valid for part in parts]),
        audio_valid=np.concatenate([part.audio_valid for part in parts]),
    )
