"""The index of a weights folder: the hashes of its files, so that a checkpoint of gigabytes is read once.

`index.json` in the weights folder maps names there to size, times, SHA-256, origin and the day it came. A file that was
fetched or added does not change afterwards: another content is damage, and an error. Files elsewhere are read each
time; nothing is written beside them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from catalog.lock import Locked, hold_lock
from catalog.whole_file import write_atomically

INDEX_NAME = "index.json"

# Of a checkpoint folder, what decides features: configuration, tensors, tokenizer. Readme, licence and code do not.
FOLDER_SUFFIXES = frozenset({".json", ".safetensors", ".bin", ".pt", ".pth", ".txt", ".model", ".jinja", ".gz", ".npz"})

_CHUNK_BYTES = 1 << 20
_ASK_EVERY_S = 0.5
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Digests:
    """Of a file's content, in hexadecimal digits; `git_blob` (what `git hash-object` says) only where asked for."""

    sha256: str
    git_blob: str | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the index says of one file.

    Attributes:
        size, mtime_ns, ctime_ns: of the file when it was read; others mean that it must be read again.
        sha256, git_blob: of its content.
        origin: the URL or path it came from; None where somebody put it there by hand.
        added: when, ISO 8601 in UTC.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    sha256: str
    origin: str | None
    added: str
    git_blob: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.sha256, str) or not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"an index entry needs a SHA-256 in small hexadecimal digits, got {self.sha256!r}")


def read_digests(path: Path, *, git_blob: bool = False) -> Digests:
    """The digests of a file, read now."""
    sha256 = hashlib.sha256()
    blob = hashlib.sha1(usedforsecurity=False) if git_blob else None
    with path.open("rb") as file:
        if blob is not None:
            blob.update(b"blob %d\0" % os.fstat(file.fileno()).st_size)
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
            if blob is not None:
                blob.update(chunk)
    return Digests(sha256=sha256.hexdigest(), git_blob=None if blob is None else blob.hexdigest())


def digests(path: Path, folder: Path, *, git_blob: bool = False) -> Digests:
    """The digests of a file; those of a file in the weights folder `folder` are remembered.

    Raises:
        ValueError: the file was fetched or added, and has changed since.
        OSError: it cannot be read.
    """
    name = name_in(path, folder)
    if name is None:
        return read_digests(path, git_blob=git_blob)
    entry = entries(folder).get(name)
    before = path.stat()
    if entry is not None and _is_of(entry, before) and not (git_blob and entry.git_blob is None):
        return Digests(sha256=entry.sha256, git_blob=entry.git_blob)
    made = read_digests(path, git_blob=git_blob)
    if entry is not None and entry.origin is not None and made.sha256 != entry.sha256:
        raise ValueError(
            f"{path}: has changed since it came from {entry.origin} on {entry.added}: its SHA-256 was {entry.sha256} "
            f"and is {made.sha256}; remove it and fetch or add it again (`avel weights`)"
        )
    after = path.stat()
    if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    ):
        # A team's folder may be read-only for us: then the hash is still right, only not remembered.
        with contextlib.suppress(OSError):
            record(path, folder, made, origin=entry.origin if entry else None, added=entry.added if entry else None)
    return made


def record(path: Path, folder: Path, made: Digests, *, origin: str | None, added: str | None = None) -> None:
    """Remembers the digests of a file in the weights folder.

    Args:
        origin: the URL or path it came from.
        added: when it came; now where it comes just now.
    """
    name = name_in(path, folder)
    if name is None:
        raise ValueError(f"{path} is not in the weights folder {folder}")
    now = path.stat()
    entry = Entry(
        size=now.st_size,
        mtime_ns=now.st_mtime_ns,
        ctime_ns=now.st_ctime_ns,
        sha256=made.sha256,
        git_blob=made.git_blob,
        origin=origin,
        added=added or datetime.now(UTC).isoformat(timespec="seconds"),
    )
    with locked(folder, INDEX_NAME):
        # Files that are gone are forgotten: another one of the name may come.
        held = {name: old for name, old in entries(folder).items() if (folder / name).exists()} | {name: entry}
        text = json.dumps({key: dataclasses.asdict(held[key]) for key in sorted(held)}, indent=1)
        write_atomically(folder / INDEX_NAME, text + "\n")


def current(path: Path, folder: Path) -> Entry | None:
    """The index's entry of a file as it is now; None where it is not known or must be read again."""
    name = name_in(path, folder)
    entry = entries(folder).get(name) if name is not None else None
    return entry if entry is not None and path.exists() and _is_of(entry, path.stat()) else None


def entries(folder: Path) -> dict[str, Entry]:
    """The index; what of it is damaged is left out, since everything in it can be made again."""
    try:
        held = json.loads((folder / INDEX_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = {}
    for name, values in held.items() if isinstance(held, dict) else ():
        with contextlib.suppress(TypeError, ValueError):
            found[name] = Entry(**values)
    return found


def name_in(path: Path, folder: Path) -> str | None:
    """The name of a path relative to the weights folder, with `/`; None where it lies elsewhere."""
    try:
        return Path(os.path.abspath(path)).relative_to(os.path.abspath(folder)).as_posix()
    except ValueError:
        return None


def folder_files(folder: Path, *, links_out: bool = False) -> dict[str, Path]:
    """The files that count in a checkpoint folder (`FOLDER_SUFFIXES`, not hidden), by relative name.

    Args:
        links_out: links to files outside the folder count too; else they are refused.

    Raises:
        ValueError: no such file in it, a link out of it, or something that is no regular file.
    """
    root = folder.resolve()
    found = {}
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        linked = [Path(where, name) for name in folders if Path(where, name).is_symlink()]
        for name in sorted(names):
            path = Path(where, name)
            if name.startswith(".") or path.suffix not in FOLDER_SUFFIXES:
                continue
            if path.is_symlink() and not links_out and not path.resolve().is_relative_to(root):
                linked.append(path)
            elif not path.is_file():
                raise ValueError(f"{path}: needs a regular file")
            found[path.relative_to(folder).as_posix()] = path
        if linked:
            raise ValueError(
                f"{linked[0]}: is a link to a folder, or out of the checkpoint's folder, whose hash would not tell "
                "what it holds; put the file itself there (`avel weights add` copies the files that links point to)"
            )
    if not found:
        raise ValueError(f"{folder}: holds no checkpoint: no file with {', '.join(sorted(FOLDER_SUFFIXES))}")
    return found


def size_of(path: Path) -> int:
    """Bytes of a file, or of what counts in a checkpoint folder."""
    return sum(file.stat().st_size for file in folder_files(path).values()) if path.is_dir() else path.stat().st_size


@contextlib.contextmanager
def locked(folder: Path, name: str, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the right to write `name` in the weights folder; others, also on other machines, wait.

    Args:
        on_wait: called now and then while another holds it.

    Raises:
        OSError: the folder cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        while True:
            try:
                # A team's folder has several writers, so the lock file is everybody's.
                stack.enter_context(hold_lock(folder / f".{name}.lock", wait_s=_ASK_EVERY_S, everybody=True))
                break
            except Locked:
                if on_wait is not None:
                    on_wait()
        yield


def _is_of(entry: Entry, now: os.stat_result) -> bool:
    return (entry.size, entry.mtime_ns, entry.ctime_ns) == (now.st_size, now.st_mtime_ns, now.st_ctime_ns)
