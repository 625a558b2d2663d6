"""Media without annotations: a folder, a file, a glob, a list or a URL; every entry with a media suffix is a video.

An entry counts by its name alone, in any case: hidden files, links to nothing, loops and directories called x.mp4
are videos too, so that each has a row (and its reason) in the store. Ids are POSIX paths relative to the folder, and
lists give them as written; names that are not UTF-8 are percent-escaped (see `catalog.media`). Links to folders are
followed, each real folder is read once.
"""

from __future__ import annotations

import csv
import glob
import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalog.dataset import Dataset
from catalog.errors import AnnotationError
from catalog.media import MEDIA_SUFFIXES, is_url, local_path, media_suffix, storage_options, text_of, uri_of, url_suffix
from catalog.video import Video

LIST_SUFFIXES = (".txt", ".csv")
LIST_FILE = "videos.csv"  # what `write` writes


def load(root: str | Path, *, media: str | Path | None = None) -> Dataset:
    """The videos of `root`: a directory (recursive), one file, a glob, a list file or an fsspec URL of any of these.

    A list file (.txt, .csv) holds one path or URL a line, relative to the list's folder; `#` begins a comment line.
    A .csv may instead have a header with a column `uri` (or `path`) and perhaps `id`.

    Args:
        root: the source; a path that exists is never read as a glob.
        media: must be None: the source is the media.

    Raises:
        ValueError: nothing there, or nothing with a media suffix.
        AnnotationError: a list file is damaged.
    """
    if media is not None:
        raise ValueError(f"data set folder: root is the media folder itself; leave media out (got {str(media)!r})")
    source = str(root)
    local = local_path(source)
    found = _load_local(local) if local is not None else _load_url(source)
    videos = _distinct(found)
    if not videos:
        raise ValueError(
            f"{text_of(source)}: no media found; looked for names ending in {', '.join(MEDIA_SUFFIXES)}"
            + "".join(f"; {text}" for text in found.oddities())
        )
    return Dataset(
        name="folder",
        classes=(),
        items=(),
        videos=videos,
        num_segments=None,
        background=None,
        oddities=found.oddities(),
    )


def write(dataset: Dataset, root: Path) -> None:
    """Writes the list `root/videos.csv` (columns id, uri); `load` of that file gives the data set back.

    Raises:
        ValueError: the data set has items or durations, which a list cannot hold.
    """
    if dataset.items or dataset.classes or any(video.duration_s is not None for video in dataset.videos):
        raise ValueError(f"{dataset.name}: a list of media holds ids and uris only, no items and no durations")
    root.mkdir(parents=True, exist_ok=True)
    with (root / LIST_FILE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "uri"])
        writer.writerows((video.id, video.uri) for video in dataset.videos)


# Of files left out, so many are named.
_SHOWN = 3


@dataclass
class _Found:
    """(id, uri) pairs, and what was met on the way."""

    entries: list[tuple[str, str]]
    others: list[str] = field(default_factory=list)  # files without a media suffix
    unreadable: list[str] = field(default_factory=list)  # folders that could not be listed
    again: int = 0  # links to folders that had been read already
    repeated: int = 0  # lines of a list that name a medium again

    def oddities(self) -> tuple[str, ...]:
        named = (
            (self.others, "file(s) without a media suffix left out"),
            (self.unreadable, "folder(s) could not be listed"),
        )
        said = (
            (self.again, "link(s) to folders already read not followed"),
            (self.repeated, "line(s) naming a medium again left out"),
        )
        first = tuple(
            f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}."
            for names, what in named
            if names
        )
        return first + tuple(f"{count} {what}." for count, what in said if count)


def _load_local(path: str) -> _Found:
    if os.path.isdir(path):
        return _walk(path)
    if os.path.lexists(path):
        if os.path.splitext(path)[1].lower() in LIST_SUFFIXES:
            with open(path, "rb") as file:
                return _read_list(file.read(), text_of(path), os.path.dirname(os.path.abspath(path)))
        return _Found([(text_of(os.path.basename(path)), uri_of(path))])
    if glob.has_magic(path):
        return _match(path)
    raise ValueError(f"{text_of(path)}: nothing there; needs a folder, a media file, a glob, a list or a URL")


def _walk(top: str) -> _Found:
    found = _Found([])
    names: list[str] = []
    visited: set[tuple[int, int]] = set()
    # Real folders first, then links, so that a file's id is its real path wherever it has one below `top`.
    pending, links = [""], list[str]()
    while pending or links:
        relative = pending.pop() if pending else links.pop(0)
        folder = os.path.join(top, relative)
        try:
            state = os.stat(folder)
            if (state.st_dev, state.st_ino) in visited:
                found.again += 1
                continue
            visited.add((state.st_dev, state.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError:
            if not relative:
                raise
            found.unreadable.append(text_of(relative))
            continue
        for entry in entries:
            path = os.path.join(relative, entry.name)
            is_folder = _is_folder(entry)
            if media_suffix(entry.name):
                names.append(path)
            elif not is_folder:
                found.others.append(text_of(path))
            if is_folder:
                (links if entry.is_symlink() else pending).append(path)
        links.sort()
    found.entries = [(text_of(name), uri_of(os.path.join(top, name))) for name in sorted(names)]
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link loop
        return False


def _match(pattern: str) -> _Found:
    found = _Found([])
    base = os.path.dirname(pattern[: re.search(r"[*?[]", pattern).start()])  # type: ignore[union-attr] # has magic
    for path in sorted(set(glob.glob(pattern, recursive=True, include_hidden=True))):
        if media_suffix(path):
            found.entries.append((text_of(os.path.relpath(path, base or ".")), uri_of(path)))
        elif not os.path.isdir(path):
            found.others.append(text_of(os.path.basename(path)))
    return found


def _load_url(url: str) -> _Found:
    import fsspec

    web = url.lower().startswith(("http://", "https://"))
    # '?' begins a query in web addresses, and '[' may be in one.
    magic = re.search(r"[*]" if web else r"[*?[]", url)
    if not magic and url_suffix(url):
        return _Found([(text_of(url.split("?")[0].rstrip("/").rsplit("/", 1)[-1]), url)])
    filesystem, path = fsspec.core.url_to_fs(url, **storage_options(url))
    if not magic and os.path.splitext(path)[1].lower() in LIST_SUFFIXES and filesystem.isfile(path):
        return _read_list(filesystem.cat_file(path), url, url.rsplit("/", 1)[0])
    try:
        if magic:
            paths = filesystem.glob(path)
            base = path[: re.search(r"[*?[]", path).start()].rpartition("/")[0]  # type: ignore[union-attr] # magic
        else:
            paths, base = filesystem.find(path), path
    except (FileNotFoundError, NotImplementedError) as error:
        raise ValueError(f"{url}: cannot be listed ({error or type(error).__name__}); give a list file") from error
    found = _Found([])
    for name in sorted(paths):
        if media_suffix(name):
            found.entries.append((text_of(_relative(name, base)), _full_url(filesystem, name)))
        else:
            found.others.append(text_of(name.rsplit("/", 1)[-1]))
    return found


def _full_url(filesystem: Any, path: str) -> str:
    return path if is_url(path) else str(filesystem.unstrip_protocol(path))


def _relative(path: str, base: str) -> str:
    base = base.rstrip("/") + "/"
    return path[len(base) :] if path.startswith(base) else path.lstrip("/")


def _read_list(data: bytes, name: str, base: str) -> _Found:
    """The entries of a list file; paths in it may be any bytes, as file names may."""
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise AnnotationError(f"{name}:{line}: a list needs one path or URL a line, got a NUL byte; is it a text file?")
    found = _Found([])
    lines: dict[str, tuple[int, str]] = {}  # id to line and uri
    for line, id_, uri in _rows(text, name):
        path = _resolve(uri, base)
        key = id_ if id_ is not None else text_of(uri)
        if key in lines:
            if lines[key][1] != path:
                raise AnnotationError(f"{name}:{line}: ids must be distinct, got {key!r} as in line {lines[key][0]}")
            found.repeated += 1
            continue
        lines[key] = (line, path)
        found.entries.append((key, path))
    return found


def _rows(text: str, name: str) -> Iterator[tuple[int, str | None, str]]:
    """(line, id or None, uri) of each entry."""
    if not name.lower().endswith(".csv"):
        for number, line in enumerate(re.split(r"\r?\n", text), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                yield number, None, line.strip()
        return
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] | None = None
    try:
        for row in reader:
            number = reader.line_num
            if not any(row) or row[0].lstrip().startswith("#"):
                continue
            if columns is None:
                columns = [column.strip().lower() for column in row]
                if "uri" in columns or "path" in columns:
                    continue
                columns = ["uri"]
            if len(row) != len(columns):
                raise AnnotationError(
                    f"{name}:{number}: needs {len(columns)} column(s), got {len(row)}; "
                    "quote paths with commas, or begin with a header that names a column 'uri'"
                )
            fields = dict(zip(columns, row, strict=True))
            uri = fields.get("uri") or fields.get("path") or ""
            if not uri.strip() or ("id" in fields and not fields["id"]):
                raise AnnotationError(f"{name}:{number}: needs a uri (and an id where there is a column), got {row}")
            yield number, fields.get("id"), uri if len(columns) > 1 else uri.strip()
    except csv.Error as error:
        raise AnnotationError(f"{name}:{reader.line_num}: not readable as CSV: {error}") from error


def _resolve(uri: str, base: str) -> str:
    if is_url(uri):
        return text_of(uri)
    if is_url(base):
        return f"{base}/{text_of(uri)}"
    return uri_of(os.path.join(base, uri))


def _distinct(found: _Found) -> tuple[Video, ...]:
    """Videos with distinct ids: the escaped form of a name may be another file's name (`%FF.mp4`)."""
    videos, taken = [], _plain_ids(found.entries)
    for id_, uri in found.entries:
        distinct = id_
        if uri.startswith("file://") and id_ in taken:
            while distinct in taken:
                distinct += "%"
            taken.add(distinct)
        videos.append(Video(id=distinct, uri=uri))
    return tuple(videos)


def _plain_ids(entries: Iterable[tuple[str, str]]) -> set[str]:
    return {id_ for id_, uri in entries if not uri.startswith("file://")}
