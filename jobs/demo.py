"""`avel demo`: the whole way from videos to a report, by the same commands that a person would type.

The demonstration is also a check: it fails when the head does not clearly beat the trivial baselines and the heads that
only listen or only look, since it would then be showing nothing.
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

HELP = "synthesise videos, extract them on Ray, train heads and write a report"
EXAMPLES = """\
examples:
  avel demo                                60 ten-second videos, into ./avel-demo
  avel demo --dense                        60 longer ones with several events each, into ./avel-demo-dense
  avel demo --out /tmp/demo --videos 120   more of them
  avel demo --executor local               without Ray
"""

# How far, in points, the head must lead each baseline for the demonstration to show anything.
CLEAR_LEAD = 5.0


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is demonstrated.

    Attributes:
        layout: of the data set.
        recipe: options that say what is extracted, and its name in the store.
        head: options that say what is trained.
        metric: that counts, and its name for people.
        baselines: the trivial ones to beat.
    """

    layout: str
    recipe: tuple[str, ...]
    stored: str
    head: tuple[str, ...]
    metric: str
    told: str
    baselines: tuple[str, ...]


SEGMENTS = Variant(
    layout="ave",
    recipe=("--recipe", "descriptors-1s"),
    stored="descriptors-1s",
    head=("--head", "linear"),
    metric="accuracy",
    told="Accuracy on the test videos, % of seconds",
    baselines=("majority",),
)
# Half-second windows four times a second. A small LoCo: its published size wants thousands of videos.
DENSE = Variant(
    layout="unav100",
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
    parser.add_argument("--videos", type=int, default=60, help="how many videos (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the videos and of training (default: %(default)s)")
    parser.add_argument("--executor", choices=("ray", "local"), default="ray", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    from jobs.cli.console import duration, print_json, say, table
    from jobs.cli.main import FAILED, OK

    began_s = time.monotonic()
    shown = DENSE if args.dense else SEGMENTS
    _check_videos(shown.layout, args.videos)
    out: Path = args.out or Path("avel-demo-dense" if args.dense else "avel-demo")
    data, store, report = out / "data", out / "store", out / "report.html"
    heads = {name: out / "runs" / name for name in ("both", "audio", "visual")}
    dataset = ["--dataset", shown.layout, "--root", str(data)]
    steps = [
        ["synth", str(data), "--layout", shown.layout, "--videos", str(args.videos), "--seed", str(args.seed)],
        ["extract", *dataset, *shown.recipe, "--store", str(store), "--executor", args.executor],
    ]
    for name, folder in heads.items():
        steps.append(["train", *dataset, "--recipe", shown.stored, "--store", str(store), *shown.head])
        steps[-1] += ["--modality", name, "--seed", str(args.seed), "--out", str(folder), "--overwrite"]
        steps.append(["evaluate", str(folder)])
    compared = [str(heads["audio"]), str(heads["visual"])]
    steps.append(["report", str(heads["both"]), "--compare", *compared, "--out", str(report)])
    # With --json, standard output belongs to the one object at the end.
    with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
        for words in steps:
            status = _step(words)
            if status != OK:
                return status

    scores = {name: _test_score(folder, shown.metric) for name, folder in heads.items()}
    baselines: Mapping[str, float] = json.loads((heads["both"] / "run.json").read_text(encoding="utf-8"))["baselines"]
    scores |= {name: 100 * float(baselines[name]) for name in shown.baselines}
    lead = scores["both"] - max(value for name, value in scores.items() if name != "both")
    spent_s = time.monotonic() - began_s
    if args.json:
        print_json({shown.metric: scores, "lead": lead, "report": str(report.resolve()), "seconds": spent_s})
    else:
        rows = [[name, f"{value:.1f}"] for name, value in scores.items()]
        table(shown.told, ["head", shown.metric], rows)
        say(f"done in {duration(spent_s)}; the report: {report.resolve()}")
    if lead < CLEAR_LEAD:
        sys.stderr.write(
            f"avel demo: error: the head leads its baselines by {lead:.1f} points, {CLEAR_LEAD:.0f} are needed; "
            "with few videos the test split is too small to tell: try --videos 60 or more\n"
        )
        return FAILED
    return OK


def _check_videos(layout: str, videos: int) -> None:
    """Refuse at once fewer videos than give every split one, before any of them is made."""
    from catalog.dataset import SPLITS
    from catalog.datasets import synthetic
    from catalog.errors import BadArguments

    def without(count: int) -> list[str]:
        made = synthetic.plan(synthetic.Settings(layout=layout, videos=count, seed=0), ".").dataset
        return [split for split in SPLITS if not made.split(split)]

    if videos >= 1 and without(videos):  # of other numbers `avel synth` says what it takes
        least = next(count for count in itertools.count(videos + 1) if not without(count))
        raise BadArguments(
            f"--videos {videos}: no video is left for {', '.join(without(videos))}; at least {least} are needed, and "
            "60 or more to show anything"
        )


def _step(words: list[str]) -> int:
    from jobs.cli import main as cli
    from jobs.cli.console import say

    say(f"\n$ avel {shlex.join(words)}")
    sys.stdout.flush()
    return cli.main(words)


def _test_score(folder: Path, metric: str) -> float:
    metrics = json.loads((folder / "run.json").read_text(encoding="utf-8"))["metrics"]
    return 100 * float(metrics["test"][metric])
