"""`avel bench` at work: run the benches, print their figures, write the files."""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import bench
from bench import encoders
from bench.encoder_report import Report, markdown, measurements
from bench.measurement import about, names
from bench.measurement import run as run_bench
from catalog.errors import BadArguments
from heads.runs.folder import check_way
from jobs.cli.console import note, print_json, table
from jobs.cli.main import FAILED, OK

# Of the bench `encoders`: option -> field of its `Options`.
_OPTIONS = {
    "encoder": "encoders",
    "device": "device",
    "precision": "precisions",
    "segments": "segments",
    "seconds": "seconds",
    "compile": "compile",
    "small": "small",
}
_MET = {True: "yes", False: "NO", None: ""}


def run(args: argparse.Namespace) -> int:
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
    wanted = args.names or known
    _check_encoders(args, wanted)
    _check_out(args.out)
    figures, report = _measure(wanted, args)
    answer = {"machine": _machine(), "figures": figures} | ({} if report is None else {"encoders": report.to_plain()})
    if args.json:
        print_json(answer)
    else:
        rows = [[f["what"], f"{f['value']:.3g} {f['unit']}", f["limit"], _MET[f["met"]], f["detail"]] for f in figures]
        table(f"Measured on {_machine()}", ["what", "figure", "limit", "met", "detail"], rows)
    # Files last: if writing fails, what took minutes to measure has been printed.
    page = _page(args, report)
    if page is not None and report is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(markdown(report), encoding="utf-8")
        note(f"wrote {page}")
    elif args.out is not None:
        args.out.write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")
    return FAILED if any(f["met"] is False for f in figures) else OK


def _measure(names: list[str], args: argparse.Namespace) -> tuple[list[dict[str, Any]], Report | None]:
    figures: list[dict[str, Any]] = []
    report = None
    for name in names:
        note(f"bench {name} …")
        with tempfile.TemporaryDirectory(prefix=f"avel-bench-{name}-", dir=args.folder) as folder:
            if name == "encoders":
                given = {_OPTIONS[option]: value for option, value in _encoders_options(args).items()}
                report = encoders.report(Path(folder), encoders.Options(**given))
                measured = measurements(report)
                skipped = ((f"{row.encoder} {row.tower}", row.skipped) for row in report.rows if row.skipped)
                for tower, why in dict.fromkeys(skipped):
                    note(f"skipped {tower}: {why}")
            else:
                measured = run_bench(name, Path(folder))
        for m in measured:
            figure = {"bench": name, "what": m.what, "value": m.value, "unit": m.unit, "limit": m.limit}
            figures.append(figure | {"met": m.met, "detail": m.detail})
    return figures, report


def _encoders_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options given for the bench `encoders`, and their values."""
    given = {option: getattr(args, option) for option in _OPTIONS}
    return {
        option: tuple(value) if isinstance(value, list) else value
        for option, value in given.items()
        if value is not None
    }


def _check_encoders(args: argparse.Namespace, wanted: list[str]) -> None:
    if "encoders" in wanted:
        return
    given = [f"--{option}" for option in _encoders_options(args)]
    if args.out is not None and _is_page(args.out):
        given.append(f"--out {args.out}")
    if given:
        raise BadArguments(f"{given[0]} goes with the bench `encoders`; add it to the names")


def _check_out(out: Path | None) -> None:
    """Refuse before measuring a path that could not be written: a page's folders are made, others must exist."""
    if out is None:
        return
    above = out.absolute().parent
    if _is_page(out):
        try:
            check_way(out)
        except ValueError as error:
            raise BadArguments(f"--out {out}: {error}") from error
    elif not above.is_dir():
        raise BadArguments(f"--out {out}: the folder {above} does not exist")
    there = next(path for path in (out.absolute(), *out.absolute().parents) if os.path.lexists(path))
    if not os.access(there, os.W_OK):
        raise BadArguments(f"--out {out}: {there} is not writable; choose another path")


def _is_page(out: Path) -> bool:
    return out.suffix == ".md" or out.is_dir()


def _page(args: argparse.Namespace, report: Report | None) -> Path | None:
    """Where the table of `encoders` goes; a GPU's by default with the project's results."""
    if report is None:
        return None
    if args.out is not None:
        if not _is_page(args.out):
            return None
        return args.out / report.file_name if args.out.is_dir() else Path(args.out)
    return Path(bench.__path__[0]) / "results" / report.file_name if args.device == "cuda" else None


def _machine() -> str:
    return f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
