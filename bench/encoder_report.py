"""What the bench of encoders found: a row a tower and precision, as figures and as a page."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from bench.measurement import Measurement

MIN_COSINE = 0.999


@dataclass(frozen=True, kw_only=True)
class Row:
    """A tower in a precision.

    Attributes:
        encoder, tower, precision: what ran.
        skipped: why it did not run; then the figures are 0 or None.
        segments: how many were encoded at a time.
        segments_per_s: of the best round.
        gflop_per_segment: counted.
        gflop_per_s: of the best round.
        matmul_gflop_per_s: of a large square matrix product of that precision.
        min_cosine, mean_cosine: between a segment's feature and its float32 one.
        max_abs_error: of a number of a feature.
        error_to_spread: as `bench.encoders` says; None of one segment.
    """

    encoder: str
    tower: str
    precision: str
    skipped: str = ""
    segments: int = 0
    segments_per_s: float = 0.0
    gflop_per_segment: float = 0.0
    gflop_per_s: float = 0.0
    matmul_gflop_per_s: float = 0.0
    min_cosine: float | None = None
    mean_cosine: float | None = None
    max_abs_error: float | None = None
    error_to_spread: float | None = None

    @property
    def matmul_share(self) -> float:
        """Of the matrix product's rate, what the tower reaches."""
        return self.gflop_per_s / self.matmul_gflop_per_s if self.matmul_gflop_per_s else 0.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured where."""

    device: str
    threads: int
    torch: str
    compiled: bool
    seconds: float
    rows: tuple[Row, ...]

    @property
    def file_name(self) -> str:
        """Of its page: "encoders-nvidia-h200.md"."""
        return f"encoders-{re.sub(r'[^a-z0-9]+', '-', self.device.lower()).strip('-')}.md"

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def measurements(report: Report) -> list[Measurement]:
    """A report as every bench gives its figures."""
    made = []
    for row in report.rows:
        what = f"{row.encoder} {row.tower}, {row.precision}"
        if row.skipped:
            continue
        made.append(
            Measurement(
                what=what,
                value=row.segments_per_s,
                unit="segments/s",
                detail=f"{row.gflop_per_segment:.1f} GFLOP a segment, {row.gflop_per_s:.0f} GFLOP/s, "
                f"{row.matmul_share:.0%} of the matrix product's; {row.segments} segments",
            )
        )
        if row.min_cosine is not None:
            made.append(
                Measurement(
                    what=f"{what}: 1 - least cosine with float32",
                    value=1 - row.min_cosine,
                    unit="",
                    at_most=1 - MIN_COSINE,
                    detail=f"mean cosine {row.mean_cosine:.6f}, largest error {row.max_abs_error:.2g}",
                )
            )
    return made


def markdown(report: Report) -> str:
    """The report as a page: one table, a row a tower and precision."""
    best: dict[str, float] = {}
    for row in report.rows:
        best[row.precision] = max(row.matmul_gflop_per_s, best.get(row.precision, 0.0))
    rates = ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in best.items())
    lines = [
        "# Encoders of published size",
        "",
        f"{report.device}, {report.threads} threads, torch {report.torch}{', compiled' if report.compiled else ''}; "
        f"random weights, made-up videos; measured in {report.seconds:.0f} s. Large square matrix product, at its "
        f"best: {rates}.",
        "",
        "| encoder | tower | precision | segments run | segments/s | GFLOP a segment | GFLOP/s | of matmul "
        "| least cosine | mean cosine | largest error | error / spread |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [f"| {' | '.join(_cells(row))} |" for row in report.rows]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    names = [row.encoder, row.tower, row.precision]
    if row.skipped:
        return [*names, f"skipped: {row.skipped}", *[""] * 8]
    figures = [
        str(row.segments),
        f"{row.segments_per_s:.3g}",
        f"{row.gflop_per_segment:.4g}",
        f"{row.gflop_per_s:.0f}",
        f"{row.matmul_share:.0%}",
    ]
    for value, form in (
        (row.min_cosine, ".6f"),
        (row.mean_cosine, ".6f"),
        (row.max_abs_error, ".2g"),
        (row.error_to_spread, ".2g"),
    ):
        figures.append("" if value is None else format(value, form))
    return names + figures
