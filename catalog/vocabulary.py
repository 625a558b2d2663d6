"""Vocabularies: class names from the files in which people keep them.

Read as they come: one name a line (OV-AVEBench, AVE, Kinetics), a CSV whose header has a column of names (AudioSet,
ESC-50), or a JSON list. The order of the file is the order of the classes.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

# Columns that hold the names, in files with a header.
NAME_COLUMNS = ("display_name", "name", "label", "class")
MAX_BYTES = 16 * 2**20


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """The class names of a file, in its order.

    Args:
        path: UTF-8 text, at most `MAX_BYTES`; a JSON list where it begins with "[".

    Raises:
        ValueError: empty, too large, not UTF-8, damaged JSON, an empty or duplicate name (with its line).
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path}: a vocabulary file has at most {MAX_BYTES >> 20} MB; this is something else")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: a vocabulary needs UTF-8 text ({error})") from error
    numbered = _from_json(text, path) if text.lstrip().startswith("[") else _from_lines(text, path)
    if not numbered:
        raise ValueError(f"{path}: no class name in it; needs one a line")
    first_seen: dict[str, int] = {}
    for number, name in numbered:
        if name in first_seen:
            raise ValueError(f"{path}: {name!r} stands at {first_seen[name]} and at {number}; class names are distinct")
        first_seen[name] = number
    return tuple(first_seen)


def _from_json(text: str, path: Path) -> list[tuple[int, str]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged JSON ({error})") from error
    if not isinstance(value, list):
        raise ValueError(f"{path}: needs a JSON list of names, got {type(value).__name__}")
    for number, name in enumerate(value, start=1):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{path}: entry {number} needs a name, got {str(name)[:60]!r}")
    return [(number, name.strip()) for number, name in enumerate(value, start=1)]


def _from_lines(text: str, path: Path) -> list[tuple[int, str]]:
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    header = next(csv.reader(lines[:1]), [])
    column = next((header.index(name) for name in NAME_COLUMNS if name in header), None)
    if column is None or len(header) < 2:
        names = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    else:
        rows = csv.reader(io.StringIO(text))
        next(rows)
        names = [(rows.line_num, row[column].strip() if column < len(row) else "") for row in rows if row]
    for number, name in names:
        if not name:
            raise ValueError(f"{path}, line {number}: no class name; remove the line or write one")
    return names
