"""What the weights verbs share: the encoder that is meant, its assets, and one asset as a row."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from catalog.errors import BadArguments
from pipeline.encoder import EncoderSpec, encoder_names, encoder_spec
from pipeline.recipes import presets
from pipeline.weights.asset import Asset
from pipeline.weights.folder import part_bytes, size_text, state_of
from pipeline.weights.index import current, size_of


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """The positional ENCODER."""
    parser.add_argument(
        "encoder", metavar="ENCODER", help="an encoder, or a recipe made with it; `avel weights list` shows them"
    )


def spec_of(name: str) -> EncoderSpec:
    """What the encoder `name` (or that of the recipe `name`) declares.

    Raises:
        BadArguments: there is neither.
    """
    if name in encoder_names():
        return encoder_spec(name)
    recipes = presets()
    if name in recipes:
        return encoder_spec(recipes[name].encoder)
    raise BadArguments(f"no encoder or recipe is called {name!r}; the encoders are {', '.join(encoder_names())}")


def asset_of(spec: EncoderSpec, name: str) -> Asset:
    """The encoder's asset `name`.

    Raises:
        BadArguments: it has none of that name.
    """
    for asset in spec.assets:
        if asset.name == name:
            return asset
    known = ", ".join(asset.name for asset in spec.assets) or "none"
    raise BadArguments(f"--asset {name}: encoder {spec.name} has no such asset; it has {known}")


def row_of(spec: EncoderSpec, asset: Asset, folder: Path) -> dict[str, Any]:
    """An asset as JSON: what is published, and what is here."""
    path = folder / asset.filename
    state = state_of(asset, folder)
    entry = current(path, folder) if path.is_file() else None
    return {
        "encoder": spec.name,
        "asset": asset.name,
        **{key: value for key, value in asdict(asset).items() if key != "name"},
        "state": state,
        "path": str(path),
        "bytes_here": size_of(path) if state in ("present", "verified") else part_bytes(asset, folder) or None,
        "sha256_here": entry.sha256 if entry is not None else None,
        "origin": entry.origin if entry is not None else None,
        "added": entry.added if entry is not None else None,
    }


def licence_text(asset: Asset) -> str:
    """The licence, with its restriction spelt out."""
    return f"{asset.licence} (NON-COMMERCIAL)" if asset.non_commercial else asset.licence


def state_text(state: str) -> str:
    """The state of an asset that is here, in words: "present" means that nothing could be checked."""
    return "no hash is published to check it with" if state == "present" else state


def size_of_row(row: Mapping[str, Any]) -> str:
    """The published size, else that of the file here."""
    if row["bytes"] is None and row["state"] in ("present", "verified"):
        return size_text(row["bytes_here"])
    return size_text(row["bytes"])


def commands(spec: EncoderSpec, assets: Sequence[Asset]) -> list[str]:
    """What to type to get the assets: by fetch where they have a URL, by hand in any case."""
    found = []
    if any(asset.url is not None and not asset.is_folder for asset in assets):
        text = " --text" if any(asset.use == "text" for asset in assets) else ""
        accept = " --accept-licence" if any(asset.non_commercial for asset in assets) else ""
        found.append(f"avel weights fetch {spec.name}{text}{accept}")
    for asset in assets:
        chosen = f" --asset {asset.name}" if len(assets) > 1 else ""
        found.append(f"avel weights add {spec.name} {asset.filename}{chosen}")
    return found
