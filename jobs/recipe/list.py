"""`avel recipe list`: the presets."""

from __future__ import annotations

import argparse

from jobs.cli.console import print_json, shape_text, table
from pipeline.encoder import encoder_spec
from pipeline.recipes import feature_shapes, presets

HELP = "list the recipes: encoder, grid, shapes of visual and audio features, whether it needs weights"

EXAMPLES = """\
examples:
  avel recipe list
  avel recipe list --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(args: argparse.Namespace) -> int:
    rows, cells = [], []
    for name, recipe in presets().items():
        spec, grid = encoder_spec(recipe.encoder), recipe.grid
        visual_shape, audio_shape = feature_shapes(recipe, {})
        rows.append(
            {
                "recipe": name,
                "encoder": recipe.encoder,
                "window_s": str(grid.window_s),
                "hop_s": str(grid.hop_s),
                "visual_shape": visual_shape and list(visual_shape),
                "audio_shape": audio_shape and list(audio_shape),
                "needs_weights": spec.needs_weights,
                "licence": spec.licence,
                "fingerprint": recipe.fingerprint(),
            }
        )
        shapes = shape_text(visual_shape), shape_text(audio_shape)
        weights = "needed" if spec.needs_weights else "none"
        cells.append((name, recipe.encoder, grid.window_s, grid.hop_s, *shapes, weights, spec.licence))
    if args.json:
        print_json({"recipes": rows})
    else:
        table("Recipes", ("recipe", "encoder", "window s", "hop s", "visual", "audio", "weights", "licence"), cells)
    return 0
