"""`avel report RUN`: the run's page, one HTML file."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.report.dense.page import DensePage
    from jobs.report.dense.timeline import DenseTimeline
    from jobs.report.run import Extraction, Judged, ReportedRun
    from jobs.report.segments.timeline import Media, Timeline

HELP = "make one HTML page of a run: metrics, confusions or errors, curves and timelines of videos"

EXAMPLES = """\
examples:
  avel report runs/ave
  avel report runs/ave --compare runs/ave_audio runs/ave_visual --out ave.html
  avel report runs/ave --videos 24 --json
  avel report runs/ave --smooth 3                     metrics and timelines after the run filter, too
  avel report runs/unav --compare runs/loco           heads of events: mAP, kinds of error, the worst and best videos
"""

NUM_VIDEOS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `avel report`."""
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder that `avel train` wrote")
    parser.add_argument("--out", metavar="FILE.html", type=Path, help="where to write it (default: RUN/report.html)")
    parser.add_argument(
        "--videos", metavar="N", type=int, default=NUM_VIDEOS, help=f"timelines of N videos (default: {NUM_VIDEOS})"
    )
    parser.add_argument(
        "--compare", metavar="RUN", type=Path, nargs="+", default=[], help="other runs, for the table of metrics"
    )
    parser.add_argument("--split", choices=("test", "val"), help="whose predictions (default: test, else val)")
    parser.add_argument(
        "--smooth",
        metavar="W",
        type=int,
        help="also show the run filter's: fewer than W equal neighbours are taken for mistakes",
    )


def run(args: argparse.Namespace) -> int:
    """Write the page; the exit status is 0 also where media or the store can no longer be read (the page says so)."""
    from catalog.errors import BadArguments
    from heads.registry import is_dense
    from jobs.cli.console import note, print_json, say, visible
    from jobs.report.commands import commands
    from jobs.report.page import build, render
    from jobs.report.run import read_extraction, read_run

    out = _out(args)
    reported = read_run(args.run)
    dense = is_dense(reported.record.head)
    if args.smooth is not None and (dense or reported.record.background is None):
        raise BadArguments("--smooth is for data sets with one class a segment")
    compared = [read_run(folder) for folder in args.compare]
    split = args.split or (
        "val" if "test" not in reported.record.metrics and "val" in reported.record.metrics else "test"
    )
    extraction = read_extraction(reported)
    parts = (_dense_parts if dense else _segment_parts)(args, reported, split, extraction, compared)
    text = render(
        build(
            reported,
            split=split,
            items=parts.items,
            extraction=extraction,
            timelines=parts.timelines,
            compared=compared,
            commands=commands(reported, out=out, num_videos=args.videos, compared=compared, smooth=args.smooth),
            smooth=args.smooth,
            dense=parts.dense,
        )
    )
    _write(out, text)
    if args.json:
        print_json(
            {
                "file": str(out),
                "bytes": out.stat().st_size,
                "split": split,
                "items": parts.num_items,
                "videos": parts.num_videos,
                "videos_unreadable": parts.unreadable,
                "store_problem": extraction.problem,
            }
        )
        return 0
    if extraction.problem:
        note(visible(f"the store can no longer be read, and the page says so: {extraction.problem}"))
    if parts.unreadable:
        note(f"{len(parts.unreadable)} of {parts.num_videos} videos shown can no longer be read, and the page says so")
    say(visible(f"{out}  {out.stat().st_size / 1e6:.1f} MB"))
    return 0


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What a page has of its split's items: of segments, or of a dense head's events."""

    num_items: int | None
    items: tuple[Judged, ...] | None = None
    timelines: Sequence[Timeline] = ()
    dense: DensePage | None = None

    @property
    def shown(self) -> list[Timeline | DenseTimeline]:
        if self.dense is None:
            return [*self.timelines]
        return [*self.dense.worst_timelines, *self.dense.best_timelines]

    @property
    def num_videos(self) -> int:
        return len(self.shown)

    @property
    def unreadable(self) -> list[str]:
        return [t.video_id for t in self.shown if t.media.strip_problem]


def _segment_parts(
    args: argparse.Namespace,
    run: ReportedRun,
    split: str,
    extraction: Extraction,
    compared: Sequence[ReportedRun],
) -> _Parts:
    from jobs.report.run import read_predictions
    from jobs.report.segments.scores import smoothed
    from jobs.report.segments.timeline import axis_s, choose, timeline

    items = read_predictions(run, split)
    chosen = choose(items or (), args.videos, run.record.seed)
    after = {} if args.smooth is None else {item.item_id: item for item in smoothed(chosen, args.smooth)}
    shown = [(item.video_id, axis_s(item, run)) for item in chosen]
    return _Parts(
        num_items=None if items is None else len(items),
        items=items,
        timelines=[
            timeline(item, run, media, after.get(item.item_id))
            for item, media in zip(chosen, _media(args, shown, extraction), strict=True)
        ],
    )


def _dense_parts(
    args: argparse.Namespace,
    run: ReportedRun,
    split: str,
    extraction: Extraction,
    compared: Sequence[ReportedRun],
) -> _Parts:
    from jobs.report.dense.evidence import read_dense_predictions
    from jobs.report.dense.page import dense_page
    from jobs.report.dense.scores import count
    from jobs.report.dense.timeline import choose_extremes, dense_timeline

    items = read_dense_predictions(run, split)
    counts = None if items is None else count(items, run)
    worst, best = ([], []) if counts is None else choose_extremes(counts, args.videos)
    shown = [(judged.item.video_id, judged.duration_s) for judged in (*worst, *best)]
    timelines = [
        dense_timeline(judged, run, media)
        for judged, media in zip((*worst, *best), _media(args, shown, extraction), strict=True)
    ]
    return _Parts(
        num_items=None if items is None else len(items),
        dense=dense_page(
            run, split, counts, compared=compared, worst=timelines[: len(worst)], best=timelines[len(worst) :]
        ),
    )


def _media(args: argparse.Namespace, shown: Sequence[tuple[str, float]], extraction: Extraction) -> list[Media]:
    from jobs.cli.console import Progress
    from jobs.report.media import read_media

    with Progress("report", len(shown), "videos", quiet=args.json) as progress:
        return list(read_media(shown, extraction, on_video=progress.advance))


def _out(args: argparse.Namespace) -> Path:
    """Where the page goes; refuses arguments that cannot be, before anything is read."""
    from catalog.errors import BadArguments

    if args.smooth is not None and args.smooth < 1:
        raise BadArguments(f"--smooth must be at least 1, got {args.smooth}")
    if args.videos < 0:
        raise BadArguments(f"--videos must be 0 or more, got {args.videos}")
    out: Path = args.out if args.out is not None else args.run / "report.html"
    if out.is_dir():
        raise BadArguments(f"--out {out} is a folder; give a file, such as {out / 'report.html'}")
    if os.path.lexists(out) and (out.suffix.lower() not in (".html", ".htm") or not out.is_file()):
        raise BadArguments(f"--out {out} is there and is no page that could be replaced; give a file such as run.html")
    return out


def _write(out: Path, text: str) -> None:
    """The whole file or none: beside its place first, then moved there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, making = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(making, 0o666 & ~umask)
        os.replace(making, out)
    except BaseException:  # also on an interrupt: leave nothing half made beside the user's files
        Path(making).unlink(missing_ok=True)
        raise
