"""`avel synth` at work: plan the videos, render those that are missing, then write the annotation files.

Videos are finished one by one (written beside, then renamed), the annotation files come last: a folder that has them
is whole. The same settings give the same bytes, so an interrupted folder is finished by the same command.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from catalog.dataset import SPLITS, plugin
from catalog.datasets import synthetic
from catalog.errors import BadArguments
from catalog.fingerprint import plain
from catalog.synthetic.scene import Scene
from jobs.cli.console import Progress, duration, print_json, say
from pipeline.render import render


def run(args: argparse.Namespace) -> int:
    workers = len(os.sched_getaffinity(0)) if args.workers is None else args.workers
    if workers < 1:
        raise BadArguments(f"--workers must be at least 1, got {workers}")
    try:
        settings = synthetic.Settings(layout=args.layout, videos=args.videos, seed=args.seed)
    except ValueError as error:
        raise BadArguments(str(error)) from error
    _check_folder(args.out, settings)
    scenario = synthetic.plan(settings, args.out)
    paths = {scene.id: args.out / "videos" / f"{scene.id}.mp4" for scene in scenario.scenes}
    missing = [scene for scene in scenario.scenes if not paths[scene.id].is_file()]
    summary = _summary(scenario, args.out, made=len(missing), kept=len(scenario.scenes) - len(missing))

    began_s = time.monotonic()
    if not args.dry_run:
        folder = args.out / "videos"
        folder.mkdir(parents=True, exist_ok=True)
        (args.out / synthetic.FILE).write_text(synthetic.settings_json(settings), encoding="utf-8")
        for part in folder.glob(".*.part"):  # left by a run that was killed
            part.unlink()
        with Progress("synth", len(missing), "videos") as progress:
            for id_ in _rendered(missing, folder, workers):
                progress.advance(text=id_)
        plugin(settings.layout).write(scenario.dataset, args.out)
    spent_s = time.monotonic() - began_s
    summary |= {"dry_run": args.dry_run, "seconds": round(spent_s, 3), "workers": workers}
    if args.json:
        print_json(summary)
        return 0
    verb = "would make" if args.dry_run else "made"
    say(
        f"{verb} {summary['made']} videos ({summary['duration_s']:.0f} s of media in all {settings.videos}), "
        f"kept {summary['kept']}, {summary['events']} events of {len(scenario.dataset.classes)} classes, "
        f"{' / '.join(f'{count} {name}' for name, count in _splits(scenario).items())}: {args.out}"
    )
    if not args.dry_run:
        say(f"in {duration(spent_s)}; read it with --dataset {settings.layout} --root {args.out}")
    return 0


def _summary(scenario: synthetic.Scenario, out: Path, *, made: int, kept: int) -> dict[str, object]:
    dataset, settings = scenario.dataset, scenario.settings
    return {
        "out": str(out.resolve()),
        "layout": settings.layout,
        "videos": settings.videos,
        "seed": settings.seed,
        "made": made,
        "kept": kept,
        "splits": _splits(scenario),
        "classes": list(dataset.classes),
        "events": sum(len(item.events) for item in dataset.items),
        "duration_s": float(sum(scene.duration_s for scene in scenario.scenes)),
    }


def _splits(scenario: synthetic.Scenario) -> dict[str, int]:
    """Split to number of items."""
    return {name: len(scenario.dataset.split(name)) for name in SPLITS}


def _check_folder(out: Path, settings: synthetic.Settings) -> None:
    """Refuses a folder that holds something else, or videos of other settings.

    Raises:
        BadArguments: with what is there and what to do.
    """
    if out.exists() and not out.is_dir():
        raise BadArguments(f"{out} is not a folder; give another one")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / synthetic.FILE).is_file():
        raise BadArguments(f"{out} is not empty and was not made by `avel synth`; give an empty or a new folder")
    here, wanted = plain(synthetic.read_settings(out)), plain(settings)
    if here != wanted:
        differing = ", ".join(
            f"{name} {here[name]} there, {wanted[name]} wanted" for name in here if here[name] != wanted[name]
        )
        raise BadArguments(f"{out} was made with other settings ({differing}); give another folder or those settings")


def _rendered(scenes: Sequence[Scene], folder: Path, workers: int) -> Iterator[str]:
    """Renders `scenes`, yielding each id when its file is there; in this process where one worker is asked for."""
    workers = min(workers, len(scenes))
    if workers <= 1:
        for scene in scenes:
            yield _render(scene, folder)
        return
    # Spawned: FFmpeg's and numpy's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        futures = [pool.submit(_render, scene, folder) for scene in scenes]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            # An error, Ctrl-C, or a reader that stopped: leave what has not begun.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker() -> None:
    """In a worker: Ctrl-C is handled by the parent, and the worker ends when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
    ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)


def _render(scene: Scene, folder: Path) -> str:
    render(scene, folder / f"{scene.id}.mp4")
    return scene.id
