"""`avel weights show ENCODER`: all that is known of an encoder's files, and how to get them."""

from __future__ import annotations

import argparse

from jobs.cli.console import print_json, say, table
from jobs.weights.manifest import add_encoder, commands, licence_text, row_of, spec_of
from pipeline.weights.folder import size_text, weights_folder

HELP = "show an encoder's checkpoints in full: source, hash, licence, citation, path, how to get them"

EXAMPLES = """\
examples:
  avel weights show imagebind
  avel weights show audioclip-1s --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder(parser)


def run(args: argparse.Namespace) -> int:
    spec, folder = spec_of(args.encoder), weights_folder()
    rows = [row_of(spec, asset, folder) for asset in spec.assets]
    absent = [asset for asset, row in zip(spec.assets, rows, strict=True) if row["state"] in ("missing", "partial")]
    to_type = commands(spec, absent)
    if args.json:
        print_json(
            {
                "encoder": spec.name,
                "licence": spec.licence,
                "citation": spec.citation,
                "folder": str(folder),
                "assets": rows,
                "commands": to_type,
            }
        )
        return 0
    if not rows:
        say(f"Encoder {spec.name} needs no weights.")
        return 0
    for asset, row in zip(spec.assets, rows, strict=True):
        lines: list[tuple[str, object]] = [
            ("file", asset.filename + (" (a folder)" if asset.is_folder else "")),
            ("for", "text features alone" if asset.use == "text" else "media features"),
            ("from", asset.url or "no URL: fetch it by hand"),
            ("size", f"{asset.bytes} bytes ({size_text(asset.bytes)})" if asset.bytes is not None else "not stated"),
        ]
        stated = {
            "SHA-256": asset.sha256,
            "SHA-256 begins with": asset.sha256_prefix,
            "git blob": asset.git_blob,
        }
        lines += [(f"published {what}", value) for what, value in stated.items() if value is not None]
        if not asset.has_stated_hash:
            lines.append(("published hash", "none: the SHA-256 of the first copy is recorded"))
        lines += [
            ("licence", licence_text(asset)),
            ("citation", asset.citation or spec.citation),
            ("path", row["path"]),
            ("state", row["state"]),
        ]
        here = {"bytes here": row["bytes_here"], "SHA-256 here": row["sha256_here"]}
        here |= {"came from": row["origin"], "came on": row["added"]}
        lines += [(what, value) for what, value in here.items() if value is not None]
        table(f"{spec.name}: {asset.name}", ("", ""), lines)
    for line in to_type:
        say(line)
    return 0
