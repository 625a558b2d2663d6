"""Makes a run's page: reads the run, its store and its media, and writes one HTML file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from catalog.errors import BadArguments
from catalog.whole_file import write_atomically
from heads import registry
from jobs.cli.console import note, print_json, say, visible
from jobs.report.commands import commands
from jobs.report.dense import part as dense_part
from jobs.report.page import build, render
from jobs.report.part import ReportRequest
from jobs.report.reported_run import ReportedRun, read_extraction, read_run
from jobs.report.segments import part as segments_part

# The part of each task.
_PARTS = {"segments": segments_part, "events": dense_part}


def run(args: argparse.Namespace) -> int:
    """Writes the page; the exit status is 0 also where media or the store can no longer be read (the page says so)."""
    out = _out(args)
    reported = read_run(args.run)
    request = ReportRequest(
        run=reported,
        split=args.split or _split(reported),
        extraction=read_extraction(reported),
        compared=[read_run(folder) for folder in args.compare],
        num_videos=args.videos,
        smooth=args.smooth,
        quiet=args.json,
    )
    part = _PARTS[registry.spec(reported.record.head).task].make(request)
    again = commands(reported, out=out, num_videos=args.videos, compared=request.compared, smooth=args.smooth)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, render(build(request, part, commands=again)))
    unreadable = [timeline.video_id for timeline in part.shown if timeline.media.strip_problem]
    problem = request.extraction.problem
    if args.json:
        print_json(
            {
                "file": str(out),
                "bytes": out.stat().st_size,
                "split": request.split,
                "items": part.num_items,
                "videos": len(part.shown),
                "videos_unreadable": unreadable,
                "store_problem": problem,
            }
        )
        return 0
    if problem:
        note(visible(f"the store can no longer be read, and the page says so: {problem}"))
    if unreadable:
        note(f"{len(unreadable)} of {len(part.shown)} videos shown can no longer be read, and the page says so")
    say(visible(f"{out}  {out.stat().st_size / 1e6:.1f} MB"))
    return 0


def _split(run: ReportedRun) -> str:
    """The test split, or validation where that alone was evaluated."""
    measured = run.record.metrics
    return "val" if "test" not in measured and "val" in measured else "test"


def _out(args: argparse.Namespace) -> Path:
    """Where the page goes; refuses arguments that cannot be, before anything is read."""
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
