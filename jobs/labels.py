"""`avel labels`: class names as text features, beside the media features of the same encoder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.cli.recipe_options import add_set, add_weights
from jobs.cli.store_options import add_wait

if TYPE_CHECKING:
    from catalog.recipe import Recipe

HELP = "store class names' text features, for heads with an open vocabulary"
EXAMPLES = """\
examples:
  avel labels --store features --recipe imagebind-1s --dataset ovavebench --root OV-AVEBench
  avel labels --store features --recipe imagebind-1s --vocabulary my-classes.txt --name mine
  avel labels --store features --recipe audioclip-1s --vocabulary my-classes.txt --prompt 'a sound of {}'
A vocabulary file has one class name a line (or is a CSV with a column `display_name`, or a JSON list). `other`, the
class of seconds without an event, is added at its end unless it is there or --no-other is given. A recipe that the
store has is used with the settings stored; the same vocabulary again replaces its features.
"""

OTHER = "other"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", required=True, metavar="STORE", help="a folder or s3://bucket/prefix; made if absent"
    )
    parser.add_argument("--recipe", required=True, metavar="R", help="of the store, or a preset with a text tower")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--vocabulary", type=Path, metavar="FILE", help="class names, one a line")
    what.add_argument("--dataset", metavar="NAME", help="the classes of a data set: ave, ovavebench, unav100")
    parser.add_argument("--root", metavar="DIR", help="where the data set's official files are")
    parser.add_argument(
        "--name", metavar="NAME", help="of the vocabulary in the store (default: the file's or data set's)"
    )
    parser.add_argument("--prompt", default="{}", metavar="TEXT", help="what is encoded; {} is the name (default: {})")
    parser.add_argument("--no-other", action="store_true", help=f"do not add {OTHER!r}")
    add_set(parser)
    add_weights(parser)
    add_wait(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be encoded")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from catalog.errors import BadArguments
    from catalog.recipe import NAME
    from catalog.store.reader import create_store, exists, open_store
    from catalog.store.writer import open_writer
    from jobs.cli.chosen_recipes import device as device_of
    from jobs.cli.chosen_recipes import with_weights
    from jobs.cli.console import note, print_json, say
    from pipeline.encode_labels import encode_labels
    from pipeline.extract import ensure_recipe

    vocabulary, names = _names(args)
    if not NAME.fullmatch(vocabulary):
        raise BadArguments(f"--name needs letters, digits, '.', '_' and '-', got {vocabulary!r}")
    if args.prompt.count("{}") != 1:
        raise BadArguments(f"--prompt needs {{}} once, where the class name goes, got {args.prompt!r}")
    wanted = _recipe(args)
    _check_text_tower(wanted)
    (recipe,), weights = with_weights([wanted], args.weights, for_text=True)
    if args.dry_run:
        found = {"store": str(args.store), "recipe": recipe.name, "vocabulary": vocabulary, "names": list(names)}
        if args.json:
            print_json(found)
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
    if args.json:
        print_json(
            {
                "store": str(args.store),
                "recipe": recipe.name,
                "vocabulary": vocabulary,
                "names": list(names),
                "width": int(features_KD.shape[1]),
                "prompt": args.prompt,
                "snapshot": snapshot,
            }
        )
    else:
        width = features_KD.shape[1]
        say(f"{args.store}: labels {vocabulary} of {recipe.name}: {len(names)} names x {width}, snapshot {snapshot}")
    return 0


def _names(args: argparse.Namespace) -> tuple[str, tuple[str, ...]]:
    """The vocabulary's name and its class names."""
    from catalog import dataset
    from catalog.errors import BadArguments
    from catalog.vocabulary import read_vocabulary

    if args.vocabulary is not None:
        if args.root:
            raise BadArguments("--root goes with --dataset")
        if not args.vocabulary.is_file():
            raise BadArguments(f"--vocabulary {args.vocabulary}: no such file")
        name, names = args.name or args.vocabulary.stem, read_vocabulary(args.vocabulary)
    else:
        if not args.root:
            raise BadArguments(f"--dataset {args.dataset} needs --root DIR, where its official files are")
        if args.dataset not in dataset.names():
            raise BadArguments(f"no data set is called {args.dataset!r}; there are {', '.join(dataset.names())}")
        name, names = args.name or args.dataset, dataset.load(args.dataset, args.root).classes
        if not names:
            raise BadArguments(f"data set {args.dataset} has no classes")
    if args.no_other or OTHER in names:
        return name, names
    return name, (*names, OTHER)


def _recipe(args: argparse.Namespace) -> Recipe:
    """The store's recipe of that name as it is there, else the preset."""
    from catalog.errors import BadArguments
    from catalog.store.reader import exists, open_store
    from jobs.cli.chosen_recipes import chosen_recipe
    from jobs.cli.recipe_options import changes

    changed = changes(args.set)
    stored = open_store(args.store).recipes() if exists(args.store) else {}
    if args.recipe not in stored:
        return chosen_recipe(args.recipe, changed)
    if changed:
        raise BadArguments(
            f"{args.store} holds recipe {args.recipe!r}: its labels are made with its settings; no --set"
        )
    return stored[args.recipe].recipe


def _check_text_tower(recipe: Recipe) -> None:
    """Refuse an encoder that has none before anybody is sent for its weights."""
    from catalog.errors import BadArguments
    from pipeline.encoder import encoder_names, encoder_spec

    def has_one(encoder: str) -> bool:
        return encoder_spec(encoder).text_width is not None

    # Of encoders that are none `with_weights` says whose they are.
    if recipe.encoder in encoder_names() and not has_one(recipe.encoder):
        having = ", ".join(name for name in encoder_names() if has_one(name))
        raise BadArguments(
            f"--recipe {recipe.name}: its encoder {recipe.encoder} has no text tower; those with one: {having}"
        )
