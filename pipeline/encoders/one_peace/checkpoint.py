"""ONE-PEACE's published files as networks: sizes, strict loading, and what a recipe must say to fit them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from catalog.recipe import Recipe
from pipeline.networks import one_peace_video
from pipeline.networks.checkpoint import BadCheckpoint, fill, read_state, sizes
from pipeline.networks.inference import frozen
from pipeline.networks.one_peace import Config, Modality, OnePeace, branch
from pipeline.networks.one_peace_video import VideoTower, completed


def branch_config(path: Path, modality: Modality) -> Config:
    """Sizes of a branch of one-peace.pt.

    Raises:
        BadCheckpoint: the file is damaged, not ONE-PEACE's, or has no projection.
    """
    return _branch_config(_branch_state(path, modality), modality, f"{path}, {modality} branch")


def video_config(path: Path) -> one_peace_video.Config:
    """Sizes of the tower in onepeace_video_k400.pth.

    Raises:
        BadCheckpoint: the file is damaged or another.
    """
    return sizes(one_peace_video.Config.of, _video_state(path), where=str(path))


def read_branch(path: Path, modality: Modality, device: str, recipe: Recipe) -> OnePeace:
    """A branch of one-peace.pt, frozen.

    Raises:
        BadCheckpoint: as `branch_config`; or a key is missing, unknown or of another shape.
        ValueError: sizes other than the published, where `settings.size` does not allow that.
    """
    where = f"{path}, {modality} branch"
    own = _branch_state(path, modality)
    config = _branch_config(own, modality, where)
    _check_published(recipe, config, Config.published(modality), where)
    with torch.device("meta"):
        net = OnePeace(config)
    fill(net, own, where=where)
    return frozen(net, device)


def read_video(path: Path, device: str, recipe: Recipe) -> VideoTower:
    """The tower of onepeace_video_k400.pth without its classifier, frozen.

    Raises:
        BadCheckpoint: the file is damaged or another; or a key is missing, unknown or of another shape.
        ValueError: sizes other than the published, where `settings.size` does not allow that; or the recipe's frames
            are of another number or size than the file's.
    """
    state, sampling = _video_state(path), recipe.video
    assert sampling is not None
    config = sizes(one_peace_video.Config.of, state, where=str(path))
    # Two published configurations, of 16 and of 32 frames, name the same file: it tells which it is.
    _check_published(recipe, replace(config, frames=16), one_peace_video.Config.published(), f"{path}, video tower")
    if config.frames != sampling.frames_per_segment:
        raise ValueError(
            f"{path}: its windows are of {config.frames} frames, recipe {recipe.name} takes "
            f"{sampling.frames_per_segment}; --set video.frames_per_segment={config.frames}"
        )
    side_px = config.side_px
    if (sampling.height_px, sampling.width_px) != (side_px, side_px):
        raise ValueError(
            f"{path}: it sees {side_px} x {side_px} pixels, recipe {recipe.name} gives {sampling.height_px} x "
            f"{sampling.width_px}; --set video.height_px={side_px} --set video.width_px={side_px}"
        )
    with torch.device("meta"):
        tower = VideoTower(config)
    fill(tower, state, where=f"{path}, video tower")
    return frozen(tower, device)


def _branch_state(path: Path, modality: Modality) -> dict[str, Tensor]:
    return _read(path, lambda state: branch(state, modality))


def _branch_config(own: Mapping[str, Tensor], modality: Modality, where: str) -> Config:
    config = sizes(lambda state: Config.of(state, modality), own, where=where)
    if config.embedding is None:
        raise BadCheckpoint(f"{where}: has no {modality}_proj; one-peace.pt is the file that has")
    return config


def _video_state(path: Path) -> dict[str, Tensor]:
    def tower(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return completed({key: tensor for key, tensor in state.items() if not key.startswith("cls_head.")})

    return _read(path, tower)


def _read(path: Path, part: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]) -> dict[str, Tensor]:
    state = read_state(path)
    try:
        return part(state)
    except ValueError as error:
        raise BadCheckpoint(f"{path}: {error}") from error


def _check_published(recipe: Recipe, got: object, needed: object, where: str) -> None:
    if recipe.settings["size"] == "published" and got != needed:
        raise ValueError(
            f"{where}: needs the published sizes {needed}, got {got}; "
            "if that is meant, --set settings.size=from-weights"
        )
