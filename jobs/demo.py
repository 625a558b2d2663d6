"""`avel demo`: the whole way from videos to a report, by the same commands that a person would type.

The demonstration is also a check: it fails unless the head on both modalities clearly leads the heads on one of them
and the trivial baselines. Where several seeds are trained, a lead is the mean over seeds of the difference between two
heads of the same seed (a trivial baseline is the same number for all), and its sd is the sample's (n - 1) of these
differences. The videos are the same for all seeds.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.dataset import SPLITS
from catalog.datasets import synthetic
from catalog.errors import BadArguments
from heads.runs.seeds import Spread
from jobs.cli import main as cli
from jobs.cli.console import duration, print_json, say, table

HELP = "synthesise videos, extract them on Ray, train heads and write a report"
EXAMPLES = """\
examples:
  avel demo                                90 ten-second videos, 5 seeds a head, into ./avel-demo
  avel demo --dense                        60 longer ones with several events each, into ./avel-demo-dense
  avel demo --out /tmp/demo --videos 180   more of them
  avel demo --executor local               without Ray
"""

# How far the head must lead each baseline for the demonstration to show anything: in points, and over several seeds in
# standard deviations too.
CLEAR_LEAD = 5.0
CLEAR_LEAD_SDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is demonstrated.

    Attributes:
        layout: of the data set.
        videos: how many, unless another number is asked for.
        recipe: options that say what is extracted, and its name in the store.
        head: options that say what is trained.
        seeds: trained of each head; of several, `avel train --seeds` makes a folder a seed.
        metric: that counts, and its name for people.
        baselines: the trivial ones to beat.
    """

    layout: str
    videos: int
    recipe: tuple[str, ...]
    stored: str
    head: tuple[str, ...]
    seeds: int
    metric: str
    told: str
    baselines: tuple[str, ...]


# Of 90 videos each of the 6 classes has 10 for training, 2 for validation, 3 for test. The last of 30 epochs is kept,
# since 12 videos are few to choose an epoch by: with the best one on them, accuracy varies by 5 points over the seeds.
SEGMENTS = Variant(
    layout="ave",
    videos=90,
    recipe=("--recipe", "descriptors-1s"),
    stored="descriptors-1s",
    head=("--head", "linear", "--epochs", "30", "--schedule", "cosine", "--keep", "last"),
    seeds=5,
    metric="accuracy",
    told="Accuracy on the test videos, % of seconds",
    baselines=("majority",),
)
# Half-second windows four times a second. A small LoCo: its published size wants thousands of videos.
DENSE = Variant(
    layout="unav100",
    videos=60,
    recipe=(
        *("--recipe", "descriptors-1s", "--as", "descriptors-dense"),
        *("--set", "grid.window_s=0.5", "--set", "grid.hop_s=0.25", "--set", "grid.tail=drop"),
    ),
    stored="descriptors-dense",
    head=(
        *("--head", "loco", "--set", "width=48", "--set", "levels=5", "--set", "attention_window=64"),
        *("--set", "drop_path=0", "--set", "standardise=true", "--epochs", "20", "--batch", "4", "--lr", "2e-3"),
        *("--schedule", "one-cycle", "--warmup-epochs", "0", "--ema", "0.9"),
    ),
    seeds=1,
    metric="average_map",
    told="Mean average precision on the test videos, tIoU 0.1 to 0.9, %",
    baselines=("whole_video", "mean_length"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dense", action="store_true", help="events with a start and an end of their own, in UnAV-100's layout"
    )
    parser.add_argument(
        "--out", type=Path, help="folder for everything (default: avel-demo, with --dense avel-demo-dense)"
    )
    parser.add_argument(
        "--videos",
        type=int,
        metavar="N",
        help=f"how many videos (default: {SEGMENTS.videos}, with --dense {DENSE.videos})",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the videos, and the first of training (default: %(default)s)"
    )
    parser.add_argument("--executor", choices=("ray", "local"), default="ray", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    began_s = time.monotonic()
    shown = DENSE if args.dense else SEGMENTS
    videos = shown.videos if args.videos is None else args.videos
    _check_videos(shown, videos)
    out: Path = args.out or Path("avel-demo-dense" if args.dense else "avel-demo")
    report = out / "report.html"
    heads = {name: out / "runs" / name for name in ("both", "audio", "visual")}
    # With --json, standard output belongs to the one object at the end.
    with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
        for words in _steps(shown, videos, args.seed, args.executor, out, heads, report):
            status = _step(words)
            if status != cli.OK:
                return status

    scores = _scores(shown, heads, args.seed)
    leads = {name: lead_over(scores["both"], other) for name, other in scores.items() if name != "both"}
    spent_s = time.monotonic() - began_s
    if args.json:
        print_json(
            {
                shown.metric: {name: score.mean for name, score in scores.items()},
                "values": {name: score.values for name, score in scores.items()},
                "leads": {name: {"mean": lead.mean, "sd": lead.sd} for name, lead in leads.items()},
                "lead": min(lead.mean for lead in leads.values()),
                "report": str(report.resolve()),
                "seconds": spent_s,
            }
        )
    else:
        seeds = f", mean ± sd of {shown.seeds} seeds" if shown.seeds > 1 else ""
        table(shown.told + seeds, ["head", shown.metric], [[name, _spell(score)] for name, score in scores.items()])
        if seeds:
            say(f"both leads {', '.join(f'{name} by {_spell(lead)}' for name, lead in leads.items())} points")
        say(f"done in {duration(spent_s)}; the report: {report.resolve()}")
    unclear = {name: lead for name, lead in leads.items() if not is_clear(lead)}
    for name, lead in unclear.items():
        sys.stderr.write(
            f"avel demo: error: the head leads {name} by {_spell(lead)} points; {CLEAR_LEAD:.0f} are needed, and more "
            f"than {CLEAR_LEAD_SDS:.0f} sd; with few videos the test split is too small to tell: try --videos "
            f"{shown.videos} or more\n"
        )
    return cli.FAILED if unclear else cli.OK


def _steps(
    shown: Variant, videos: int, seed: int, executor: str, out: Path, heads: Mapping[str, Path], report: Path
) -> list[list[str]]:
    """The words of each command, in order."""
    data, store = out / "data", out / "store"
    dataset = ["--dataset", shown.layout, "--root", str(data)]
    steps = [
        ["synth", str(data), "--layout", shown.layout, "--videos", str(videos), "--seed", str(seed)],
        ["extract", *dataset, *shown.recipe, "--store", str(store), "--executor", executor],
    ]
    several = ["--seeds", str(shown.seeds)] if shown.seeds > 1 else []
    for name, folder in heads.items():
        steps.append(["train", *dataset, "--recipe", shown.stored, "--store", str(store), *shown.head])
        steps[-1] += ["--modality", name, "--seed", str(seed), *several, "--out", str(folder), "--overwrite"]
        steps.append(["evaluate", str(_runs(folder, shown.seeds, seed)[0])])
    compared = [str(heads["audio"]), str(heads["visual"])]
    return [*steps, ["report", str(heads["both"]), "--compare", *compared, "--out", str(report)]]


def _runs(folder: Path, seeds: int, first: int) -> list[Path]:
    """The run folders that `avel train` makes for `seeds` seeds."""
    return [folder / f"seed-{seed}" for seed in range(first, first + seeds)] if seeds > 1 else [folder]


def _scores(shown: Variant, heads: Mapping[str, Path], first: int) -> dict[str, Spread]:
    """The metric that counts on the test split in %, of each head over its seeds and of the trivial baselines."""
    runs = {name: [_record(run) for run in _runs(folder, shown.seeds, first)] for name, folder in heads.items()}
    scores = {
        name: Spread(values=tuple(100 * float(run["metrics"]["test"][shown.metric]) for run in found))
        for name, found in runs.items()
    }
    baselines = runs["both"][0]["baselines"]
    return scores | {name: Spread(values=(100 * float(baselines[name]),)) for name in shown.baselines}


def _record(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return record


def lead_over(ahead: Spread, other: Spread) -> Spread:
    """The differences seed by seed; a trivial baseline is the same for all."""
    others = other.values if len(other.values) == len(ahead.values) else other.values * len(ahead.values)
    return Spread(values=tuple(a - b for a, b in zip(ahead.values, others, strict=True)))


def is_clear(lead: Spread) -> bool:
    return lead.mean >= CLEAR_LEAD and (lead.sd is None or lead.mean > CLEAR_LEAD_SDS * lead.sd)


def _spell(spread: Spread) -> str:
    return f"{spread.mean:.1f}" + ("" if spread.sd is None else f" ± {spread.sd:.1f}")


def _check_videos(shown: Variant, videos: int) -> None:
    """Refuse at once fewer videos than give every split one, before any of them is made."""

    def without(count: int) -> list[str]:
        made = synthetic.plan(synthetic.Settings(layout=shown.layout, videos=count, seed=0), ".").dataset
        return [split for split in SPLITS if not made.split(split)]

    if videos >= 1 and without(videos):  # of other numbers `avel synth` says what it takes
        least = next(count for count in itertools.count(videos + 1) if not without(count))
        raise BadArguments(
            f"--videos {videos}: no video is left for {', '.join(without(videos))}; at least {least} are needed, and "
            f"{shown.videos} or more to show anything"
        )


def _step(words: list[str]) -> int:
    say(f"\n$ avel {shlex.join(words)}")
    sys.stdout.flush()
    return cli.main(words)
