"""`avel report RUN`: the run's page, one HTML file."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

HELP = "make one HTML page of a run: metrics, confusions, curves and timelines of videos"

EXAMPLES = """\
examples:
  avel report runs/ave
  avel report runs/ave --compare runs/ave_audio runs/ave_visual --out ave.html
  avel report runs/ave --videos 24 --json
  avel report runs/ave --smooth 3                     metrics and timelines after the run filter, too
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
    parser.add_argument("--json", action="store_true", help="print one JSON object about the page")


def run(args: argparse.Namespace) -> int:
    """Write the page; the exit status is 0 also where media or the store can no longer be read (the page says so)."""
    from jobs.console import BadArguments, Progress, note, print_json, say, visible
    from jobs.report.commands import commands
    from jobs.report.evidence import read_extraction, read_predictions, read_run
    from jobs.report.media import read_media
    from jobs.report.page import build, render
    from jobs.report.scores import smoothed
    from jobs.report.timeline import choose, timeline

    if args.smooth is not None and args.smooth < 1:
        raise BadArguments(f"--smooth must be at least 1, got {args.smooth}")
    if args.videos < 0:
        raise BadArguments(f"--videos must be 0 or more, got {args.videos}")
    out: Path = args.out if args.out is not None else args.run / "report.html"
    if out.is_dir():
        raise BadArguments(f"--out {out} is a folder; give a file, such as {out / 'report.html'}")
    if os.path.lexists(out) and (out.suffix.lower() not in (".html", ".htm") or not out.is_file()):
        raise BadArguments(f"--out {out} is there and is no page that could be replaced; give a file such as run.html")
    reported = read_run(args.run)
    if args.smooth is not None and reported.record.background is None:
        raise BadArguments("--smooth is for data sets with one class a segment")
    compared = [read_run(folder) for folder in args.compare]
    split = args.split or (
        "val" if "test" not in reported.record.metrics and "val" in reported.record.metrics else "test"
    )
    items = read_predictions(reported, split)
    extraction = read_extraction(reported)
    chosen = choose(items or (), args.videos, reported.record.seed)
    with Progress("report", len(chosen), "videos", quiet=args.json) as progress:
        after = {} if args.smooth is None else {item.item_id: item for item in smoothed(chosen, args.smooth)}
        timelines = [
            timeline(item, reported, media, after.get(item.item_id))
            for item, media in read_media(chosen, reported, extraction, on_video=progress.advance)
        ]
    text = render(
        build(
            reported,
            split=split,
            items=items,
            extraction=extraction,
            timelines=timelines,
            compared=compared,
            commands=commands(reported, out=out, num_videos=args.videos, compared=compared, smooth=args.smooth),
            smooth=args.smooth,
        )
    )
    _write(out, text)
    unreadable = [t.video_id for t in timelines if t.media.strip_problem]
    if args.json:
        print_json(
            {
                "file": str(out),
                "bytes": out.stat().st_size,
                "split": split,
                "items": None if items is None else len(items),
                "videos": len(timelines),
                "videos_unreadable": unreadable,
                "store_problem": extraction.problem,
            }
        )
        return 0
    if extraction.problem:
        note(visible(f"the store can no longer be read, and the page says so: {extraction.problem}"))
    if unreadable:
        note(f"{len(unreadable)} of {len(timelines)} videos shown can no longer be read, and the page says so")
    say(visible(f"{out}  {out.stat().st_size / 1e6:.1f} MB"))
    return 0


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
