"""`avel store verify STORE`: every promise of the store checked; its features against published ones."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from catalog import dataset
from catalog.errors import BadArguments
from catalog.exchange.compare import VERDICTS, Agreement, Comparison, compare
from catalog.grid import GridRule, exact_seconds
from catalog.store.reader import FeatureStore, open_store
from catalog.store.verify import verify
from jobs.cli.console import Progress, note, print_json, say, table

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

Files that are missing there are counted, and no fault.

Exit status: 0 nothing is wrong, and features equal the published ones; 1 something is, or the store cannot be opened;
2 bad arguments.
"""

_SHOWN = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="a folder or s3://bucket/prefix")
    parser.add_argument("--at", metavar="TAG", help="a tag or snapshot id instead of the newest commit")
    parser.add_argument("--media", metavar="DIR", help="the folder of the media: read them and compare their hashes")
    parser.add_argument("--dataset", metavar="NAME", help="a data set whose videos must all have a row")
    parser.add_argument("--root", metavar="DIR", help="where the data set's official files are")
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
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    _check_against(args)
    agreement, grid = _agreement(args), _grid(args)

    if (args.dataset is None) != (args.root is None):
        raise BadArguments("--dataset and --root go together")
    if args.media is not None and not Path(args.media).is_dir():
        raise BadArguments(f"--media needs a folder, got {args.media!r}")
    wanted = None
    if args.dataset is not None:
        if args.dataset not in dataset.names():
            raise BadArguments(f"no data set {args.dataset!r}; there are {', '.join(dataset.names())}")
        wanted = [video.id for video in dataset.load(args.dataset, args.root).videos]
    store = open_store(args.store, at=args.at)
    recipe = _recipe(args, store)
    total = 1 + len(store.recipes())
    if args.media is not None:
        total += sum(1 for digest in store.videos().sha256 if digest)
    with Progress("verify", total, "checks", quiet=args.json) as progress:
        told = verify(
            store,
            wanted=wanted,
            media=None if args.media is None else Path(args.media),
            progress=lambda name: progress.advance(1, name),
        )
    compared = None if recipe is None else _compare(args, store, recipe, agreement, grid)
    is_sound = not told.problems
    is_near = (
        compared is None or compared.verdict == "equal" or (args.shapes_only and compared.verdict == "other values")
    )
    status = 0 if is_sound and is_near else 1
    if args.json:
        answer = {"store": store.uri, "snapshot": store.snapshot_id, "ok": status == 0, **asdict(told)}
        if compared is not None:
            answer["against"] = {
                "folder": args.against,
                "recipe": recipe,
                **asdict(agreement),
                "shapes_only": args.shapes_only,
                "verdict": compared.verdict,
                "told": _sentence(compared),
                "streams": _by_stream(compared),
                **asdict(compared),
            }
        print_json(answer)
        return status
    if told.problems:
        table(
            f"{len(told.problems):,} problems",
            ["where", "video", "what"],
            [(p.where, "" if p.video_id is None else p.video_id, p.what) for p in told.problems[:_SHOWN]],
        )
        if len(told.problems) > _SHOWN:
            note(f"{len(told.problems) - _SHOWN:,} more; --json lists all")
    rows = ", ".join(f"{count:,} rows of {name}" for name, count in told.rows.items()) or "no recipe"
    hashed = f", {told.hashed:,} media hashed" if args.media is not None else ""
    verdict = f"{len(told.problems):,} problems" if told.problems else "sound"
    say(f"{store.uri} at {store.snapshot_id}: {verdict}; {told.videos:,} videos, {rows}{hashed}")
    if compared is not None:
        _show(compared, against=f"{recipe} against {args.against}")
    return status


# What a comparison comes to.
_SENTENCES = {
    "equal": "equal",
    "other values": "shapes and times agree, values do not (other weights or another decoder)",
    "other times": "shapes agree, times do not",
    "other shape": "shapes differ",
    "unreadable": "files cannot be read",
}


def _sentence(compared: Comparison) -> str:
    is_part = compared.verdict == "equal" and compared.missing_there
    return "equal (of those there)" if is_part else _SENTENCES[compared.verdict]


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


def _grid(args: argparse.Namespace) -> GridRule | None:
    if (args.window is None) != (args.hop is None):
        raise BadArguments("--window and --hop go together")
    if args.window is None:
        return None
    try:
        return GridRule(window_s=exact_seconds(args.window), hop_s=exact_seconds(args.hop), tail="drop")
    except ValueError as error:
        raise BadArguments(f"--window and --hop: {error}") from error


def _recipe(args: argparse.Namespace, store: FeatureStore) -> str | None:
    """Which features are compared; None where none are."""
    if args.against is None:
        return None
    held = list(store.recipes())
    recipe = args.recipe if args.recipe is not None else held[0] if len(held) == 1 else None
    if recipe not in held:
        raise BadArguments(f"{store.uri} has the recipes {', '.join(held) or '(none)'}; say which with --recipe")
    return str(recipe)


def _compare(
    args: argparse.Namespace, store: FeatureStore, recipe: str, agreement: Agreement, grid: GridRule | None
) -> Comparison:
    with Progress("compare", None, "videos", quiet=args.json) as progress:
        return compare(
            store,
            recipe,
            Path(args.against),
            agreement=agreement,
            grid=grid,
            progress=lambda video_id: progress.advance(1, video_id),
        )


def _by_stream(compared: Comparison) -> dict[str, dict[str, Any]]:
    """Each stream's counts by verdict, and the worst of its numbers."""
    streams: dict[str, dict[str, Any]] = {}
    for item in compared.compared:
        told = streams.setdefault(
            item.stream, {"videos": 0, "equal": 0, "max_abs": None, "max_relative": None, "least_cosine": None}
        )
        told["videos"] += 1
        told["equal"] += item.verdict == "equal"
        for name, worse in (("max_abs", max), ("max_relative", max), ("least_cosine", min)):
            value = getattr(item, name)
            if value is not None:
                told[name] = value if told[name] is None else worse(told[name], value)
    return streams


def _show(compared: Comparison, *, against: str) -> None:
    worst = sorted(compared.compared, key=lambda item: -VERDICTS.index(item.verdict))
    columns = ("max_abs", "max_relative", "mean_cosine", "least_cosine", "times_off_s")
    table(
        f"{against}: here/published",
        ["video", "stream", "rows", "width", *(name.replace("_", " ") for name in columns), "verdict"],
        [
            (
                item.video_id,
                item.stream,
                f"{item.rows}/{item.published_rows}" + (f" ({item.one_sided_rows} NaN)" if item.one_sided_rows else ""),
                f"{item.width}/{item.published_width}",
                *(_number(getattr(item, name)) for name in columns),
                item.verdict,
            )
            for item in worst[:_SHOWN]
        ],
    )
    if len(worst) > _SHOWN:
        note(f"{len(worst) - _SHOWN:,} more, none worse; --json lists all")
    for item in worst[:_SHOWN]:
        if item.problem:
            note(item.problem)
    equal = ", ".join(f"{told['equal']:,} of {told['videos']:,} {s}" for s, told in _by_stream(compared).items())
    missing = f"{compared.missing_there:,} files missing there"
    apart = f"{missing}, {compared.only_here:,} videos only here, {compared.only_there:,} only there"
    say(f"{against}: {_sentence(compared)}; equal: {equal}; {apart}")


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
