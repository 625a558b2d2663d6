"""`avel recipe show NAME`: every setting of a recipe, also of a changed one."""

from __future__ import annotations

import argparse
import json

from catalog.fingerprint import plain
from jobs.cli.chosen_recipes import chosen_recipe
from jobs.cli.console import leaves, print_json, shape_text, table
from jobs.cli.recipe_options import add_set, changes
from pipeline.encoder import encoder_spec
from pipeline.recipes import feature_shapes, find_recipe

HELP = "show every setting of a recipe and its fingerprint; --set shows a changed one"

EXAMPLES = """\
examples:
  avel recipe show descriptors-1s
  avel recipe show descriptors-1s --set grid.hop_s=1/2 --set video.frames_per_segment=4
  avel recipe show descriptors-1s --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a preset; `avel recipe list` shows them")
    add_set(parser)


def run(args: argparse.Namespace) -> int:
    recipe = chosen_recipe(args.name, changes(args.set))
    preset = find_recipe(args.name)
    spec = encoder_spec(recipe.encoder)
    visual_shape, audio_shape = feature_shapes(recipe, {})
    differences = preset.differences(recipe)
    if args.json:
        print_json(
            {
                "recipe": json.loads(recipe.to_json()),
                "fingerprint": recipe.fingerprint(),
                "changed": [path for path, _, _ in differences],
                "visual_shape": visual_shape and list(visual_shape),
                "audio_shape": audio_shape and list(audio_shape),
                "needs_weights": spec.needs_weights,
                "licence": spec.licence,
                "citation": spec.citation,
            }
        )
        return 0
    was = {path: value for path, value, _ in differences}
    rows = []
    for path, value in leaves(plain(recipe)):
        note = f"preset: {was[path]}" if path in was else ""
        rows.append((path, "-" if value is None else value, note))
    remark = "of published weights" if spec.needs_weights else ""
    for tower, shape in (("visual", visual_shape), ("audio", audio_shape)):
        rows.append((f"{tower} feature", shape_text(shape), remark))
    rows += [("licence", spec.licence, ""), ("citation", spec.citation, "")]
    rows.append(("fingerprint", recipe.fingerprint(), "differs from the preset's" if differences else ""))
    table(f"Recipe {recipe.name}", ("setting", "value", ""), rows)
    return 0
