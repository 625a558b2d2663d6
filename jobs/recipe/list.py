"""`avel recipe list`: the presets."""

from __future__ import annotations

import argparse

from jobs.cli.console import print_json, table
from pipeline.encode import encoder_module, feature_shapes, presets

HELP = "list the recipes: encoder, grid, what it sees and hears, whether it needs weights"

EXAMPLES = """\
examples:
  avel recipe list
  avel recipe list --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def run(args: argparse.Namespace) -> int:
    rows = []
    for name, recipe in presets().items():
        spec = encoder_spec(recipe.encoder)
        visual_shape, audio_shape = feature_shapes(recipe, {})
        rows.append(
            {
                "recipe": name,
                "encoder": recipe.encoder,
                "window_s": str(recipe.grid.window_s),
                "hop_s": str(recipe.grid.hop_s),
                "visual_shape": visual_shape and list(visual_shape),
                "audio_shape": audio_shape and list(audio_shape),
                "needs_weights": spec.needs_weights,
                "licence": spec.licence,
                "fingerprint": recipe.fingerprint(),
            }
        )
    if args.json:
        print_json({"recipes": rows})
        return 0
    table(
        "Recipes",
        ("recipe", "encoder", "window s", "hop s", "visual", "audio", "weights", "licence"),
        [
            (
                row["recipe"],
                row["encoder"],
                row["window_s"],
                row["hop_s"],
                _shape(row["visual_shape"]),
                _shape(row["audio_shape"]),
                "needed" if row["needs_weights"] else "none",
                row["licence"],
            )
            for row in rows
        ],
    )
    return 0


def _shape(shape: object) -> str:
    return " x ".join(str(size) for size in shape) if isinstance(shape, list) else "-"
