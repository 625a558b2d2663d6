"""Where media lie: known suffixes, names as text, and videos found for ids by one listing of a folder.

Names: an id and a uri are always valid UTF-8 (they are kept in stores and in JSON). A file name that is not is
percent-escaped byte by byte: its id gets `%FF`, its uri is a `file://` URL. `local_path` leads back to the file.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

from catalog.video import Video

VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".flv", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg"),
    *(".wmv", ".asf", ".3gp", ".3g2", ".ogv", ".vob", ".mxf"),
)
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus", ".wma", ".aif", ".aiff")
MEDIA_SUFFIXES = VIDEO_SUFFIXES + AUDIO_SUFFIXES  # in order of preference where one id has several files

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# VGGSound clips carry their span: ID_000034.mp4 (start) or ID_34000_44000.mp4 (start and end in ms).
_SPAN = re.compile(r"(.+?)_(?:\d{6}|\d+_\d+)")


def is_url(text: str) -> bool:
    """True for `scheme://...`, also `file://`."""
    return _URL.match(text) is not None


def media_suffix(name: str) -> str | None:
    """The known media suffix of a file name or path, in lower case; None where it has none."""
    suffix = os.path.splitext(name.rsplit("/", 1)[-1])[1].lower()
    # splitext takes ".mp4" for a hidden file without suffix; nobody means that.
    suffix = suffix or name.rsplit("/", 1)[-1].lower()
    return suffix if suffix in MEDIA_SUFFIXES else None


def text_of(name: str) -> str:
    """A file name as valid UTF-8: itself, or with `%` and the bytes that are not text percent-escaped."""
    if _is_text(name):
        return name
    escaped = name.replace("%", "%25")
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in escaped)


def uri_of(path: str | Path) -> str:
    """The uri of a local path: the absolute path, or a `file://` URL where the path is not valid UTF-8."""
    absolute = os.path.abspath(path)
    return absolute if _is_text(absolute) else "file://" + quote(os.fsencode(absolute))


def local_path(uri: str) -> str | None:
    """The local path that a uri names (a path as it is, a `file://` URL unescaped); None for other URLs."""
    if not is_url(uri):
        return uri
    if not uri.lower().startswith("file://"):
        return None
    # Not urlsplit: it would cut a path at '#' or '?', which a hand-written file:// URL may hold.
    host, slash, rest = uri[len("file://") :].partition("/")
    if host not in ("", "localhost"):
        raise ValueError(f"{uri}: a file:// URL needs an absolute path (file:///data/a.mp4), got the host {host!r}")
    return os.fsdecode(unquote_to_bytes(slash + rest))


def s3_endpoint() -> str | None:
    """Another server than Amazon's, from $AVEL_S3_ENDPOINT or AWS's own variables; None where none is named."""
    names = ("AVEL_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def storage_options(url: str) -> dict[str, Any]:
    """What fsspec needs for a URL: proxies by the usual variables ($https_proxy, $no_proxy), the S3 server."""
    if url.lower().startswith(("http://", "https://")):
        return {"client_kwargs": {"trust_env": True}}
    endpoint = s3_endpoint()
    return {"endpoint_url": endpoint} if endpoint and url.lower().startswith(("s3://", "s3a://")) else {}


def list_names(folder: str) -> list[str] | None:
    """The names in a folder or below a URL prefix, sorted; None where nothing can be listed there."""
    path = local_path(folder)
    if path is None:
        sizes = list_sizes(folder)
        return None if sizes is None else sorted(sizes)
    try:
        return sorted(os.listdir(path))
    except OSError:
        return None


def list_sizes(url: str) -> dict[str, int] | None:
    """Name to bytes (-1 where the server does not say) below a URL prefix, from one listing; None where there is none.

    A server that forbids listing or does not answer is taken for an absent prefix: the media are then
    expected where they should be, and fetching one says what is wrong.
    """
    import fsspec

    filesystem, prefix = fsspec.core.url_to_fs(url, **storage_options(url))
    errors: tuple[type[Exception], ...] = (OSError, NotImplementedError, *_client_errors())
    try:
        entries = filesystem.ls(prefix, detail=True)
    except errors:
        return None
    sizes = {}
    for entry in entries:
        size = entry.get("size")
        sizes[str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]] = -1 if size is None else int(size)
    return sizes


def locate(durations_s: Mapping[str, Fraction | None], folder: str) -> tuple[tuple[Video, ...], tuple[str, ...]]:
    """Videos for ids, by one listing: `folder/ID.(mp4|mkv|...)`, in any case, or VGGSound's `ID_SPAN.mp4`.

    Args:
        durations_s: id to annotated duration, in the order wanted.
        folder: a local folder or a URL prefix. It may be absent: every video then keeps its expected place.

    Returns:
        The videos (an absent one at `folder/ID.mp4`), and what is odd, one sentence each.
    """
    listed = list_names(folder)
    exact: dict[str, list[str]] = {}
    spans: dict[str, list[str]] = {}
    for name in listed or ():
        suffix = media_suffix(name)
        if suffix is None:
            continue
        stem = name[: -len(suffix)]
        exact.setdefault(stem, []).append(name)
        span = _SPAN.fullmatch(stem)
        if span:
            spans.setdefault(span[1], []).append(name)

    def place(name: str) -> str:
        local = local_path(folder)
        return f"{folder.rstrip('/')}/{name}" if local is None else uri_of(os.path.join(local, name))

    videos, missing, several = [], 0, []
    for id_, duration_s in durations_s.items():
        found = exact.get(id_) or spans.get(id_) or []
        if len(found) > 1:
            several.append(id_)
        missing += not found
        name = min(found, key=_preference) if found else f"{id_}.mp4"
        videos.append(Video(id=id_, uri=place(name), duration_s=duration_s))
    odd = []
    if listed is None:
        odd.append(f"No media: {folder} cannot be listed; all {len(videos)} videos are expected there as ID.mp4.")
    elif missing:
        odd.append(f"{missing} of {len(videos)} videos are not in {folder}.")
    if several:
        odd.append(f"{_ids(several)} {'has' if len(several) == 1 else 'have'} several media files in {folder}.")
    return tuple(videos), tuple(odd)


def media_folder(root: str | Path, media: str | Path | None, names: Iterable[str] = ("videos",)) -> str:
    """Where media are looked for: `media` if given, else the first of `names` that is in `root`, else `root` where
    media lie in it, else `root/videos`.
    """
    if media is not None:
        return str(media)
    names = tuple(names)
    for name in names:
        if os.path.isdir(os.path.join(root, name)):
            return os.path.join(root, name)
    if any(media_suffix(name) for name in list_names(str(root)) or ()):
        return str(root)
    return os.path.join(root, names[0])


def url_suffix(url: str) -> str | None:
    """The known media suffix of a URL's path; a query (`?token=...`) does not count."""
    parts = urlsplit(url)
    return media_suffix(parts.path or parts.netloc)


def _client_errors() -> tuple[type[Exception], ...]:
    """The network clients' own errors, which are no OSError; none of a client that was never imported."""
    aiohttp, botocore = sys.modules.get("aiohttp"), sys.modules.get("botocore.exceptions")
    return (*((aiohttp.ClientError,) if aiohttp else ()), *((botocore.BotoCoreError,) if botocore else ()))


def _ids(ids: list[str], shown: int = 3) -> str:
    rest = len(ids) - shown
    return ", ".join(ids[:shown]) + (f" and {rest} more" if rest > 0 else "")


def _is_text(text: str) -> bool:
    return not any(0xD800 <= ord(c) <= 0xDFFF for c in text)


def _preference(name: str) -> tuple[int, str]:
    return MEDIA_SUFFIXES.index(media_suffix(name) or ""), name
