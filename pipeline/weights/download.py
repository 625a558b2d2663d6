"""A file from the web that arrives whole or not at all, and that goes on where it stopped.

While it comes it is `FILE.part`, and `FILE.part.json` says what it is a part of. A later call, also after `kill -9`,
asks for the rest alone (`Range`), on the condition that the file is still the same one (`If-Range` with its ETag or
date). Only a complete and verified file gets its final name. One caller at a time: `folder.fetch` locks.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from catalog.errors import AvelError

# Bytes here so far (those of earlier calls included), and of all; None where the server does not say.
OnProgress = Callable[[int, int | None], None]

# After a dropped connection. New bytes begin the row anew; a server that never gave any is soon given up.
_PAUSES_S = (0.5, 2.0, 5.0, 10.0, 20.0)
_PAUSES_BEFORE_ANY = 2
# Without a byte for so long, a connection counts as dropped.
_TIMEOUT_S = 60.0
_CHUNK_BYTES = 1 << 20
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class DownloadError(AvelError):
    """A file that could not be fetched; the message says why and what to do. What has come is kept for the next try."""


def download(
    url: str,
    target: Path,
    *,
    verify: Callable[[Path], None],
    size: int | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Fetches `url` to `target`, which then exists complete or not at all.

    Args:
        url: http or https. It may redirect to these, and from https to https alone.
        target: in an existing folder.
        verify: gets the complete file under its temporary name; a ValueError refuses and removes it.
        size: in bytes, where it is known beforehand; a server that offers another one is refused at once.
        on_progress: called as bytes come.

    Raises:
        DownloadError: no such file, another size, no room, no connection after several tries, a redirect elsewhere.
        ValueError: the URL is neither http nor https; or what `verify` raises.
    """
    if _scheme(url) not in ("http", "https"):
        raise ValueError(f"{url}: only http and https are fetched")
    part = target.with_name(target.name + ".part")
    report = on_progress if on_progress is not None else _no_progress
    most = _size(part) if _source_of(part, url) is not None else 0
    tries, began = 0, False
    while True:
        try:
            _transfer(url, part, size, report)
            break
        except _Interrupted as stop:
            came = _size(part)
            # Only bytes beyond what was ever here count: a server that starts over each time must not hold us for ever.
            if came > most:
                most, tries, began = came, 0, True
            pauses_s = _PAUSES_S if began else _PAUSES_S[:_PAUSES_BEFORE_ANY]
            if tries == len(pauses_s):
                kept = f"; {came} bytes are kept, the same command goes on from there" if came else ""
                raise DownloadError(f"{url}: {stop} ({tries + 1} tries){kept}") from stop
            time.sleep(pauses_s[tries])
            tries += 1
    try:
        verify(part)
    except ValueError:
        _forget(part)
        raise
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    _forget(part)


class _Interrupted(Exception):
    """The connection dropped, or the server is busy: worth another try."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What a part is a part of."""

    url: str
    etag: str | None
    last_modified: str | None
    total: int | None

    @property
    def validator(self) -> str | None:
        """What `If-Range` takes: a strong ETag, else the date (RFC 9110, 13.1.5)."""
        if self.etag is not None and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    def is_same_file(self, other: _Source) -> bool:
        mine = (self.etag, self.last_modified if self.etag is None else None, self.total)
        return mine == (other.etag, other.last_modified if other.etag is None else None, other.total)


def _transfer(url: str, part: Path, size: int | None, report: OnProgress) -> None:
    """One connection: gets `part` complete, or raises with what came in it."""
    source = _source_of(part, url)
    done = _size(part) if source is not None else 0
    if source is not None and done == source.total:
        report(done, done)
        return
    headers = {"User-Agent": "avel", "Accept-Encoding": "identity"}
    if source is not None and source.validator is not None and done:
        headers |= {"Range": f"bytes={done}-", "If-Range": source.validator}
    with _open(urllib.request.Request(url, headers=headers), part) as response:
        offered = _offered(response, url)
        if response.status == 206:
            begins = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if offered.total is None and source is not None:
                offered = replace(offered, total=source.total)
            if source is None or begins is None or int(begins[1]) != done or not source.is_same_file(offered):
                # A server that takes Range but not If-Range: this would be the end of another file.
                _forget(part)
                raise _Interrupted("the file changed on the server in between")
        else:
            done = 0
        if size is not None and offered.total not in (None, size):
            raise DownloadError(
                f"{url}: the file needed has {size} bytes, the server offers {offered.total}; it is another file: "
                "get it elsewhere and use `avel weights add`"
            )
        _check_room(part, done, offered.total or size, url)
        try:
            if done == 0:
                # The old bytes go before the new name comes: a kill in between leaves an empty part.
                part.write_bytes(b"")
                _source_path(part).write_text(json.dumps(asdict(offered)), encoding="utf-8")
            with part.open("ab") as file:
                _copy(response, file, done, offered.total, size, report)
        except OSError as error:
            raise _no_room(error, part, url) from error


def _copy(
    response: http.client.HTTPResponse,
    file: IO[bytes],
    done: int,
    total: int | None,
    size: int | None,
    report: OnProgress,
) -> None:
    limit = total if total is not None else size
    report(done, limit)
    for block in _blocks(response):
        file.write(block)
        file.flush()  # what came survives a kill
        done += len(block)
        report(done, limit)
        if limit is not None and done >= limit:
            break
    if total is not None and done < total:
        raise _Interrupted(f"the connection dropped at {done} of {total} bytes")


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            block = response.read1(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(f"the connection dropped ({_told(error)})") from error
        if not block:
            return
        yield block


@contextlib.contextmanager
def _open(request: urllib.request.Request, part: Path) -> Iterator[http.client.HTTPResponse]:
    url = request.full_url
    try:
        response = _opener().open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in _BUSY:
                raise _Interrupted(f"the server answers {error.code} {error.reason}") from error
            if error.code == 416 and _size(part):
                _forget(part)
                raise _Interrupted("the part here is longer than the file") from error
            raise DownloadError(_refused(url, error)) from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(
                f"{url}: the server's certificate is not trusted ({_told(reason)}); "
                "a proxy's certificate goes into $SSL_CERT_FILE"
            ) from error
        raise _Interrupted(f"no connection ({_told(reason)})") from error
    with response:
        # A login page or a proxy's remark answers 200 as well; no checkpoint is one.
        if response.headers.get_content_type() == "text/html" and "Content-Type" in response.headers:
            raise DownloadError(f"{url}: the server sends a web page instead of the file; open the URL in a browser")
        yield response


def _refused(url: str, error: urllib.error.HTTPError) -> str:
    what = {
        401: "it wants a login: get it with a browser, then `avel weights add`",
        403: "access is refused: get it with a browser, then `avel weights add`",
        404: "there is no such file any more: get it elsewhere, then `avel weights add`",
        410: "there is no such file any more: get it elsewhere, then `avel weights add`",
    }
    told = what.get(error.code, "get it with a browser, then `avel weights add`")
    return f"{url}: the server answers {error.code} {error.reason}; {told}"


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https; what began encrypted stays encrypted."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        allowed = ("https",) if _scheme(req.full_url) == "https" else ("http", "https")
        if _scheme(newurl) not in allowed:
            fp.close()
            raise DownloadError(
                f"{req.full_url}: refused, since it redirects to {newurl} (needs {' or '.join(allowed)})"
            )
        # An http.client.HTTPMessage by urllib's own signature, a Message by what it does with it.
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _opener() -> urllib.request.OpenerDirector:
    """http and https alone: urllib's usual opener also reads file:, ftp: and data:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def _offered(response: http.client.HTTPResponse, url: str) -> _Source:
    headers = response.headers
    if response.status == 206:
        told = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        total = int(told[3]) if told is not None and told[3] != "*" else None
    else:
        length = headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
    return _Source(url=url, etag=headers.get("ETag"), last_modified=headers.get("Last-Modified"), total=total)


def _source_of(part: Path, url: str) -> _Source | None:
    """What the part here is of; None where that is not known or it cannot be gone on with."""
    try:
        held = _Source(**json.loads(_source_path(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if held.url != url or held.validator is None or (held.total is not None and _size(part) > held.total):
        return None
    return held


def _check_room(part: Path, done: int, total: int | None, url: str) -> None:
    free = shutil.disk_usage(part.parent).free
    # A part that is thrown away makes room.
    held = 0 if done else _size(part)
    if total is not None and total - done > free + held:
        raise DownloadError(
            f"{url}: needs {total - done} bytes more, {part.parent} has {free} free; "
            "make room, or name another folder by $AVEL_WEIGHTS"
        )


def _no_room(error: OSError, part: Path, url: str) -> DownloadError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DownloadError(
            f"{url}: {part.parent} is full ({error.strerror}) after {_size(part)} bytes; make room and run the same "
            "command again, or name another folder by $AVEL_WEIGHTS"
        )
    return DownloadError(f"{url}: {part} cannot be written ({error.strerror}); name another folder by $AVEL_WEIGHTS")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _source_path(part).unlink(missing_ok=True)


def _source_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _scheme(url: str) -> str:
    return urlsplit(url).scheme.lower()


def _told(error: object) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _no_progress(done: int, total: int | None) -> None:
    pass
