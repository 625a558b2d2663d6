"""`avel weights fetch ENCODER`: an encoder's checkpoints from their publishers into the weights folder."""

from __future__ import annotations

import argparse
from typing import Any

from catalog.errors import BadArguments
from jobs.cli.console import Progress, note, print_json, say, visible
from jobs.weights.manifest import add_encoder, asset_of, row_of, spec_of, state_text
from pipeline.encoder import EncoderSpec
from pipeline.weights.asset import Asset
from pipeline.weights.folder import MissingWeights, fetch, size_text, weights_folder

HELP = "fetch an encoder's checkpoints from their publishers; goes on where it stopped, checks hashes"

EXAMPLES = """\
examples:
  avel weights fetch audioclip
  avel weights fetch audioclip --text
  avel weights fetch imagebind --accept-licence
  AVEL_WEIGHTS_MIRROR=https://files.example.org/weights avel weights fetch audioclip
Run it again after an interruption: what is here is not fetched again. Files go to $AVEL_WEIGHTS (default:
~/.cache/avel/weights); $AVEL_WEIGHTS_MIRROR is a base URL that stands in for all publishers.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder(parser)
    parser.add_argument("--asset", action="append", default=[], metavar="A", help="this file alone (repeatable)")
    parser.add_argument("--text", action="store_true", help="also what only the text tower needs")
    parser.add_argument(
        "--accept-licence", action="store_true", help="you have read a non-commercial licence and keep to it"
    )


def run(args: argparse.Namespace) -> int:
    spec, folder = spec_of(args.encoder), weights_folder()
    assets = _wanted(spec, args)
    absent = [asset for asset in assets if not (folder / asset.filename).exists()]
    for asset in absent:
        if not asset.non_commercial:
            continue
        terms = f"{asset.filename} may be used non-commercially only: {asset.licence}"
        if not args.accept_licence:
            raise BadArguments(f"{terms}; read the licence, and give --accept-licence if you keep to it")
        note(f"avel weights fetch: {visible(terms)}")
    by_hand = []
    for asset in assets:
        with _FetchBar(asset, quiet=args.json) as bar:
            try:
                path = fetch(asset, folder, bar, on_wait=lambda: note("avel weights fetch: another process fetches it"))
            except MissingWeights as error:
                # The other assets may still be fetched.
                by_hand.append(str(error))
                continue
            except KeyboardInterrupt:
                note("avel weights fetch: stopped; the same command goes on from here")
                raise
        if not args.json:
            state = row_of(spec, asset, folder)["state"]
            say(f"{visible(path)}: {state_text(state)}" + ("" if asset in absent else ", was here already"))
    if args.json:
        rows = [{**row_of(spec, asset, folder), "fetched": asset in absent} for asset in assets]
        answer: dict[str, Any] = {"encoder": spec.name, "folder": str(folder), "assets": rows}
        print_json(answer | ({"error": "\n".join(by_hand), "kind": "MissingWeights"} if by_hand else {}))
    for text in by_hand:
        note(f"avel weights fetch: {visible(text)}")
    return 1 if by_hand else 0


def _wanted(spec: EncoderSpec, args: argparse.Namespace) -> list[Asset]:
    if not spec.assets:
        raise BadArguments(f"encoder {spec.name} needs no weights")
    if args.asset:
        return [asset_of(spec, name) for name in dict.fromkeys(args.asset)]
    return [asset for asset in spec.assets if asset.use == "features" or args.text]


class _FetchBar:
    """A progress bar in MB for a fetch; bytes of an interrupted earlier fetch are left out of its rate."""

    def __init__(self, asset: Asset, *, quiet: bool) -> None:
        self._asset, self._quiet = asset, quiet
        self._began = 0
        self._bar: Progress | None = None

    def __enter__(self) -> _FetchBar:
        return self

    def __call__(self, done: int, total: int | None) -> None:
        if self._bar is None or done < self._began:
            self._close()
            self._began = done
            left = None if total is None else _megabytes(total - done)
            what = f"fetch {self._asset.filename}" + (f" from {size_text(done)} on" if done else "")
            self._bar = Progress(what, left, "MB", quiet=self._quiet).__enter__()
        self._bar.advance(_megabytes(done - self._began) - self._bar.done)

    def __exit__(self, *exception: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


def _megabytes(num_bytes: int) -> int:
    return round(num_bytes / 1e6)
