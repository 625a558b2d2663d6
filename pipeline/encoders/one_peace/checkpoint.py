"""ONE-PEACE's published files as networks: sizes, strict loading, and whether a recipe fits them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from catalog.recipe import Recipe
from pipeline.encoders.one_peace.recipes import Settings
from pipeline.networks import one_peace_video
from pipeline.networks.checkpoint import BadCheckpoint, build, need_published, read_state, sizes
from pipeline.networks.inference import frozen
from pipeline.networks.one_peace import Config, Modality, OnePeace, branch
from pipeline.networks.one_peace_video import VideoTower, completed


def audio_width(path: Path, recipe: Recipe) -> int:
    """Width of the audio features of one-peace.pt.

    Raises:
        BadCheckpoint: the file is damaged, not ONE-PEACE's, or has no projection.
    """
    config = _branch_config(_branch_state(path, "audio"), "audio", f"{path}, audio branch")
    assert config.embedding is not None
    return config.width if Settings.of(recipe).audio_feature == "class_token" else config.embedding


def video_config(path: Path) -> one_peace_video.Config:
    """Sizes of the tower in onepeace_video_k400.pth.

    Raises:
        BadCheckpoint: the file is damaged or another.
    """
    return sizes(one_peace_video.Config.of, _video_state(path), where=str(path))


def read_branch(path: Path, modality: Modality, device: str, recipe: Recipe) -> OnePeace:
    """A branch of one-peace.pt, frozen.

    Raises:
        BadCheckpoint: as `audio_width`; or a key is missing, unknown or of another shape.
        ValueError: sizes other than the published, where `settings.size` does not allow that.
    """
    where = f"{path}, {modality} branch"
    own = _branch_state(path, modality)
    config = _branch_config(own, modality, where)
    need_published(config, Config.published(modality), size=Settings.of(recipe).size, where=where)
    return frozen(build(lambda: OnePeace(config), own, where=where), device)


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
    where = f"{path}, video tower"
    # Two published configurations, of 16 and of 32 frames, name the same file: its tensors show which one it is.
    published = one_peace_video.Config.published()
    need_published(replace(config, frames=16), published, size=Settings.of(recipe).size, where=where)
    if config.frames != sampling.frames_per_segment:
        raise ValueError(
            f"{path}: its windows are of {config.frames} frames, recipe {recipe.name} takes "
            f"{sampling.frames_per_segment}; --set video.frames_per_segment={config.frames}"
        )
    side_px = config.side_px
    if (sampling.height_px, sampling.width_px) != (side_px, side_px):
        raise ValueError(
            f"{path}: it takes {side_px} x {side_px} pixels, recipe {recipe.name} gives {sampling.height_px} x "
            f"{sampling.width_px}; --set video.height_px={side_px} --set video.width_px={side_px}"
        )
    return frozen(build(lambda: VideoTower(config), state, where=where), device)


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
