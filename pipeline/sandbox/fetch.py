"""A medium at any URI as a local file, since decoders read files: local paths as they are, others by fsspec.

No cache: features are extracted once. A copy is a file without a name, so that nothing is left behind however this
process ends; it is reached by this process's descriptor. One medium is copied at a time, into the folder of temporary
files ($TMPDIR).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import fsspec

from catalog.errors import MediaError
from catalog.media import local_path, storage_options

# A server may be busy for a moment: so long after the first and the second failure.
PAUSES_S = (0.2, 1.0)
_CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def local_copy(uri: str, *, pauses_s: Sequence[float] = PAUSES_S) -> Iterator[Path]:
    """The medium at `uri` as a local file while the block lasts.

    Args:
        uri: a local path, `file://`, `s3://` (credentials as boto3 finds them; another server by $AVEL_S3_ENDPOINT or
            $AWS_ENDPOINT_URL), `https://` (by the proxy that $https_proxy names) or whatever else fsspec knows.
        pauses_s: how long to wait after each failure but the last.

    Yields:
        A path that this process and its children can open.

    Raises:
        MediaError: missing_file or fetch_failed. A local path is not checked here.
    """
    try:
        path = local_path(uri)
    except ValueError as error:
        raise MediaError("fetch_failed", str(error)) from error
    if path is not None:
        yield Path(path)
    else:
        with tempfile.TemporaryFile(prefix="avel-fetch-") as copy:
            _download(uri, copy, pauses_s)
            yield Path(f"/proc/{os.getpid()}/fd/{copy.fileno()}")


def _download(uri: str, copy: IO[bytes], pauses_s: Sequence[float]) -> None:
    for pause_s in (*pauses_s, None):
        try:
            _copy(uri, copy)
            return
        except MemoryError:
            raise
        except Exception as error:
            # Each backend has errors of its own; whatever they are, they are this medium's row.
            if isinstance(error, FileNotFoundError) and not _is_other_http_error(error.__cause__):
                raise MediaError("missing_file", f"nothing lies at {uri}") from error
            if pause_s is None or isinstance(error, ValueError | ImportError | PermissionError):
                raise MediaError("fetch_failed", f"{uri}: {type(error).__name__}: {error}") from error
            time.sleep(pause_s)


def _is_other_http_error(cause: BaseException | None) -> bool:
    """fsspec raises FileNotFoundError for every HTTP failure on opening; its cause tells which it was."""
    is_http = cause is not None and type(cause).__module__.startswith("aiohttp")
    return is_http and getattr(cause, "status", None) not in (404, 410)


def _copy(uri: str, copy: IO[bytes]) -> None:
    copy.seek(0)
    copy.truncate()
    with fsspec.open(uri, "rb", **storage_options(uri)) as remote:
        while chunk := remote.read(_CHUNK_BYTES):
            copy.write(chunk)
        copy.flush()
        size = getattr(remote, "size", None)
    if size is not None and copy.tell() != size:
        raise OSError(f"{copy.tell()} of {size} bytes came")
