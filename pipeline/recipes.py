"""Recipes of the encoders: the presets, the settings that an encoder knows, and the shapes of a recipe's features."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from catalog.recipe import Recipe
from pipeline.encoder import Shapes, declaration, encoder_module, encoder_names, encoder_presets

# Of a recipe that features are made with: 100 segments a second, finer than frames and the usual spectrograms come.
MAX_SEGMENTS_AN_HOUR = 360_000
MAX_WINDOW_S = 3600


@functools.cache
def _presets() -> dict[str, Recipe]:
    presets: dict[str, Recipe] = {}
    for name in encoder_names():
        for recipe in encoder_presets(name):
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
            make, a grid beyond MAX_SEGMENTS_AN_HOUR or MAX_WINDOW_S, another rate of audio, or what its own `check`
            refuses.
    """
    declared = declaration(recipe.encoder)
    _check_grid(recipe)
    revisions = sorted({preset.revision for preset in declared.PRESETS})
    if recipe.revision not in revisions:
        raise ValueError(
            f"recipe {recipe.name}: encoder {recipe.encoder} makes revision {' or '.join(map(str, revisions))} here, "
            f"got {recipe.revision}; a revision is no setting, it names the code that made the features"
        )
    known = {key for preset in declared.PRESETS for key in preset.settings}
    for key in recipe.settings:
        if key not in known:
            raise ValueError(
                f"recipe {recipe.name}: encoder {recipe.encoder} has no setting {key!r}; "
                f"it has {', '.join(sorted(known)) or 'none'}"
            )
    for tower, sampling, shape in (
        ("video", recipe.video, declared.SPEC.visual_shape),
        ("audio", recipe.audio, declared.SPEC.audio_shape),
    ):
        if sampling is not None and shape is None:
            raise ValueError(f"recipe {recipe.name}: encoder {recipe.encoder} takes no {tower}; leave {tower} out")
    rate_hz = declared.SPEC.rate_hz
    if recipe.audio is not None and rate_hz is not None and recipe.audio.rate_hz != rate_hz:
        raise ValueError(
            f"recipe {recipe.name}: encoder {recipe.encoder} needs audio.rate_hz={rate_hz}, got {recipe.audio.rate_hz}"
        )
    if hasattr(declared, "Settings"):
        declared.Settings.of(recipe)
    if hasattr(declared, "check"):
        declared.check(recipe)


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


def feature_shapes(recipe: Recipe, weights: Mapping[str, Path]) -> Shapes:
    """Shapes of one segment's features, visual and audio, under `recipe` with `weights`; no network is built.

    Raises:
        ValueError: the weights cannot be read.
    """
    declared = declaration(recipe.encoder)
    visual, audio = declared.SPEC.visual_shape, declared.SPEC.audio_shape
    if weights and hasattr(module := encoder_module(recipe.encoder), "shapes_from"):
        visual, audio = module.shapes_from(recipe, weights)
    elif hasattr(declared, "shapes"):
        visual, audio = declared.shapes(recipe)
    return visual if recipe.video is not None else None, audio if recipe.audio is not None else None
