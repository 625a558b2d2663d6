"""Output of the verbs: results on standard output, everything else on standard error.

With `--json` a verb prints exactly one JSON object on standard output. Text from media, annotations and stores is
shown with control characters made visible, so that a file name cannot repaint the terminal.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

PLAIN_EVERY_S = 5.0


def visible(text: object) -> str:
    """`text` on one line, control characters, lone surrogates and direction marks spelt out as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def print_json(value: object) -> None:
    """One JSON object on standard output. NaN and infinity raise: JSON has no spelling for them."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    out = _standard_output()
    out.write(text)
    out.flush()


def say(text: str) -> None:
    """A line of the result, on standard output."""
    _standard_output().write(text + "\n")


def note(text: str) -> None:
    """A remark, on standard error; nothing where that is closed."""
    if sys.stderr is None:
        return
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on standard output; numbers stand right, texts left.

    No word is ever broken, so that names can be copied: cells wrap at spaces, and where even the longest words do not
    fit side by side in the terminal, each row is printed as its first cell and `column: value` pairs below it.
    Where standard output is not a terminal, the table is as wide as its content: a log or a pipe gets whole lines.
    """
    body = [[visible(cell) for cell in row] for row in rows]
    cells = [[column, *(row[i] for row in body)] for i, column in enumerate(columns)]
    out = _standard_output()
    console = Console(file=out)
    border = 3 * len(columns) + 1
    widths = _column_widths(cells, console.width - border if console.is_terminal else None)
    if widths is None:
        say("\n".join([title, *(line for row in body for line in _record(columns, row, console.width))]))
        return
    grid = Table(title=Text(title), title_justify="left", header_style="bold")
    for column, width, (_, *values) in zip(columns, widths, cells, strict=True):
        numeric = bool(values) and all(_is_number(value) for value in values)
        grid.add_column(Text(column), justify="right" if numeric else "left", overflow="fold", width=width)
    for row in body:
        grid.add_row(*(Text(cell) for cell in row))
    if not console.is_terminal:
        console = Console(file=out, width=max(80, len(title), sum(widths) + border))
    console.print(grid)


def duration(seconds: float) -> str:
    """`seconds` as a person reads them: 8.3 s, 4 min 05 s, 3 h 12 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def byte_size(count: float) -> str:
    """`count` bytes as a person reads them: 512 B, 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def shape_text(shape: Sequence[int] | None) -> str:
    """A feature's shape: 7 x 7 x 512, or - where there is none."""
    return "-" if shape is None else " x ".join(map(str, shape))


def leaves(value: object, path: str = "") -> list[tuple[str, object]]:
    """The values of nested mappings, each with its dotted path: the rows of a table of settings."""
    if not isinstance(value, dict):
        return [(path, value)]
    return [leaf for key, inner in value.items() for leaf in leaves(inner, f"{path}.{key}" if path else key)]


class Progress:
    """Progress with rate and time left, on standard error: a bar on a terminal, a plain line each 5 s elsewhere.

    Args:
        what: what is being done ("extract").
        total: how many units; None where it is not known.
        unit: what is counted ("videos").
        quiet: print nothing.
        file: instead of standard error.
    """

    def __init__(self, what: str, total: int | None, unit: str, *, quiet: bool = False, file: TextIO | None = None):
        self._file = file if file is not None else sys.stderr
        # Python has no standard error where the process began with it closed.
        self.what, self.total, self.unit, self.quiet = what, total, unit, quiet or self._file is None
        self.done = 0
        self.text = ""
        self._began_s = self._said_s = time.monotonic()
        self._bar: RichProgress | None = None

    def __enter__(self) -> Progress:
        self._began_s = self._said_s = time.monotonic()
        if not self.quiet and self._file.isatty():
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}  {task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}", markup=False),
                console=Console(file=self._file),
            )
            self._task = self._bar.add_task(self.what, total=self.total, unit=self.unit, rate="", text="")
            self._bar.start()
        return self

    def advance(self, count: int = 1, text: str | None = None) -> None:
        """Counts `count` more units; `text` is shown after the bar."""
        self.done += count
        if text is not None:
            self.text = visible(text)
        self._show(last=False)

    def update(self, text: str) -> None:
        """Shows another `text` after the bar."""
        self.text = visible(text)
        self._show(last=False)

    def __exit__(self, *exception: object) -> None:
        self._show(last=True)
        if self._bar is not None:
            self._bar.stop()

    def _show(self, *, last: bool) -> None:
        if self.quiet:
            return
        now_s = time.monotonic()
        spent_s = max(now_s - self._began_s, 1e-9)
        rate = self.done / spent_s
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=f"{rate:.1f}/s", text=self.text)
            return
        if not last and now_s - self._said_s < PLAIN_EVERY_S:
            return
        if last and self.done == 0:
            return
        self._said_s = now_s
        parts = [f"{self.what}: {self.done}" + (f"/{self.total}" if self.total is not None else "") + f" {self.unit}"]
        parts.append(f"{rate:.1f}/s")
        if not last and self.total is not None and rate > 0 and self.done < self.total:
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        if last:
            parts.append(f"in {duration(spent_s)}")
        if self.text:
            parts.append(self.text)
        self._file.write(", ".join(parts) + "\n")
        self._file.flush()


def _standard_output() -> TextIO:
    """Where results go.

    Raises:
        SystemExit: it was closed when the process began (`avel ... >&-`), so that not even an error could be printed
            as the one JSON object; ends the command with status 1 and one line on standard error.
    """
    if sys.stdout is None:
        raise SystemExit("avel: error: standard output is closed, and the result has nowhere to go")
    return sys.stdout


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").rstrip("%").strip() or "x")
    except ValueError:
        return text in ("", "-")
    return True


def _column_widths(cells: Sequence[Sequence[str]], available: int | None) -> list[int] | None:
    """Width of each column of `cells` (header and values); None where their longest words do not fit in `available`."""
    full = [max(map(cell_len, column)) for column in cells]
    if available is None:
        return full
    widths = [max(cell_len(word) for cell in column for word in cell.split(" ")) for column in cells]
    if sum(widths) > available:
        return None
    for _ in range(min(available, sum(full)) - sum(widths)):
        narrowest = max(range(len(widths)), key=lambda i: full[i] - widths[i])
        widths[narrowest] += 1
    return widths


def _record(columns: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    """A row as lines: its first cell, then its other cells that are not empty; no pair is broken."""
    lines = [row[0]]
    pairs = [f"{column}: {cell}" if column else cell for column, cell in zip(columns[1:], row[1:], strict=True) if cell]
    for pair in pairs:
        if len(lines) > 1 and cell_len(lines[-1]) + 2 + cell_len(pair) <= width:
            lines[-1] += f"  {pair}"
        else:
            lines.append(f"  {pair}")
    return lines
