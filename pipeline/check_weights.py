"""Weights looked at before a run: are they those of the encoder? By names and shapes, in a moment."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from catalog.recipe import Recipe
from pipeline.encode import GivenWeights, assets_of, encoder_module, feature_shapes


def check_weights(recipe: Recipe, weights: Mapping[str, Path]) -> None:
    """Refuses files of another network than the recipe's encoder, as far as names and shapes tell.

    Of a folder of the transformers library the configuration is read: its model type, and what it says of widths.

    Args:
        weights: asset name -> file, as `pipeline.weights.folder.resolve` gives them.

    Raises:
        BadCheckpoint: a file is damaged or of another network, a folder of another model type.
        ValueError: of other sizes than the recipe says, or an asset is not given.
        OSError: it cannot be read.
    """
    feature_shapes(recipe, weights)
    assets = assets_of(recipe)
    if not assets or any(asset.is_folder for asset in assets):
        return
    from pipeline.networks.checkpoint import shapes_only

    # What an encoder makes of its numbers while it loads cannot be made here, and is no fault of the file: torch says
    # NotImplementedError or RuntimeError. Faults of the file are ValueErrors.
    with shapes_only(), contextlib.suppress(NotImplementedError, RuntimeError):
        encoder_module(recipe.encoder).load(GivenWeights(recipe, weights), "meta", recipe)
