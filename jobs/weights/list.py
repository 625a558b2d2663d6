"""`avel weights list`: every encoder's checkpoints and vocabularies, and which of them are here."""

from __future__ import annotations

import argparse

from jobs.cli.console import note, print_json, say, table
from jobs.weights.manifest import licence_text, row_of, size_of_row
from pipeline.encoder import encoder_names, encoder_spec
from pipeline.weights.folder import check, sha256_of, weights_folder

HELP = "list the encoders' checkpoints: file, size, licence, whether it is here and checked"

EXAMPLES = """\
examples:
  avel weights list
  avel weights list --check
  avel weights list --json
States: `verified` is what its publisher states, `present` is here (its hash is not known yet: --check reads it; or none
is stated), `partial` is an interrupted fetch, `differs` is another file. Files are in $AVEL_WEIGHTS (default:
~/.cache/avel/weights).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="read every file that is here and check its hash")


def run(args: argparse.Namespace) -> int:
    folder = weights_folder()
    rows, cells, damaged = [], [], []
    for name in encoder_names():
        spec = encoder_spec(name)
        for asset in spec.assets:
            path = folder / asset.filename
            if args.check and path.exists():
                try:
                    check(asset, path)
                    sha256_of(path)
                except ValueError as error:
                    damaged.append(str(error))
            row = row_of(spec, asset, folder)
            rows.append(row)
            what = f"{asset.name} (text)" if asset.use == "text" else asset.name
            cells.append((name, what, asset.filename, size_of_row(row), licence_text(asset), row["state"]))
    if args.json:
        print_json({"folder": str(folder), "assets": rows, "damaged": damaged})
    else:
        table("Weights", ("encoder", "asset", "file", "size", "licence", "state"), cells)
        say(f"folder: {folder}")
    for text in damaged:
        note(f"avel weights list: {text}")
    return 1 if damaged else 0
