"""`avel store verify STORE`: every promise of the store checked; its features against published ones."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from catalog.errors import BadArguments
from catalog.exchange.compare import Agreement, Comparison, compare
from catalog.store.reader import FeatureStore, open_store
from catalog.store.verify import Verification, verify
from jobs.cli.chosen_dataset import optional_dataset
from jobs.cli.console import Progress, note, print_json, say, table
from jobs.cli.dataset_options import add_root
from jobs.cli.store_options import add_at, add_store
from jobs.store.choices import chosen_grid, chosen_recipe_name
from jobs.store.comparison import by_stream, print_comparison, sentence

HELP = "check that a store is complete, finite where valid, on its grid, and made of these media"

EXAMPLES = """\
examples:
  avel store verify features
  avel store verify features --media videos/                     also hashes the media again
  avel store verify features --dataset ave --root AVE_Dataset    every video of the data set must have a row
  avel store verify features --against av_features --recipe i3d-vggish-unav --rows-apart 1
  avel store verify features --against av_features --shapes-only     counts, widths and times are enough
  avel store verify features --json

--against compares with ID_rgb.npy, ID_flow.npy, ID_vggish.npy, or ID_one_peace_video_finetune.npy,
ID_one_peace_audio.npy, or what `avel store export --format unav-npy` wrote.

Files that are missing there are counted; they are no error.

Exit status: 0 nothing is wrong, and features equal the published ones; 1 something is, or the store cannot be opened;
2 bad arguments.
"""

_SHOWN = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_at(parser)
    parser.add_argument("--media", metavar="DIR", help="the folder of the media: read them and compare their hashes")
    parser.add_argument("--dataset", metavar="NAME", help="a data set whose videos must all have a row")
    add_root(parser)
    against = parser.add_argument_group("published features")
    against.add_argument("--against", metavar="DIR", help="a folder of published .npy features to compare with")
    against.add_argument("--recipe", metavar="R", help="which features; may be left out where the store has one recipe")
    against.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="largest difference over a stream's largest published value (default: 0.001)",
    )
    against.add_argument("--cosine", type=float, metavar="C", help="instead: rows are equal from this cosine on")
    against.add_argument(
        "--rows-apart",
        type=int,
        metavar="N",
        help="rows that either may have more at a video's end (default: 0)",
    )
    against.add_argument(
        "--shapes-only",
        action="store_true",
        help="counts, widths and times must agree, values need not (other weights)",
    )
    against.add_argument("--window", metavar="S", help="seconds that a published row sees (default: as published)")
    against.add_argument("--hop", metavar="S", help="seconds between published rows")


def run(args: argparse.Namespace) -> int:
    _check_against(args)
    agreement, grid = _agreement(args), chosen_grid(args)
    dataset = optional_dataset(args)
    if args.media is not None and not Path(args.media).is_dir():
        raise BadArguments(f"--media needs a folder, got {args.media!r}")
    store = open_store(args.store, at=args.at)
    recipe = None if args.against is None else chosen_recipe_name(store, args.recipe)
    checked = _verify(store, args, wanted=None if dataset is None else [video.id for video in dataset.videos])
    compared = None
    if recipe is not None:
        with Progress("compare", None, "videos") as progress:
            compared = compare(
                store,
                recipe,
                Path(args.against),
                agreement=agreement,
                grid=grid,
                progress=lambda video_id: progress.advance(1, video_id),
            )
    is_ok = not checked.problems and (compared is None or _agrees(compared, shapes_only=args.shapes_only))
    if args.json:
        answer = {"store": store.uri, "snapshot": store.snapshot_id, "ok": is_ok, **asdict(checked)}
        if compared is not None:
            answer["against"] = {
                "folder": args.against,
                "recipe": recipe,
                **asdict(agreement),
                "shapes_only": args.shapes_only,
                "verdict": compared.verdict,
                "told": sentence(compared),
                "streams": by_stream(compared),
                **asdict(compared),
            }
        print_json(answer)
    else:
        _print_checked(store, checked, with_media=args.media is not None)
        if compared is not None:
            print_comparison(compared, title=f"{recipe} against {args.against}", shown=_SHOWN)
    return 0 if is_ok else 1


def _check_against(args: argparse.Namespace) -> None:
    """What goes with --against must not be given without it."""
    if args.against is None:
        names = ("recipe", "tolerance", "cosine", "rows_apart", "shapes_only", "window", "hop")
        # By identity: --tolerance 0 equals False.
        given = [name for name in names if getattr(args, name) is not None and getattr(args, name) is not False]
        if given:
            raise BadArguments(f"{', '.join('--' + n.replace('_', '-') for n in given)} go with --against DIR")
    elif not Path(args.against).is_dir():
        raise BadArguments(f"--against needs a folder, got {args.against!r}")


def _agreement(args: argparse.Namespace) -> Agreement:
    names = ("tolerance", "cosine", "rows_apart")
    try:
        return Agreement(**{name: getattr(args, name) for name in names if getattr(args, name) is not None})
    except ValueError as error:
        raise BadArguments(f"--tolerance, --cosine and --rows-apart: {error}") from error


def _verify(store: FeatureStore, args: argparse.Namespace, *, wanted: list[str] | None) -> Verification:
    total = 1 + len(store.recipes())
    if args.media is not None:
        total += sum(1 for digest in store.videos().sha256 if digest)
    with Progress("verify", total, "checks") as progress:
        return verify(
            store,
            wanted=wanted,
            media=None if args.media is None else Path(args.media),
            progress=lambda name: progress.advance(1, name),
        )


def _agrees(compared: Comparison, *, shapes_only: bool) -> bool:
    return compared.verdict == "equal" or (shapes_only and compared.verdict == "other values")


def _print_checked(store: FeatureStore, checked: Verification, *, with_media: bool) -> None:
    problems = checked.problems
    if problems:
        table(
            f"{len(problems):,} problems",
            ["where", "video", "what"],
            [(p.where, "" if p.video_id is None else p.video_id, p.what) for p in problems[:_SHOWN]],
        )
        if len(problems) > _SHOWN:
            note(f"{len(problems) - _SHOWN:,} more; --json lists all")
    rows = ", ".join(f"{count:,} rows of {name}" for name, count in checked.rows.items()) or "no recipe"
    hashed = f", {checked.hashed:,} media hashed" if with_media else ""
    verdict = f"{len(problems):,} problems" if problems else "sound"
    say(f"{store.uri} at {store.snapshot_id}: {verdict}; {checked.videos:,} videos, {rows}{hashed}")
