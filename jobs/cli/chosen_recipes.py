"""The recipes, checkpoints and device that the options of `recipe_options.py` ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from catalog.errors import BadArguments
from catalog.recipe import Recipe
from catalog.synthetic.planting import ENCODER
from pipeline.encoder import assets_of, encoder_names, encoder_spec
from pipeline.recipes import check_settings, find_recipe, presets
from pipeline.weights import folder as weights

# Recipe name -> asset name -> file.
Weights = dict[str, dict[str, Path]]


def chosen_recipe(name: str, changed: Mapping[str, str], stored_as: str | None = None) -> Recipe:
    """The preset `name` with its changes, under the name `stored_as`.

    Raises:
        BadArguments: no such preset, field, value or setting.
    """
    try:
        recipe = find_recipe(name).changed(changed)
        check_settings(recipe)
        return replace(recipe, name=stored_as) if stored_as else recipe
    except ValueError as error:
        raise BadArguments(str(error)) from error


def with_weights(
    recipes: Sequence[Recipe], texts: Sequence[str], *, for_text: bool = False
) -> tuple[list[Recipe], Weights]:
    """The recipes with their checkpoints' hashes (other weights are another recipe), and the files.

    Args:
        texts: of `--weights`.
        for_text: the text tower's assets are needed too.

    Raises:
        BadArguments: no encoder makes such features, or a path is not there or not of this recipe's checkpoint.
        MissingWeights: a needed file is absent; the message has the commands to get it.
    """
    given: dict[str, list[str]] = {recipe.name: [] for recipe in recipes}
    for text in texts:
        name, colon, rest = text.partition(":")
        if colon and name in given:
            given[name].append(rest)
        elif len(recipes) == 1:
            given[recipes[0].name].append(text)
        else:
            raise BadArguments(f"--weights needs RECIPE:PATH with one of {', '.join(given)}, got {text!r}")
    found, files = [], Weights()
    for recipe in recipes:
        identity, files[recipe.name] = _resolve(recipe, given[recipe.name], for_text=for_text)
        found.append(replace(recipe, weights_sha256=identity))
    return found, files


def check_name(
    recipe: Recipe,
    files: Mapping[str, Path],
    held: Mapping[str, Recipe],
    *,
    how: str = "give it a name of its own, such as",
) -> None:
    """A preset's name is the preset's alone, with the weights as published where their publisher states a hash.

    Args:
        files: asset name -> its checkpoint.
        held: recipes of the store by name; one that it holds as it is goes on, whatever it is called.
        how: what the message says to do, before the `--as` that names it.

    Raises:
        BadArguments: the recipe is another than the preset of its name; says in what.
    """
    preset = presets().get(recipe.name)
    if preset is None or held.get(recipe.name) == recipe:
        return
    changed = [f"{field}={here}" for field, here, _ in replace(recipe, weights_sha256=None).differences(preset)]
    for asset in assets_of(recipe):
        if asset.name in files and asset.use == "features" and asset.has_stated_hash:
            try:
                weights.check(asset, files[asset.name])
            except ValueError:
                changed.append(f"weights other than {asset.filename} as published")
    if changed:
        raise BadArguments(
            f"{recipe.name} with {', '.join(changed)} is not the preset of that name: {how} --as {recipe.name}-mine"
        )


def device(asked: str, recipes: Sequence[Recipe]) -> tuple[str, int]:
    """The device of the recipes' encoders ("cpu" or "cuda"), and how many GPUs this machine has for them.

    Raises:
        BadArguments: a GPU is asked for, and there is none.
    """
    wants_gpu = any(encoder_spec(recipe.encoder).device == "gpu" for recipe in recipes)
    if asked == "cpu" or (asked == "auto" and not wants_gpu):
        return "cpu", 0
    import torch  # takes seconds, and encoders without a network do without it

    if torch.cuda.is_available():
        return "cuda", torch.cuda.device_count()
    if asked == "cuda":
        raise BadArguments("--device cuda: this machine has no GPU that torch can use; leave it out to run on the CPU")
    return "cpu", 0


def _resolve(recipe: Recipe, given: Sequence[str], *, for_text: bool) -> tuple[str | None, dict[str, Path]]:
    """The identity of a recipe's checkpoints and their files; `given` are the paths named for it."""
    _check_encoder(recipe)
    assets = assets_of(recipe)
    if not assets and given:
        raise BadArguments(f"--weights: recipe {recipe.name} is made without weights; leave {given[0]!r} out")
    try:
        paths = weights.resolve(assets, given, recipe_name=recipe.name, for_text=for_text, encoder=recipe.encoder)
    except weights.MissingWeights:
        raise
    except ValueError as error:
        raise BadArguments(str(error)) from error
    identity = weights.identity(assets, paths)
    if recipe.weights_sha256 not in (None, identity):
        raise BadArguments(
            f"recipe {recipe.name} is made with the weights {recipe.weights_sha256}, those at "
            f"{', '.join(map(str, paths.values()))} are {identity}"
        )
    return identity, paths


def _check_encoder(recipe: Recipe) -> None:
    """Refuse a recipe of a store (or of a head trained on it) whose features no encoder here makes."""
    if recipe.encoder in encoder_names():
        return
    if recipe.encoder == ENCODER:
        why = "was planted (`avel synth-features`), and planted features have no encoder"
    else:
        why = f"was made elsewhere ({recipe.encoder}), and no encoder of that name is here"
    raise BadArguments(
        f"recipe {recipe.name} {why}: neither it nor a head trained on it can be run on media; extract with one of "
        "`avel recipe list` and train on that"
    )
