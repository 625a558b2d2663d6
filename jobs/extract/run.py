"""`avel extract` at work: the recipes, the videos, the executor, and the summary of the run."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from fractions import Fraction

from catalog import dataset
from catalog.errors import BadArguments
from catalog.media import local_path
from catalog.recipe import Recipe
from catalog.store.reader import recipes_of
from catalog.video import Video
from jobs.cli.chosen_dataset import optional_dataset
from jobs.cli.chosen_recipes import check_name, chosen_recipe, with_weights
from jobs.cli.chosen_recipes import device as device_of
from jobs.cli.console import Progress, duration, note, print_json, say, table, visible
from jobs.cli.main import OK, QUARANTINED
from jobs.cli.recipe_options import changes
from jobs.cli.signals import stoppable
from pipeline.encode import check_weights
from pipeline.executors.ray_cluster import RaySettings
from pipeline.extract import ExtractOptions, available_cpus, extract, preview
from pipeline.plan import check_reasons
from pipeline.run_summary import RunSummary

# Below this many videos Ray's start-up costs more than its processes gain over this process's threads.
RAY_PAYS_VIDEOS = 200
RAY_PAYS_CPUS = 4
# Share of the wanted files that must exist: with fewer, it is the folder that is wrong.
LEAST_PRESENT = Fraction(1, 10)


def run(args: argparse.Namespace) -> int:
    with stoppable("avel extract", "after the commit in hand") as (stop, received):
        try:
            check_reasons(args.retry)
        except ValueError as error:
            raise BadArguments(str(error)) from error
        recipes, weights = with_weights(_recipes(args), args.weights)
        held = recipes_of(args.store)
        for recipe in recipes:
            check_name(recipe, weights[recipe.name], held)
        videos, left_out = _videos(args)
        allowed = _allowed(args.max_quarantined, len(videos))
        if args.dry_run:
            for recipe in recipes:
                check_weights(recipe, weights[recipe.name])
        planned = preview(videos, recipes, args.store, retry_reasons=args.retry)
        to_do = planned.plan.num_videos
        if not (args.allow_missing or args.address):
            _need_media([video for unit in planned.plan.units for video in unit.videos])
        if args.dry_run or not to_do:
            return _print_summary(planned.summary, args, allowed, to_do=to_do, left_out=left_out)

        device, gpus = device_of(args.device, recipes)
        options = ExtractOptions(
            ray=_ray_settings(args, gpus) if _on_ray(args, to_do, gpus) else None,
            workers=args.workers,
            weights=weights,
            device=device,
            retry_reasons=args.retry,
            commit_every_s=args.commit_every,
            wait_s=args.wait,
        )
        with Progress("extract", to_do, "videos") as progress:
            summary = extract(
                videos, recipes, args.store, options, planned=planned, on_progress=_shown(progress), stop=stop
            )
        status = _print_summary(summary, args, allowed, to_do=0, left_out=left_out)
    if summary.stopped and received:
        left = summary.store_statuses["pending"]
        note(f"avel extract: stopped; what was finished is committed, {left} videos are left: the same command goes on")
        return 128 + received[0]
    return status


def _videos(args: argparse.Namespace) -> tuple[tuple[Video, ...], tuple[str, ...]]:
    """The wanted videos; and of a folder what was not taken for one, a sentence each."""
    if (args.source is None) == (args.dataset is None):
        raise BadArguments("give either SOURCE or --dataset NAME --root DIR")
    chosen = optional_dataset(args, args.media)
    found = dataset.load("folder", args.source) if chosen is None else chosen
    videos = found.videos if args.limit is None else found.videos[: args.limit]
    return videos, found.oddities if chosen is None else ()


def _need_media(videos: Sequence[Video]) -> None:
    """A folder that was not mounted, or another one, is no reason to record thousands of missing files.

    Raises:
        BadArguments: of the local files among `videos` less than `LEAST_PRESENT` exist.
    """
    paths = [path for video in videos if (path := local_path(video.uri)) is not None]
    missing = [path for path in paths if not os.path.lexists(path)]
    if paths and len(missing) > (1 - LEAST_PRESENT) * len(paths):
        there = f"only {len(paths) - len(missing):,}" if len(missing) < len(paths) else "none"
        raise BadArguments(
            f"{there} of the {len(paths):,} videos to extract exists; the first that does not is {missing[0]}: give "
            "the folder of the media (--media DIR with --dataset), or --allow-missing to record them as missing"
        )


def _recipes(args: argparse.Namespace) -> list[Recipe]:
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


def _on_ray(args: argparse.Namespace, num_videos: int, gpus: int) -> bool:
    only_ray = [
        flag for flag, value in (("--address", args.address), ("--encode-workers", args.encode_workers)) if value
    ]
    if args.executor == "local" and only_ray:
        raise BadArguments(f"{only_ray[0]} goes with --executor ray")
    pays = num_videos >= RAY_PAYS_VIDEOS and available_cpus() >= RAY_PAYS_CPUS
    return args.executor == "ray" or (args.executor == "auto" and (bool(only_ray) or pays or gpus > 1))


def _ray_settings(args: argparse.Namespace, gpus: int) -> RaySettings:
    encode_workers = args.encode_workers or gpus
    return RaySettings(
        address=args.address,
        encode_workers=encode_workers,
        num_gpus=gpus / encode_workers if gpus else 0.0,
        verbose=args.verbose,
    )


def _shown(progress: Progress) -> Callable[[RunSummary], None]:
    """What `extract` calls after each unit: moves the bar to the videos worked on so far."""

    def show(summary: RunSummary) -> None:
        worked_on = sum(summary.statuses.values())
        text = f"{summary.times_real_time:.1f} x real time"
        quarantined = summary.statuses["quarantined"]
        progress.advance(worked_on - progress.done, text + (f", {quarantined} quarantined" if quarantined else ""))

    return show


def _print_summary(
    summary: RunSummary, args: argparse.Namespace, allowed: int, *, to_do: int, left_out: Sequence[str]
) -> int:
    """Prints the summary; returns the exit status that the store's state deserves."""
    quarantined = summary.quarantined
    over = quarantined > allowed
    nothing_to_do = summary.executor == "none" and not to_do
    if args.json:
        counts: dict[str, object] = {"store": str(args.store), "to_do": to_do, "nothing_to_do": nothing_to_do}
        counts |= {"max_quarantined": allowed, "over_max_quarantined": over, "left_out": list(left_out)}
        print_json(summary.to_json() | counts)
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
        for sentence in left_out:
            note(visible(f"avel extract: {sentence}"))
    if to_do or not over:
        return OK
    note(
        f"avel extract: {quarantined} of {summary.wanted} videos are quarantined, --max-quarantined is {allowed}; "
        f"`avel store inspect {args.store} --failures` lists them, --retry REASON tries again"
    )
    return QUARANTINED


def _allowed(text: str, num_videos: int) -> int:
    """How many quarantined videos are all right: "12", or a share of the wanted ones: "5%", "0.05"."""
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
