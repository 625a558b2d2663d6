"""`avel bench`: the project's promises about speed and memory, measured on this machine."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

HELP = "measure the project's promises about speed and memory"
EXAMPLES = """\
examples:
  avel bench                     all of them (some minutes)
  avel bench store resume        some
  avel bench --list
  avel bench --json --out bench.json
"""


_MET = {True: "yes", False: "NO", None: ""}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benches (default: all)")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--out", type=Path, help="write the figures there as JSON too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from bench.measurement import about, names
    from jobs.cli import FAILED, OK
    from jobs.console import BadArguments, print_json, table

    known = names()
    unknown = [name for name in args.names if name not in known]
    if unknown:
        raise BadArguments(f"there is no bench {unknown[0]!r}; there are {', '.join(known)}")
    if args.list:
        if args.json:
            print_json({name: about(name) for name in known})
        else:
            table("Benches", ["name", "measures"], [[name, about(name)] for name in known])
        return OK
    figures = _measure(args.names or known, args.folder)
    told = {"machine": _machine(), "figures": figures}
    if args.out is not None:
        args.out.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    if args.json:
        print_json(told)
    else:
        rows = [[f["what"], f"{f['value']:.3g} {f['unit']}", f["limit"], _MET[f["met"]], f["detail"]] for f in figures]
        table(f"Measured on {_machine()}", ["what", "figure", "limit", "met", "detail"], rows)
    return FAILED if any(f["met"] is False for f in figures) else OK


def _measure(names: list[str], folder: Path | None) -> list[dict[str, Any]]:
    from bench.measurement import run as run_bench
    from jobs.console import note

    figures: list[dict[str, Any]] = []
    for name in names:
        note(f"bench {name} …")
        with tempfile.TemporaryDirectory(prefix=f"avel-bench-{name}-", dir=folder) as place:
            for m in run_bench(name, Path(place)):
                told = {"bench": name, "what": m.what, "value": m.value, "unit": m.unit, "limit": m.limit}
                figures.append(told | {"met": m.met, "detail": m.detail})
    return figures


def _machine() -> str:
    import os
    import platform

    return f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
