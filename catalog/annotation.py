"""Annotation files as text, lines and JSON, read strictly: whatever is wrong is an `AnnotationError` that says where.

A byte order mark, CRLF line ends and a missing last line end are tolerated everywhere, and `FILE.gz` stands for FILE.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

from catalog.errors import AnnotationError
from catalog.grid import exact_seconds

# The largest of the known files is 3 MB; a gzip file of 1 MB can hold 1 GB.
MAX_BYTES = 256 * 2**20


def find_file(root: Path, names: Sequence[str]) -> Path | None:
    """The first of `names` that lies in `root`, as it is or with `.gz`."""
    for name in names:
        for path in (root / name, root / f"{name}.gz"):
            if path.is_file():
                return path
    return None


def need_file(root: Path, names: Sequence[str], what: str) -> Path:
    """As `find_file`.

    Raises:
        AnnotationError: none is there; the message says which names are expected and what lies there instead.
    """
    path = find_file(root, names)
    if path is not None:
        return path
    if not root.is_dir():
        raise AnnotationError(f"{root}: no such folder; needs the folder that holds {' or '.join(names)} ({what})")
    there = sorted(entry.name for entry in root.iterdir())
    listed = ", ".join(there[:10]) + (f" and {len(there) - 10} more" if len(there) > 10 else "")
    raise AnnotationError(
        f"{root}: {what} missing; needs {' or '.join(names)} there, got {listed or 'an empty folder'}"
    )


def read_text(path: Path) -> str:
    """The whole file as text.

    Raises:
        AnnotationError: not UTF-8, not gzip though named so, cut off, or larger than `MAX_BYTES`.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                data = file.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise AnnotationError(f"{path}: not a whole gzip file ({error}); fetch it again") from error
    if len(data) > MAX_BYTES:
        raise AnnotationError(f"{path}: holds over {MAX_BYTES} bytes; an annotation file has a few million")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise AnnotationError(
            f"{path}:{line}: needs UTF-8 text, got the byte 0x{data[error.start]:02x} at offset {error.start}; "
            "save the file as UTF-8"
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise AnnotationError(f"{path}:{line}: needs text, got a NUL byte; fetch the file again")
    return text


def read_lines(path: Path) -> list[str]:
    """Lines without their ends; what follows the last line end counts only if there is something."""
    # Not str.splitlines, which also splits at form feeds and U+2028.
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def read_json(path: Path) -> Any:
    """The file's JSON, strictly: no key twice, no NaN; numbers with a point or an exponent as exact fractions.

    Raises:
        AnnotationError: not JSON, or not strictly; the message names the line or the key.
    """

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(found)
        if len(value) < len(found):
            keys = [key for key, _ in found]
            twice = next(key for key in value if keys.count(key) > 1)
            raise AnnotationError(f"{path}: the key {twice!r} occurs twice in one object; remove one")
        return value

    def constant(text: str) -> NoReturn:
        raise AnnotationError(f"{path}: needs finite numbers, got {text}")

    def fraction(text: str) -> Fraction:
        try:
            return exact_seconds(text)
        except ValueError as error:
            raise AnnotationError(f"{path}: the number {text[:40]} is out of any range; correct it") from error

    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=pairs, parse_float=fraction, parse_constant=constant)
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated string")
        cut = " (the file seems cut off; fetch it again)" if at_end else ""
        raise AnnotationError(f"{path}:{error.lineno}: not JSON at column {error.colno}: {error.msg}{cut}") from error
    except AnnotationError:
        raise
    except (RecursionError, ValueError) as error:  # ValueError: an integer of over 4300 digits
        raise AnnotationError(f"{path}: not JSON that an annotation file would hold: {error}") from error


def need(value: Any, kind: type | tuple[type, ...], where: str, what: str) -> Any:
    """`value`, which must be of `kind` (True and False are no numbers; 7.0, as pandas writes it, is 7).

    Raises:
        AnnotationError: it is not; `where` names file, key and field, `what` says what is needed.
    """
    if kind is int and isinstance(value, Fraction) and value.denominator == 1:
        return int(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise AnnotationError(f"{where}: needs {what}, got {_short(value)}")
    return value


def need_key(value: dict[str, Any], key: str, kind: type | tuple[type, ...], where: str, what: str) -> Any:
    """`value[key]`, checked as by `need`."""
    if key not in value:
        raise AnnotationError(f"{where}: needs the field {key!r} ({what}), got {', '.join(value) or 'an empty object'}")
    return need(value[key], kind, f"{where}, field {key!r}", what)


def check_video_id(id_: str, where: str) -> str:
    """`id_`, which must be fit to name a file: media are looked for at `media/ID.mp4` and nowhere else.

    Raises:
        AnnotationError: it is empty, or holds a slash, `..` or a control character.
    """
    if not id_.strip() or re.search(r"[/\\\x00-\x1f\x7f\ud800-\udfff]|\.\.", id_):
        raise AnnotationError(f"{where}: needs a video id fit for a file name (no '/', no '..'), got {id_!r}")
    return id_


def _short(value: object) -> str:
    text = repr(_plain(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(value: object) -> object:
    """As the file has it: numbers with a point were read as fractions."""
    if isinstance(value, Fraction):
        return float(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value
