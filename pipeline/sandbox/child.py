"""The sandbox's child: opens media so that its parent need not. `python -m pipeline.sandbox.child`, run by `parent.py`.

It answers requests on a pipe (see `wire.py`) until the pipe is closed. It dies with its parent, however that dies:
on Linux by the parent-death signal, and by a pipe that signals when its other end is closed, which needs no running
Python (a decoder may hang with the interpreter's lock held).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import resource
import signal
import stat
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.errors import MediaError
from catalog.recipe import Recipe
from pipeline.clips import Clips
from pipeline.sandbox import wire

_PR_SET_PDEATHSIG = 1
_HEARTBEAT_S = 1.0
_HASH_CHUNK = 1 << 20

Send = Callable[..., None]


def main(arguments: list[str]) -> int:
    """Serves requests; argv: requests fd, answers fd, lifeline fd, memory limit in bytes, parent's pid or 0."""
    requests, answers, lifeline, memory_bytes, parent = map(int, arguments)
    _die_with_parent(lifeline, parent)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import av

    import pipeline.decode.windows  # noqa: F401  # now, so that a medium's time does not begin with imports

    av.logging.set_level(av.logging.PANIC)
    wire.send(answers, {"kind": "ready"})
    while True:
        try:
            request, _ = wire.receive(requests)
        except EOFError:
            return 0
        _serve(request, answers)


def _die_with_parent(lifeline: int, parent: int) -> None:
    # The kernel sends SIGIO, whose default action is to end the process, when the pipe's last writer is gone.
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    if parent:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    gone = False
    with contextlib.suppress(BlockingIOError):
        gone = os.read(lifeline, 1) == b""  # closed before the signal was asked for
    if gone or (parent and os.getppid() != parent):
        os._exit(0)


def _serve(request: wire.Message, answers: int) -> None:
    def send(message: wire.Message, arrays: Any = ()) -> None:
        wire.send(answers, message, arrays)

    last_s = time.monotonic()

    def heartbeat() -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if now_s - last_s >= _HEARTBEAT_S:
            last_s = now_s
            send({"kind": "alive"})

    verbs = {"decode": _decode, "probe": _probe, "thumbnails": _thumbnails, "loudness": _loudness}
    try:
        verbs[request["verb"]](request, send, heartbeat)
    except MediaError as error:
        send({"kind": "error", "reason": error.reason, "detail": error.detail})
    except MemoryError:
        send({"kind": "error", "reason": "decoder_memory", "detail": "the decoder asked for more memory than allowed"})
    except BrokenPipeError:
        raise SystemExit(0) from None
    except Exception as error:  # noqa: BLE001 - whatever a decoder raises on a hostile file is that file's failure
        where = traceback.extract_tb(error.__traceback__)[-1]
        detail = f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"
        send({"kind": "error", "reason": "decoder_crash", "detail": detail})


def _decode(request: wire.Message, send: Send, heartbeat: Callable[[], None]) -> None:
    from pipeline.decode.probe import probe
    from pipeline.decode.windows import DecodeReport, Restart, decode

    with _Medium(request["path"]) as path:
        digest, num_bytes = _sha256(path, heartbeat)
        info = probe(path)
        send({"kind": "probed", "duration_s": str(info.duration_s)})
        annotated = request["annotated_s"]
        items = decode(
            path,
            info,
            [Recipe.from_json(text) for text in request["recipes"]],
            video_id=request["video_id"],
            annotated_s=None if annotated is None else Fraction(annotated),
            window_bytes=request["window_bytes"],
            heartbeat=heartbeat,
        )
        for item in items:
            if isinstance(item, DecodeReport):
                send(
                    {
                        "kind": "done",
                        "status": item.outcome.status,
                        "reason": item.outcome.reason,
                        "media": item.media,
                        "sha256": digest,
                        "num_bytes": num_bytes,
                    }
                )
            elif isinstance(item, Restart):
                send({"kind": "restart"})
            else:
                _send_clips(*item, send)


def _send_clips(recipe: str, clips: Clips, send: Send) -> None:
    head = {
        "kind": "clips",
        "recipe": recipe,
        "first": clips.first,
        "num_segments": clips.grid.count,
        "samples_start": clips.samples_start,
        "rate_hz": clips.rate_hz,
    }
    send(head, [clips.frames_FHWC, clips.frame_index_SP, clips.samples_N, clips.sample_valid_N])


def _probe(request: wire.Message, send: Send, heartbeat: Callable[[], None]) -> None:
    from pipeline.decode.probe import probe, refuse_implausible

    with _Medium(request["path"]) as path:
        info = probe(path)
        refuse_implausible(info)
        send({"kind": "done", "media": info.to_json()})


def _thumbnails(request: wire.Message, send: Send, heartbeat: Callable[[], None]) -> None:
    from PIL import Image

    from pipeline.decode.frames import FrameTable
    from pipeline.decode.probe import MediaInfo, probe, refuse_implausible
    from pipeline.decode.video import DecordFailed, FrameReader

    with _Medium(request["path"]) as path:
        info = probe(path)
        thumbnails: dict[int, NDArray[np.uint8]] = {}
        numbers = [-1] * len(request["times_s"])

        def read(info: MediaInfo) -> None:
            reader = FrameReader(path, info, heartbeat)
            refuse_implausible(info)
            try:
                for number, frame in reader.read(sorted({n for n in numbers if n >= 0})):
                    if frame is not None:
                        height = request["height_px"]
                        width = max(1, round(frame.shape[1] * height / frame.shape[0]))
                        # A strip 8 pixels high must not become megapixels wide.
                        size = (min(width, 8 * height), height)
                        thumbnails[number] = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))
            finally:
                reader.close()

        if info.video is not None:
            table = FrameTable(pts_F=info.video.pts_F, time_base=info.video.time_base, t0_s=info.t0_s)
            numbers = [table.shown_at(Fraction(time_s)) for time_s in request["times_s"]]
            try:
                read(info)
            except DecordFailed as failure:
                thumbnails.clear()
                read(failure.info)
        used = sorted(thumbnails)
        indices = [used.index(n) if n in thumbnails else -1 for n in numbers]
        send({"kind": "done", "indices": indices}, [thumbnails[n] for n in used])


def _loudness(request: wire.Message, send: Send, heartbeat: Callable[[], None]) -> None:
    from pipeline.decode.audio import AudioReader
    from pipeline.decode.probe import probe, refuse_implausible

    num_bins = request["num_bins"]
    energy, count = np.zeros(num_bins), np.zeros(num_bins)
    with _Medium(request["path"]) as path:
        info = probe(path)
        refuse_implausible(info)
        if info.audio is not None:
            reader = AudioReader(path, info, heartbeat)
            per_sample = float(num_bins / (info.duration_s * reader.rate_hz))
            position = 0
            for (samples_N,), _ in reader.chunks():
                bins = ((position + np.arange(len(samples_N))) * per_sample).astype(np.int64)
                inside = bins < num_bins
                energy += np.bincount(bins[inside], samples_N[inside].astype(np.float64) ** 2, num_bins)
                count += np.bincount(bins[inside], minlength=num_bins)
                position += len(samples_N)
                if not inside.all():
                    break
            reader.close()
    send({"kind": "done"}, [np.sqrt(energy / np.maximum(count, 1)).astype(np.float32)])


class _Medium:
    """A context that gives the path by which decoders open a medium, or says what is wrong with the path.

    Absolute, since FFmpeg takes "a:b" for a protocol; by file descriptor where the name is not UTF-8.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._fd = -1

    def __enter__(self) -> str:
        try:
            os.lstat(self._path)
        except FileNotFoundError as error:
            raise MediaError("missing_file", f"nothing lies at {self._path!r}") from error
        except OSError as error:
            raise MediaError("unreadable_path", f"{self._path!r}: {error.strerror}") from error
        try:
            found = os.stat(self._path)
            if not stat.S_ISREG(found.st_mode):
                kind = "directory" if stat.S_ISDIR(found.st_mode) else "device, pipe or socket"
                raise MediaError("not_a_file", f"{self._path!r} is a {kind}")
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MediaError("unreadable_path", f"{self._path!r}: {error.strerror}") from error
        if found.st_size == 0:
            raise MediaError("empty_file", f"{self._path!r} has no bytes")
        try:
            self._path.encode()
        except UnicodeEncodeError:
            return f"/proc/self/fd/{self._fd}"
        return self._path

    def __exit__(self, *exception: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _sha256(path: str, heartbeat: Callable[[], None]) -> tuple[str, int]:
    """Hex digest and size; also what brings the file into the page cache."""
    digest, size = hashlib.sha256(), 0
    for chunk in _chunks(path):
        digest.update(chunk)
        size += len(chunk)
        heartbeat()
    return digest.hexdigest(), size


def _chunks(path: str) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(_HASH_CHUNK))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield buffer[:count]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
