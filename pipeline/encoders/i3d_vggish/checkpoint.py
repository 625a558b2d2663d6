"""I3D's published files: which of the two layouts one has, and the network it makes."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from catalog.recipe import Recipe
from pipeline.encoders.i3d_vggish.recipes import Settings
from pipeline.networks.checkpoint import BadCheckpoint, build, need_published, read_state, sizes
from pipeline.networks.i3d import Config, I3d
from pipeline.networks.inference import frozen


def i3d_config(path: Path) -> tuple[dict[str, Tensor], Config]:
    """The tensors of an I3D's file, and the layout, stream and sizes that follow from them."""
    state = read_state(path)
    return state, sizes(Config.of, state, where=str(path))


def i3d(path: Path, name: str, recipe: Recipe, device: str) -> I3d:
    """The frozen network of the stream `name`, "rgb" or "flow".

    Raises:
        BadCheckpoint: it is the other stream's, or damaged.
        ValueError: its sizes are not the published ones, and the recipe does not take any.
    """
    state, config = i3d_config(path)
    if config.modality != name:
        raise BadCheckpoint(f"{path}: needs the I3D of {name}, holds that of {config.modality}; are the two swapped?")
    published = Config.published(config.layout, config.modality)
    need_published(config, published, size=Settings.of(recipe).size, where=f"{path}, I3D of {name}")
    where = f"{path}, I3D of {name} ({config.layout})"
    return frozen(build(lambda: I3d(config), state, where=where, optional=("num_batches_tracked",)), device)
