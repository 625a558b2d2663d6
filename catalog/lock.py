"""Lock files: one holder at a time among the processes and threads that use the same path.

A lock is a `flock` on an open file: the kernel drops it when its holder dies in any way, so nothing is stale after
`kill -9`. On a network file system it reaches as far as the mount carries it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

_POLL_S = 0.1


class Locked(Exception):
    """Another process or thread holds the lock; the text names it."""


@contextlib.contextmanager
def hold_lock(path: Path, *, wait_s: float = 0.0, everybody: bool = False, remove: bool = False) -> Iterator[None]:
    """Holds the lock file `path`, made if absent.

    Args:
        wait_s: how long to wait for another holder to finish.
        everybody: any user may hold it, whatever the umask of the one who made it; else those whom the umask lets.
        remove: whether the file is removed at the end. Every holder of this path must then do so, or none.

    Raises:
        Locked: another holds it after `wait_s`.
        OSError: the file cannot be opened for writing.
    """
    deadline = time.monotonic() + wait_s
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if everybody:
                with contextlib.suppress(PermissionError):  # another user's file has its mode already
                    os.fchmod(descriptor, 0o666)
            _acquire(descriptor, deadline)
            if not _is_at(descriptor, path):
                continue  # its holder removed it between the opening and the locking
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
            try:
                yield
            finally:
                # Emptied rather than removed by default: after a removal two holders may lock two files of one name.
                os.ftruncate(descriptor, 0)
                if remove:
                    path.unlink(missing_ok=True)
            return
        finally:
            os.close(descriptor)


def _acquire(descriptor: int, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Locked(_holder(descriptor)) from None
            time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        # The holder has the lock and has not yet written its name.
        return "its process is not known"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
