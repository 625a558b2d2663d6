"""`avel extract`: media in, a feature store out; exactly once, whatever is killed on the way."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from jobs.cli.recipe_options import add_set, add_weights
from jobs.cli.signals import stoppable
from jobs.cli.store_options import add_wait, seconds

if TYPE_CHECKING:
    from catalog.recipe import Recipe
    from catalog.video import Video
    from pipeline.run_summary import RunSummary

HELP = "media in, a feature store out; run it again after any kill and it goes on"

EXAMPLES = """\
examples:
  avel extract media/ --recipe descriptors-1s --store features
  avel extract --dataset ave --root AVE_Dataset --recipe descriptors-1s --store s3://bucket/ave
  avel extract 'clips/*.mp4' --recipe descriptors-1s --hop 1/2 --as descriptors-half --store features
  avel extract media/ --recipe audioclip-1s --store features          with the checkpoint of `avel weights fetch`
  avel extract media/ --recipe audioclip-1s --weights fine-tuned.safetensors --as audioclip-mine --store features
  avel extract media/ --recipe descriptors-1s --store features --retry fetch_failed --retry missing_file
  avel extract --recipe descriptors-1s --store features -- -Qowmc0P9ic.mp4     a name that begins with a dash

The same command again does what is missing and nothing twice; over a finished store it says so and stops.
Exit status: 0 all wanted videos are in the store; 3 more of them are quarantined than --max-quarantined (also when
there was nothing left to do: the status tells how the store is); 1 failed; 2 bad arguments; 130/143 stopped by
SIGINT/SIGTERM, what was finished is committed; a second signal ends at once.
"""

# Below this many videos Ray's start-up costs more than its processes gain over this process's threads.
RAY_PAYS_VIDEOS = 200
RAY_PAYS_CPUS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("what")
    source.add_argument("source", nargs="?", metavar="SOURCE", help="a folder, file, glob, list file or URL")
    source.add_argument("--dataset", metavar="NAME", help="a data set with annotations instead: ave, unav100, ...")
    source.add_argument("--root", metavar="DIR", help="where the data set's official files are")
    source.add_argument("--media", metavar="DIR", help="where its videos are (default: in DIR/videos)")
    source.add_argument("--limit", type=_count, metavar="N", help="the first N videos only")
    source.add_argument(
        "--retry", action="append", default=[], metavar="REASON", help="try these again; `all` for every reason"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--recipe",
        action="append",
        required=True,
        metavar="R",
        help="a preset, may be repeated; see `avel recipe list`",
    )
    add_set(how)
    how.add_argument("--hop", metavar="S", help="short for --set grid.hop_s=S")
    how.add_argument("--window", metavar="S", help="short for --set grid.window_s=S")
    how.add_argument("--as", dest="name", metavar="NAME", help="store a changed recipe under this name")
    add_weights(how)
    where = parser.add_argument_group("where")
    where.add_argument("--store", required=True, metavar="STORE", help="a folder or s3://bucket/prefix; made if absent")
    where.add_argument(
        "--executor", choices=("auto", "local", "ray"), default="auto", help="the arrays are the same (default: auto)"
    )
    where.add_argument("--workers", type=_count, metavar="N", help="units at once (default: one a CPU)")
    where.add_argument(
        "--encode-workers",
        type=_count,
        metavar="N",
        help="Ray: N workers of their own for encoding (default: with GPUs)",
    )
    where.add_argument("--address", metavar="A", help="Ray: a running cluster instead of a local one")
    where.add_argument("--commit-every", type=seconds, default=30.0, metavar="S", help="default: %(default)g s")
    add_wait(where)
    where.add_argument(
        "--max-quarantined", default="0", metavar="N", help="a number or a share such as 5%% (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done; weights are looked at")
    parser.add_argument("--verbose", action="store_true", help="show what Ray and its workers print")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    with stoppable("avel extract", "after the commit in hand") as (stop, received):
        from catalog.errors import BadArguments
        from jobs.cli.chosen_recipes import device as device_of
        from jobs.cli.chosen_recipes import with_weights
        from jobs.cli.console import Progress, note
        from pipeline.encode import check_weights
        from pipeline.extract import extract, preview
        from pipeline.plan import check_reasons

        try:
            check_reasons(args.retry)
        except ValueError as error:
            raise BadArguments(str(error)) from error
        recipes, weights = with_weights(_recipes(args), args.weights)
        videos = _videos(args)
        allowed = _allowed(args.max_quarantined, len(videos))
        if args.dry_run:
            for recipe in recipes:
                check_weights(recipe, weights[recipe.name])
        plan, before = preview(videos, recipes, args.store, retry_reasons=args.retry)
        if args.dry_run or not plan.units:
            return _tell(before, args, allowed, to_do=plan.num_videos)

        device, gpus = device_of(args.device, recipes)
        with Progress("extract", plan.num_videos, "videos", quiet=args.json) as progress:
            summary = extract(
                videos,
                recipes,
                args.store,
                executor=_executor(args, plan.num_videos, gpus),
                workers=args.workers,
                weights=weights,
                device=device,
                retry_reasons=args.retry,
                ray_settings=_ray_settings(args, gpus),
                commit_every_s=args.commit_every,
                wait_s=args.wait,
                on_progress=_shown(progress),
                stop=stop,
            )
        status = _tell(summary, args, allowed, to_do=0)
    if summary.stopped and received:
        left = summary.store_statuses["pending"]
        note(f"avel extract: stopped; what was finished is committed, {left} videos are left: the same command goes on")
        return 128 + received[0]
    return status


def _videos(args: argparse.Namespace) -> tuple[Video, ...]:
    from catalog import dataset
    from catalog.errors import BadArguments

    if (args.source is None) == (args.dataset is None):
        raise BadArguments("give either SOURCE or --dataset NAME --root DIR")
    if args.dataset is None:
        if args.root or args.media:
            raise BadArguments("--root and --media go with --dataset; SOURCE is the media itself")
        found = dataset.load("folder", args.source)
    else:
        if not args.root:
            raise BadArguments(f"--dataset {args.dataset} needs --root DIR, where its official files are")
        if args.dataset not in dataset.names():
            raise BadArguments(f"no data set is called {args.dataset!r}; there are {', '.join(dataset.names())}")
        found = dataset.load(args.dataset, args.root, media=args.media)
    videos: tuple[Video, ...] = found.videos
    return videos if args.limit is None else videos[: args.limit]


def _recipes(args: argparse.Namespace) -> list[Recipe]:
    from catalog.errors import BadArguments
    from jobs.cli.chosen_recipes import chosen_recipe
    from jobs.cli.recipe_options import changes

    changed = changes(args.set)
    if args.hop:
        changed["grid.hop_s"] = args.hop
    if args.window:
        changed["grid.window_s"] = args.window
    if args.name and len(args.recipe) > 1:
        raise BadArguments("--as names one recipe; extract several under new names one after the other")
    if len(set(args.recipe)) != len(args.recipe):
        raise BadArguments("--recipe names one recipe twice")
    return [chosen_recipe(name, changed, args.name) for name in args.recipe]


def _executor(args: argparse.Namespace, num_videos: int, gpus: int) -> Any:
    from catalog.errors import BadArguments
    from pipeline.extract import available_cpus

    only_ray = [
        flag for flag, value in (("--address", args.address), ("--encode-workers", args.encode_workers)) if value
    ]
    if args.executor == "local" and only_ray:
        raise BadArguments(f"{only_ray[0]} goes with --executor ray")
    if args.executor != "auto":
        return args.executor
    pays = num_videos >= RAY_PAYS_VIDEOS and available_cpus() >= RAY_PAYS_CPUS
    return "ray" if only_ray or pays or gpus > 1 else "local"


def _ray_settings(args: argparse.Namespace, gpus: int) -> Any:
    from pipeline.executors.ray_cluster import RaySettings

    encode_workers = args.encode_workers or gpus
    return RaySettings(
        address=args.address,
        encode_workers=encode_workers,
        num_gpus=gpus / encode_workers if gpus else 0.0,
        verbose=args.verbose,
    )


def _shown(progress: Any) -> Callable[[RunSummary], None]:
    def show(summary: RunSummary) -> None:
        worked_on = sum(summary.statuses.values())
        text = f"{summary.times_real_time:.1f} x real time"
        quarantined = summary.statuses["quarantined"]
        progress.advance(worked_on - progress.done, text + (f", {quarantined} quarantined" if quarantined else ""))

    return show


def _tell(summary: RunSummary, args: argparse.Namespace, allowed: int, *, to_do: int) -> int:
    """Prints the summary; the exit status that the store's state deserves."""
    from jobs.cli.console import duration, note, print_json, say, table
    from jobs.cli.main import OK, QUARANTINED

    quarantined = summary.quarantined
    over = quarantined > allowed
    status = QUARANTINED if over and not to_do else OK
    nothing_to_do = summary.executor == "none" and not to_do
    if args.json:
        told = summary.to_json() | {"store": str(args.store), "to_do": to_do, "nothing_to_do": nothing_to_do}
        print_json(told | {"max_quarantined": allowed, "over_max_quarantined": over})
    else:
        if to_do:
            say(f"to do: {to_do} videos of {summary.wanted}; {summary.skipped} are done")
        elif nothing_to_do:
            say(f"nothing to do: {summary.skipped} videos are done")
        rows = [[name, count, summary.statuses[name] or ""] for name, count in sorted(summary.store_statuses.items())]
        table(f"{args.store}: {summary.wanted} videos", ["status", "in the store", "this run"], rows)
        if summary.store_reasons:
            reasons = sorted(summary.store_reasons.items(), key=lambda item: (-item[1], item[0]))
            table("reasons", ["reason", "videos"], reasons)
        if not nothing_to_do and not to_do:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in summary.shares().items())
            say(
                f"{duration(summary.media_s)} of media in {duration(summary.wall_s)} "
                f"({summary.times_real_time:.1f} x real time, {summary.segments_per_s:.1f} segments/s; {shares}); "
                f"{summary.workers} {summary.executor} workers up in {duration(summary.startup_s)}; "
                f"commits: {summary.commits}, snapshot {summary.snapshot}"
            )
    if over and not to_do:
        note(
            f"avel extract: {quarantined} of {summary.wanted} videos are quarantined, --max-quarantined is {allowed}; "
            f"`avel store inspect {args.store} --failures` lists them, --retry REASON tries again"
        )
    return status


def _allowed(text: str, num_videos: int) -> int:
    """How many quarantined videos are all right: "12", or a share of the wanted ones: "5%", "0.05"."""
    from catalog.errors import BadArguments

    try:
        # Exact: as floats, 29% of 100 videos are 28.999999999999996.
        if text.endswith("%"):
            share = Fraction(text[:-1]) / 100
        elif "." in text:
            share = Fraction(text)
        else:
            count = int(text)
            if count < 0:
                raise ValueError
            return count
        if not 0 <= share <= 1:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise BadArguments(f"--max-quarantined needs a number or a share such as 5%, got {text!r}") from None
    return math.floor(share * num_videos)


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"needs a whole number of at least 1, got {text}")
    return value
