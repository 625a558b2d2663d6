"""Weights told apart by names and shapes: their numbers are never asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench import random_weights
from pipeline.encode import check_weights, load_encoder
from pipeline.networks.checkpoint import BadCheckpoint, read_state, shapes_only
from pipeline.recipes import find_recipe
from tests.pipeline.encoders.small_audioclip import SMALL, write_small

RECIPE = find_recipe("audioclip-1s").changed(SMALL)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("weights") / "small.pt")


@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_file_of_the_network_is_taken_whatever_its_numbers(path: Path, tmp_path: Path, form: str) -> None:
    state = {key: tensor.clone().contiguous() for key, tensor in read_state(path).items()}
    state["visual.conv1.weight"].fill_(float("nan"))
    other = tmp_path / "other"
    if form == "safetensors":
        save_file(state, other)
    else:
        torch.save(state, other, _use_new_zipfile_serialization=form == "zip")
    check_weights(RECIPE, {"audioclip": other})
    with shapes_only():
        assert all(tensor.is_meta for tensor in read_state(other).values())
    # The load does ask, also after a look at the shapes.
    with pytest.raises(BadCheckpoint, match=r"conv1\.weight holds NaN"):
        load_encoder(RECIPE, {"audioclip": other})


@pytest.mark.parametrize("form", ["zip", "safetensors"])
@pytest.mark.parametrize(
    ("key", "shape", "told"),
    [
        ("visual.conv1.weight", None, r"missing: visual\.conv1\.weight|conv1"),
        ("visual.conv1.weight", (3, 3), "conv1"),
        ("visual.stranger", (3,), r"not wanted: .*stranger"),
    ],
)
def test_file_of_another_network_is_refused_and_named(
    path: Path, tmp_path: Path, form: str, key: str, shape: tuple[int, ...] | None, told: str
) -> None:
    state = {name: tensor.clone().contiguous() for name, tensor in read_state(path).items() if name != key}
    if shape is not None:
        state[key] = torch.zeros(shape)
    other = tmp_path / "other.pt"
    save_file(state, other) if form == "safetensors" else torch.save(state, other)
    with pytest.raises(BadCheckpoint, match=told) as caught:
        check_weights(RECIPE, {"audioclip": other})
    assert str(other) in str(caught.value)


def test_small_file_under_a_recipe_of_the_published_size_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="small"):
        check_weights(find_recipe("audioclip-1s"), {"audioclip": path})


def test_folder_is_told_by_its_model_type_and_an_asset_not_given_by_its_name(tmp_path: Path) -> None:
    recipe = find_recipe("clip-clap-1s")
    clap = random_weights.write("clip_clap", "audio", tmp_path, small=True)["clap"]
    with pytest.raises(BadCheckpoint, match=r"clap: needs a checkpoint folder of model type 'clip', got 'clap'"):
        check_weights(recipe, {"clip": clap, "clap": clap})
    vgg19 = random_weights.write("vgg19_vggish", "visual", tmp_path)
    with pytest.raises(ValueError, match="needs its asset vggish"):
        check_weights(find_recipe("vgg19-vggish-1s"), vgg19)
