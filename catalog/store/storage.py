"""Where a store lies, and who may write to it. With `reader.py` and `writer.py`, the only users of icechunk.

A place is written as
    a local path or `file://` URL    one writer at a time, by a lock file in the store's folder
    `s3://bucket/prefix`             credentials and region from the usual AWS_* variables; another endpoint by
                                     AVEL_S3_ENDPOINT or AWS_ENDPOINT_URL (MinIO, moto). No lock: of two writers
                                     the second to commit fails
    `memory://name`                  this process only, for tests and notebooks

Local repositories are not safe with two committers (Icechunk says so), hence the lock (`catalog/lock.py`).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from catalog.errors import StoreBusy, StoreError
from catalog.lock import Locked, hold_lock
from catalog.media import s3_endpoint

# Icechunk 1.1 prints a warning about local storage to standard output unless this is set before its import,
# which would spoil `--json`.
os.environ.setdefault("ICECHUNK_LOG", "error")

import icechunk as icechunk  # named twice: `reader.py` and `writer.py` import it from here, after the line above

LOCK_NAME = "avel-writer.lock"

# Icechunk's folders in a repository, and the file that says which snapshot is the newest.
_PARTS = ("refs", "snapshots", "manifests", "chunks", "transactions")
_NEWEST = "refs/branch.main/ref.json"

_memory: dict[str, icechunk.Storage] = {}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a store lies.

    Attributes:
        uri: as the user wrote it, for messages.
        path: the folder of a local store, else None.
        bucket, prefix: of an S3 store, else None.
    """

    uri: str
    path: Path | None = None
    bucket: str | None = None
    prefix: str | None = None

    def storage(self) -> icechunk.Storage:
        """Icechunk's handle; touches nothing yet."""
        if self.path is not None:
            return icechunk.local_filesystem_storage(str(self.path))
        if self.bucket is not None:
            endpoint = s3_endpoint()
            return icechunk.s3_storage(
                bucket=self.bucket,
                prefix=self.prefix,
                region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
                endpoint_url=endpoint,
                allow_http=endpoint is not None and endpoint.startswith("http://"),
                force_path_style=endpoint is not None,
                from_env=True,
            )
        return _memory.setdefault(self.uri, icechunk.in_memory_storage())

    def check_readable(self) -> None:
        """Says in plain words what a local path lacks, before Icechunk panics over it.

        Raises:
            StoreError: nothing there, a file, or an empty folder.
        """
        if self.path is None:
            return
        hint = "`avel extract SOURCE --recipe R --store STORE` makes a store"
        try:
            if not self.path.exists():
                raise StoreError(f"{self.uri}: no store there, nothing exists at this path; {hint}")
            if not self.path.is_dir():
                raise StoreError(f"{self.uri}: not a store but a file; a store is a folder, {hint}")
            if not any(self.path.iterdir()):
                raise StoreError(f"{self.uri}: no store there, the folder is empty; {hint}")
            if missing := self.missing_part():
                raise StoreError(f"{self.uri}: {incomplete(missing)}")
        except OSError as error:
            raise StoreError(f"{self.uri}: cannot be opened: {error.strerror}") from error

    def missing_part(self) -> str:
        """What the folder of a local store lacks beside others of a store's own: it is an incomplete copy of one."""
        assert self.path is not None
        # One such folder alone is anybody's.
        if sum((self.path / part).is_dir() for part in _PARTS) < 2:
            return ""
        newest = self.path / _NEWEST
        if not newest.is_file() or not newest.stat().st_size:
            return _NEWEST
        return "" if (self.path / "snapshots").is_dir() else "snapshots"

    def check_free(self) -> None:
        """Raises StoreError where a local path holds something that is not a store's own: it is not written into."""
        if self.path is None or not self.path.exists():
            return
        if not self.path.is_dir():
            raise StoreError(f"{self.uri}: a file lies there; give a path that is free for a new store")
        if missing := self.missing_part():
            raise StoreError(f"{self.uri}: {incomplete(missing)}")
        held = sorted(entry.name for entry in self.path.iterdir())
        if held:
            raise StoreError(
                f"{self.uri}: the folder is not empty ({held[0]!r}, {len(held)} in all); "
                "give an empty folder or a new path for the store"
            )


def place(uri: str | os.PathLike[str]) -> Place:
    """The place that `uri` names.

    Raises:
        ValueError: a scheme that stores do not lie on, or an S3 URL without bucket or prefix.
    """
    text = os.fspath(uri)
    if not text or "\0" in text:
        raise ValueError(f"a store needs a path, s3://bucket/prefix or memory://name, got {text!r}")
    # Only `scheme://` is a URL: a folder may be called "a:b".
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return Place(uri=text, path=Path(text).expanduser().absolute())
    parts = urlsplit(text)
    if parts.scheme == "file":
        return Place(uri=text, path=Path(unquote(parts.path)))
    if parts.scheme == "memory":
        return Place(uri=text)
    if parts.scheme == "s3":
        prefix = text.split("://", 1)[1].partition("/")[2].strip("/")
        if not parts.netloc or not prefix:
            raise ValueError(f"an S3 store needs s3://bucket/prefix, got {text!r}")
        return Place(uri=text, bucket=parts.netloc, prefix=prefix)
    raise ValueError(f"stores lie on a local path, s3:// or memory://, got {text!r}")


@contextlib.contextmanager
def writer_lock(where: Place, *, wait_s: float = 0.0) -> Iterator[None]:
    """Holds the one right to write to a local store; does nothing for S3 and memory.

    Args:
        wait_s: how long to wait for another writer to finish.

    Raises:
        StoreBusy: another writer (process or thread) holds it after `wait_s`; names it.
        StoreError: the folder cannot be written to.
    """
    if where.path is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(where.path / LOCK_NAME, wait_s=wait_s))
        except Locked as error:
            raise StoreBusy(
                f"{where.uri}: another writer holds this store ({error}); "
                "wait for it to finish (--wait SECONDS waits here) or stop it"
            ) from None
        except OSError as error:
            owner = f"; {LOCK_NAME} must be writable for you" if (where.path / LOCK_NAME).exists() else ""
            raise StoreError(f"{where.uri}: cannot be written to: {error.strerror}{owner}") from error
        yield


def incomplete(missing: str) -> str:
    """What is said of a store of which something is gone, so that nobody extracts for days what is a copy away."""
    return f"part of a store: {missing} is missing; copy the whole store again from where it is complete"


class StorageErrors:
    """Turns the storage's errors into StoreError with the store's place; a Rust panic too, which is no `Exception`.

    Args:
        uri: of the store, for messages.
        writing: what is done within writes.
    """

    def __init__(self, uri: str, *, writing: bool = False) -> None:
        self._uri, self._writing = uri, writing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, StoreError | icechunk.ConflictError):
            return
        if isinstance(error, icechunk.IcechunkError) or type(error).__name__ == "PanicException":
            said = first_line(error)
            if gone := re.search(r"Object at location (.*?) not found|object not found: (.*)", str(error)):
                where = gone[1] or gone[2]
                part = next((where[where.rindex(f"{p}/") :] for p in _PARTS if f"{p}/" in where), where)
                raise StoreError(f"{self._uri}: {incomplete(part)}") from error
            raise StoreError(f"{self._uri}: {_refusal(said, str(error), writing=self._writing)}") from error
        if isinstance(error, OSError) and self._writing:
            raise StoreError(f"{self._uri}: {_refusal(str(error), str(error), writing=True)}") from error
        if isinstance(error, ValueError) and "checksum" in str(error):
            raise StoreError(
                f"{self._uri}: damaged: a chunk is not what was written (its checksum differs); `avel store verify` "
                "lists the rows that are lost, a copy of the store or another extraction has them"
            ) from error


# What a storage says, by what it looks like in Icechunk's messages; and what to do about it.
_REFUSALS = {
    r"No space left on device|Disk quota exceeded": "make room",
    r"File too large": "allow larger files (`ulimit -f`)",
    r"Read-only file system|Permission denied": "make it writable for you",
    r"\bExpiredToken(?:Exception)?\b": "renew the credentials",
    r"\b(?:AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|Unauthorized|Forbidden)\b": "check the credentials",
    r"\b(?:SlowDown|ServiceUnavailable|RequestTimeout|InternalError)\b": "wait a while",
    r"\bNoSuchBucket\b": "make the bucket",
}


def _refusal(said: str, whole: str, *, writing: bool) -> str:
    """One line of a storage's error: what it refused, its own word for why, and what to do."""
    verb = "written to" if writing else "read"
    for pattern, advice in _REFUSALS.items():
        if found := re.search(pattern, whole):
            rest = "; then the same command goes on, and nothing that was committed is lost" if writing else ""
            return f"cannot be {verb}: {found[0]}; {advice}{rest}"
    return f"cannot be {verb}: {said}"


def first_line(error: BaseException) -> str:
    """Icechunk's errors are trees of many lines; people get the one that says what happened."""
    lines = [line.strip(" |`->x×╰─▶│\t") for line in str(error).splitlines()]
    messages = [line for line in lines if line and not line.startswith(("context:", "at ", "with "))]
    return messages[0] if messages else type(error).__name__
