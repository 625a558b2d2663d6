"""`avel labels` at work: the names, the recipe that encodes them, and their features into the store."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from catalog.errors import BadArguments
from catalog.recipe import NAME, Recipe
from catalog.store.reader import create_store, exists, open_store, recipes_of
from catalog.store.writer import open_writer
from catalog.vocabulary import read_vocabulary
from jobs.cli.chosen_dataset import optional_dataset
from jobs.cli.chosen_recipes import check_name, chosen_recipe, with_weights
from jobs.cli.chosen_recipes import device as device_of
from jobs.cli.console import note, print_json, say
from jobs.cli.recipe_options import changes
from jobs.labels.verb import OTHER
from pipeline.encode_labels import encode_labels
from pipeline.encoder import encoder_names, encoder_spec
from pipeline.extract import ensure_recipe


def run(args: argparse.Namespace) -> int:
    vocabulary, names = _names(args)
    if not NAME.fullmatch(vocabulary):
        raise BadArguments(f"--name needs letters, digits, '.', '_' and '-', got {vocabulary!r}")
    if args.prompt.count("{}") != 1:
        raise BadArguments(f"--prompt needs {{}} once, where the class name goes, got {args.prompt!r}")
    held = recipes_of(args.store)
    wanted = _recipe(args, held)
    _check_text_tower(wanted)
    (recipe,), weights = with_weights([wanted], args.weights, for_text=True)
    check_name(recipe, weights[recipe.name], held, how="extract with it first, under a name of its own, such as")
    answer: dict[str, object] = {
        "store": str(args.store),
        "recipe": recipe.name,
        "vocabulary": vocabulary,
        "names": list(names),
    }
    if args.dry_run:
        if args.json:
            print_json(answer)
        else:
            say(f"would encode {len(names)} names as {vocabulary} with {recipe.name}: {', '.join(names[:5])}, ...")
        return 0
    device, _ = device_of(args.device, [recipe])
    note(f"avel labels: {len(names)} names with {recipe.name} on {device}")
    features_KD = encode_labels(names, recipe, weights[recipe.name], prompt=args.prompt, device=device)
    store = open_store(args.store) if exists(args.store) else create_store(args.store)
    with open_writer(store, wait_s=args.wait) as writer:
        ensure_recipe(writer, recipe, weights[recipe.name])
        writer.write_labels(recipe.name, vocabulary, names, features_KD, prompt=args.prompt)
        snapshot = writer.commit(f"labels {vocabulary} of {recipe.name}: {len(names)} names")
    width = int(features_KD.shape[1])
    if args.json:
        print_json(answer | {"width": width, "prompt": args.prompt, "snapshot": snapshot})
    else:
        say(f"{args.store}: labels {vocabulary} of {recipe.name}: {len(names)} names x {width}, snapshot {snapshot}")
    return 0


def _names(args: argparse.Namespace) -> tuple[str, tuple[str, ...]]:
    """The vocabulary's name and its class names."""
    chosen = optional_dataset(args)
    if chosen is not None:
        name, names = args.name or args.dataset, chosen.classes
        if not names:
            raise BadArguments(f"data set {args.dataset} has no classes")
    else:
        if not args.vocabulary.is_file():
            raise BadArguments(f"--vocabulary {args.vocabulary}: no such file")
        name, names = args.name or args.vocabulary.stem, read_vocabulary(args.vocabulary)
    if args.no_other or OTHER in names:
        return name, names
    return name, (*names, OTHER)


def _recipe(args: argparse.Namespace, held: Mapping[str, Recipe]) -> Recipe:
    """The store's recipe of that name as it is there, else the preset."""
    changed = changes(args.set)
    if args.recipe not in held:
        return chosen_recipe(args.recipe, changed)
    if changed:
        raise BadArguments(
            f"{args.store} holds recipe {args.recipe!r}: its labels are made with its settings; no --set"
        )
    return held[args.recipe]


def _check_text_tower(recipe: Recipe) -> None:
    """Refuse an encoder that has none before anybody is sent for its weights."""

    def has_one(encoder: str) -> bool:
        return encoder_spec(encoder).text_width is not None

    # Of encoders that are none `with_weights` says whose they are.
    if recipe.encoder in encoder_names() and not has_one(recipe.encoder):
        having = ", ".join(name for name in encoder_names() if has_one(name))
        raise BadArguments(
            f"--recipe {recipe.name}: its encoder {recipe.encoder} has no text tower; those with one: {having}"
        )
