"""`avel weights add ENCODER FILE`: a local file into the weights folder, after checks."""

from __future__ import annotations

import argparse
from pathlib import Path

from catalog.errors import AvelError, BadArguments
from jobs.cli.console import note, print_json, say, visible
from jobs.weights.manifest import add_encoder, asset_of, licence_text, row_of, spec_of, state_text
from pipeline.encoder import EncoderSpec, encoder_presets
from pipeline.recipes import feature_shapes
from pipeline.weights.asset import Asset
from pipeline.weights.folder import add, weights_folder

HELP = "put a published checkpoint that you have into the weights folder, after checks"

EXAMPLES = """\
examples:
  avel weights add imagebind ~/Downloads/imagebind_huge.pth
  avel weights add audioclip /data/AudioCLIP-Full-Training.pt --link
  avel weights add vgg19_vggish /data/renamed.pth --asset vggish
The folder holds published files alone. A checkpoint of your own stays where it is:
`avel extract --weights FILE --as NAME`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder(parser)
    parser.add_argument("file", type=Path, metavar="FILE", help="a file, or the folder of a checkpoint that is one")
    parser.add_argument("--asset", metavar="A", help="which one it is, where its file name is not the published one")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--copy", action="store_true", help="copy it (the default)")
    how.add_argument("--link", action="store_true", help="link to it; it must stay where it is")


def run(args: argparse.Namespace) -> int:
    spec, folder = spec_of(args.encoder), weights_folder()
    asset = _chosen_asset(spec, args)
    _check_folder(spec, asset, args.file)
    path = add(asset, args.file, folder, link=args.link)
    row = row_of(spec, asset, folder)
    if asset.non_commercial:
        note(f"avel weights add: {visible(asset.filename)}: {visible(licence_text(asset))}")
    if args.json:
        print_json(row)
    else:
        say(f"{visible(path)}: {state_text(row['state'])}")
    return 0


def _chosen_asset(spec: EncoderSpec, args: argparse.Namespace) -> Asset:
    if not spec.assets:
        raise BadArguments(f"encoder {spec.name} needs no weights")
    if args.asset is not None:
        return asset_of(spec, args.asset)
    named = [asset for asset in spec.assets if asset.filename == args.file.name]
    needed = [asset for asset in spec.assets if asset.use == "features"]
    meant = named or needed
    if len(meant) != 1:
        known = ", ".join(f"{asset.name} ({asset.filename})" for asset in spec.assets)
        raise BadArguments(f"which of {spec.name}'s files is {args.file}? Say --asset with one of {known}")
    return meant[0]


def _check_folder(spec: EncoderSpec, asset: Asset, path: Path) -> None:
    """A folder has no published hash: at least its model type must be the asset's."""
    presets = encoder_presets(spec.name)
    if not (asset.is_folder and path.is_dir() and presets):
        return
    try:
        feature_shapes(presets[0], {asset.name: path})
    except AvelError as error:
        raise ValueError(f"asset {asset.name} of {spec.name}: {error}") from error
