"""A medium at any URI as a local file, since decoders read files: local paths as they are, others by fsspec."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from catalog.errors import MediaError


@contextlib.contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """The medium at `uri` as a local file while the block lasts.

    Raises:
        MediaError: fetch_failed, the remote medium cannot be read.
    """
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", uri):
        yield Path(uri)
        return
    if uri.startswith("file://"):
        yield Path(unquote(urlsplit(uri).path))
        return
    import fsspec

    with tempfile.TemporaryDirectory(prefix="avel-fetch-") as folder:
        path = Path(folder) / "medium"
        try:
            with fsspec.open(uri, "rb") as remote, path.open("wb") as local:
                shutil.copyfileobj(remote, local, 1 << 20)
        except (OSError, ValueError, ImportError) as error:
            raise MediaError("fetch_failed", f"{uri}: {type(error).__name__}: {error}") from error
        yield path
