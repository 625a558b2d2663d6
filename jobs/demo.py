"""`avel demo`: the whole way from videos to a report, by the same commands that a person would type.

The demonstration is also a check: it fails when the head does not clearly beat the trivial baseline and the heads
that only listen or only look, since it would then be showing nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
import time
from pathlib import Path

HELP = "synthesise videos, extract them on Ray, train heads and write a report"
EXAMPLES = """\
examples:
  avel demo                                60 ten-second videos, into ./avel-demo
  avel demo --out /tmp/demo --videos 120   more of them
  avel demo --executor local               without Ray
"""

# How far, in points of accuracy, the head must lead each baseline for the demonstration to show anything.
CLEAR_LEAD = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("avel-demo"), help="folder for everything (default: %(default)s)"
    )
    parser.add_argument("--videos", type=int, default=60, help="how many videos (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the videos and of training (default: %(default)s)")
    parser.add_argument("--executor", choices=("ray", "local"), default="ray", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from jobs.cli import FAILED, OK
    from jobs.console import duration, print_json, say, table

    began_s = time.monotonic()
    data, store, report = args.out / "data", args.out / "store", args.out / "report.html"
    heads = {name: args.out / "runs" / name for name in ("both", "audio", "visual")}
    dataset = ["--dataset", "ave", "--root", str(data)]
    stored = ["--recipe", "descriptors-1s", "--store", str(store)]
    steps = [
        ["synth", str(data), "--layout", "ave", "--videos", str(args.videos), "--seed", str(args.seed)],
        ["extract", *dataset, *stored, "--executor", args.executor],
    ]
    for name, folder in heads.items():
        steps.append(["train", *dataset, *stored, "--head", "linear", "--modality", name])
        steps[-1] += ["--seed", str(args.seed), "--out", str(folder), "--overwrite"]
        steps.append(["evaluate", str(folder)])
    compared = [str(heads["audio"]), str(heads["visual"])]
    steps.append(["report", str(heads["both"]), "--compare", *compared, "--out", str(report)])
    # With --json, standard output belongs to the one object at the end.
    with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
        for words in steps:
            status = _step(words)
            if status != OK:
                return status

    accuracy = {name: _test_accuracy(folder) for name, folder in heads.items()}
    run_json = json.loads((heads["both"] / "run.json").read_text(encoding="utf-8"))
    accuracy["majority"] = 100 * float(run_json["baselines"]["majority"])
    lead = accuracy["both"] - max(value for name, value in accuracy.items() if name != "both")
    spent_s = time.monotonic() - began_s
    if args.json:
        print_json({"accuracy": accuracy, "lead": lead, "report": str(report.resolve()), "seconds": spent_s})
    else:
        rows = [[name, f"{value:.1f}"] for name, value in accuracy.items()]
        table("Accuracy on the test videos, % of seconds", ["head", "accuracy"], rows)
        say(f"done in {duration(spent_s)}; the report: {report.resolve()}")
    if lead < CLEAR_LEAD:
        sys.stderr.write(
            f"avel demo: error: the head leads its baselines by {lead:.1f} points, {CLEAR_LEAD:.0f} are needed; "
            "with few videos the test split is too small to tell: try --videos 60 or more\n"
        )
        return FAILED
    return OK


def _step(words: list[str]) -> int:
    from jobs import cli
    from jobs.console import say

    say(f"\n$ avel {shlex.join(words)}")
    sys.stdout.flush()
    return cli.main(words)


def _test_accuracy(folder: Path) -> float:
    metrics = json.loads((folder / "run.json").read_text(encoding="utf-8"))["metrics"]
    return 100 * float(metrics["test"]["accuracy"])
