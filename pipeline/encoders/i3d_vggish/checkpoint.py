"""I3D's published files: which of the two layouts one has, and the network it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from catalog.recipe import Recipe
from pipeline.networks.checkpoint import BadCheckpoint, fill, read_state, sizes
from pipeline.networks.i3d import Config, I3d
from pipeline.networks.inference import frozen


def i3d_config(path: Path) -> tuple[dict[str, Tensor], Config]:
    """The tensors of an I3D's file, and what they say of its layout, stream and sizes."""
    state = read_state(path)
    return state, sizes(Config.of, state, where=str(path))


def i3d(path: Path, name: str, recipe: Recipe, device: str) -> Any:
    """The frozen network of the stream `name`, "rgb" or "flow".

    Raises:
        BadCheckpoint: it is the other stream's, or damaged.
        ValueError: its sizes are not the published ones, and the recipe does not take any.
    """
    state, config = i3d_config(path)
    if config.modality != name:
        raise BadCheckpoint(f"{path}: needs the I3D of {name}, holds that of {config.modality}; are the two swapped?")
    if recipe.settings["size"] == "published" and config != Config.published(config.layout, config.modality):
        raise ValueError(
            f"{path}, I3D of {name}: needs the published sizes {Config.published(config.layout, config.modality)}, "
            f"got {config}; if that is meant, --set settings.size=from-weights"
        )
    with torch.device("meta"):
        network = I3d(config)
    fill(network, state, where=f"{path}, I3D of {name} ({config.layout})", optional=("num_batches_tracked",))
    return frozen(network, device)
