"""The recipes, checkpoints and device of the command line."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from catalog.errors import BadArguments
from jobs.cli.chosen_recipes import chosen_recipe, device, with_weights
from pipeline.recipes import find_recipe
from pipeline.weights.folder import MissingWeights


def test_chosen_recipe_is_the_preset_with_its_changes_under_the_new_name() -> None:
    preset = find_recipe("descriptors-1s")
    chosen = chosen_recipe("descriptors-1s", {"grid.hop_s": "1/2"}, "half")
    assert chosen.name == "half"
    assert chosen.grid.hop_s == Fraction(1, 2)
    assert replace(chosen, name=preset.name, grid=preset.grid) == preset


@pytest.mark.parametrize("changed", [{"grid.hop": "1"}, {"grid.hop_s": "never"}])
def test_chosen_recipe_refuses_unknown_fields_and_values(changed: dict[str, str]) -> None:
    with pytest.raises(BadArguments):
        chosen_recipe("descriptors-1s", changed)


def test_recipe_without_weights_keeps_its_fingerprint_and_takes_no_file() -> None:
    recipe = find_recipe("descriptors-1s")
    ((found,), files) = with_weights([recipe], [])
    assert (found, files) == (recipe, {"descriptors-1s": {}})
    with pytest.raises(BadArguments, match=r"is made without weights; leave 'x\.pt' out"):
        with_weights([recipe], ["x.pt"])


def test_weights_of_several_recipes_name_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVEL_WEIGHTS", str(tmp_path))
    recipes = [find_recipe("audioclip-1s"), find_recipe("imagebind-1s")]
    with pytest.raises(BadArguments, match=r"needs RECIPE:PATH with one of audioclip-1s, imagebind-1s, got 'x\.pt'"):
        with_weights(recipes, ["x.pt"])
    with pytest.raises(BadArguments, match=r"x\.pt"):
        with_weights(recipes, [f"audioclip-1s:{tmp_path / 'x.pt'}"])
    with pytest.raises(MissingWeights, match="avel weights fetch audioclip"):
        with_weights(recipes, [])


@pytest.mark.parametrize(
    ("encoder", "message"), [("planted", "planted features have no encoder"), ("elsewhere", "was made elsewhere")]
)
def test_recipes_that_no_encoder_makes_are_refused(encoder: str, message: str) -> None:
    with pytest.raises(BadArguments, match=message):
        with_weights([replace(find_recipe("descriptors-1s"), encoder=encoder)], [])


def test_device_is_the_cpu_unless_an_encoder_wants_the_gpu_that_is_there() -> None:
    light, heavy = find_recipe("descriptors-1s"), find_recipe("audioclip-1s")
    assert device("auto", [light]) == ("cpu", 0)
    assert device("cpu", [light, heavy]) == ("cpu", 0)
    gpus = torch.cuda.device_count()
    assert device("auto", [light, heavy]) == (("cuda", gpus) if gpus else ("cpu", 0))
    if gpus:
        assert device("cuda", [light]) == ("cuda", gpus)
    else:
        with pytest.raises(BadArguments, match="no GPU that torch can use"):
            device("cuda", [light])
