"""The killable child in which media are opened: a decoder's crash or hang is a row of the store, not the job's end.

A child is a fresh Python process (never a fork: decoders do not survive one), kept from medium to medium and replaced
after `Limits.media_per_child` media, since decord leaks. It is killed when it is silent or busy for too long, and dies
with its parent. There is no retrying here: `pipeline.unit` counts attempts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.errors import MediaError
from catalog.grid import SegmentGrid
from catalog.recipe import Recipe
from catalog.video import Outcome, Video
from pipeline.clips import Clips
from pipeline.sandbox import wire

# The pipe's buffer, so that the child decodes on while its parent encodes; more needs privileges.
_PIPE_BYTES = 1 << 20
_PROJECT = Path(__file__).resolve().parents[2]
_CHILD = "pipeline.sandbox.child"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a child may use.

    Attributes:
        idle_s: seconds without a sign of life; it gives one a second while it decodes.
        total_s_base, total_s_per_media_s: a medium of d seconds may take base + per_media * d seconds.
        memory_bytes: of address space (RLIMIT_AS).
        window_bytes: about how much media one window of all recipes holds.
        start_s: seconds to start in; a cold file system makes imports slow.
        media_per_child: media that a child opens before it is replaced.
    """

    idle_s: float = 60
    total_s_base: float = 120
    total_s_per_media_s: float = 4
    memory_bytes: int = 4 << 30
    window_bytes: int = 32 << 20
    start_s: float = 120
    media_per_child: int = 100


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """How a medium was read, once all its clips have been given.

    Attributes:
        outcome: extracted; partial for no_video or no_audio.
        duration_s: exact, on the medium's own clock.
        media: container and stream facts, the decoder paths used, damage counted; JSON values only.
        sha256, num_bytes: of the file.
    """

    outcome: Outcome
    duration_s: Fraction
    media: dict[str, Any]
    sha256: str
    num_bytes: int


@dataclass(frozen=True)
class Restart:
    """The decoder begins the medium again: discard its clips so far."""


class DecoderKilled(MediaError):
    """The child was killed from outside (a SIGKILL that is not ours, often the kernel's memory killer)."""


class Sandbox:
    """One child that opens media. Not for several threads at once; any number side by side.

    Args:
        limits: of the child.
        child_module: what the child runs; it speaks `wire`.
        clock: seconds, by which the child's time is measured.
    """

    def __init__(
        self, limits: Limits = Limits(), *, child_module: str = _CHILD, clock: wire.Clock = time.monotonic
    ) -> None:
        self._limits = limits
        self._start: Callable[[], _Child] = lambda: _Child(limits, child_module, clock)
        self._child: _Child | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child; the next call starts another."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    @property
    def child_pid(self) -> int | None:
        """The running child's process id; None before the first call and after a child's end."""
        return None if self._child is None else self._child.process.pid

    def decode(
        self, video: Video, path: Path | str, recipes: Sequence[Recipe]
    ) -> Iterator[tuple[str, Clips] | Restart | Decoded]:
        """Yields (recipe name, Clips) in time order for each recipe, then one `Decoded`.

        A `Restart` between says to discard the clips so far: they all come again.

        Args:
            video: whose clips they become; an annotated duration far above the medium's is truncated_media.
            path: the local file.
            recipes: fed by one pass over the medium; names must differ.

        Raises:
            MediaError: the medium cannot be used (discard the clips given so far), or its decoder died:
                decoder_crash, decoder_timeout, decoder_memory.
            DecoderKilled: a MediaError: somebody else killed the child.
        """
        by_name = {recipe.name: recipe for recipe in recipes}
        if len(by_name) != len(recipes):
            raise ValueError(f"recipes to decode for need different names, got {[recipe.name for recipe in recipes]}")
        request = {
            "verb": "decode",
            "path": os.fspath(path),
            "video_id": video.id,
            "annotated_s": None if video.duration_s is None else str(video.duration_s),
            "recipes": [recipe.to_json() for recipe in recipes],
            "window_bytes": self._limits.window_bytes,
        }
        duration_s = Fraction(0)
        grids = {}
        for message, arrays in self._call(request):
            if message["kind"] == "probed":
                duration_s = Fraction(message["duration_s"])
            elif message["kind"] == "clips":
                name = message["recipe"]
                if name not in grids:
                    grids[name] = by_name[name].grid.grid(duration_s)
                yield name, _clips(video.id, grids[name], message, arrays)
            elif message["kind"] == "restart":
                yield Restart()
            else:
                yield Decoded(
                    outcome=Outcome(status=message["status"], reason=message["reason"]),
                    duration_s=duration_s,
                    media=message["media"],
                    sha256=message["sha256"],
                    num_bytes=message["num_bytes"],
                )

    def probe(self, path: Path | str) -> dict[str, Any]:
        """Container, tracks, clock and duration of a medium as JSON values (exact times as "n/d" seconds).

        Raises:
            MediaError: as `decode`, as far as demuxing can tell.
        """
        media: dict[str, Any] = self._answer({"verb": "probe", "path": os.fspath(path)})[0]["media"]
        return media

    def thumbnails(self, path: Path | str, times_s: Sequence[float], height_px: int) -> list[NDArray[np.uint8] | None]:
        """The frames shown at `times_s`, (height_px, W, 3) uint8 RGB; None where no frame is shown.

        Raises:
            MediaError: as `decode`.
        """
        request = {"verb": "thumbnails", "path": os.fspath(path), "times_s": list(times_s), "height_px": height_px}
        message, arrays = self._answer(request)
        return [arrays[index] if index >= 0 else None for index in message["indices"]]

    def loudness(self, path: Path | str, num_bins: int) -> NDArray[np.float32]:
        """(num_bins,) float32 root mean square of the mono audio over equal parts of the duration; 0 without audio.

        Raises:
            MediaError: as `decode`.
        """
        return self._answer({"verb": "loudness", "path": os.fspath(path), "num_bins": num_bins})[1][0]

    def _answer(self, request: wire.Message) -> tuple[wire.Message, wire.Arrays]:
        *_, last = self._call(request)
        return last

    def _call(self, request: wire.Message) -> Iterator[tuple[wire.Message, wire.Arrays]]:
        """The child's messages to `request`, ending with "done"; its errors raised, its death explained."""
        if self._child is not None and self._child.num_requests >= self._limits.media_per_child:
            self.close()
        if self._child is None:
            self._child = self._start()
        child = self._child
        finished = False
        try:
            for message, arrays in child.ask(request):
                if message["kind"] == "error":
                    finished = message["reason"] != "decoder_memory"
                    raise MediaError(message["reason"], message["detail"])
                finished = message["kind"] == "done"
                yield message, arrays
        finally:
            # Left early, by an error or by the caller: what the child still sends belongs to nobody.
            if not finished:
                self.close()


class _Child:
    """A running child and the time it may take."""

    def __init__(self, limits: Limits, module: str, clock: wire.Clock) -> None:
        self._limits, self._clock = limits, clock
        self.num_requests = 0
        request_read, self._requests = os.pipe()
        self._answers, answer_write = os.pipe()
        lifeline_read, self._lifeline = os.pipe()
        with contextlib.suppress(OSError):  # a user of many pipes is not given larger ones
            fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        # The parent-death signal fires when the *thread* that started the child ends: for the main thread only.
        parent = os.getpid() if threading.current_thread() is threading.main_thread() else 0
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        given = (request_read, answer_write, lifeline_read)
        try:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    module,
                    *map(str, given),
                    str(limits.memory_bytes),
                    str(parent),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=given,
                env=_environment(),
                start_new_session=True,  # an interrupt at the terminal is the parent's to handle
            )
        finally:
            for fd in given:
                os.close(fd)
        try:
            wire.receive(self._answers, idle_s=limits.start_s, clock=clock)
        except (EOFError, wire.Silence) as error:
            death = self._death() if isinstance(error, EOFError) else None
            self.kill()
            if isinstance(death, DecoderKilled):
                raise death from None
            detail = death.detail if death else f"it was not ready in {limits.start_s:.0f} s"
            # No medium's fault: an error of the job, not a row of the store.
            raise RuntimeError(f"the decoding process cannot start with {limits}: {detail}") from None

    def ask(self, request: wire.Message) -> Iterator[tuple[wire.Message, wire.Arrays]]:
        """Yields the answers to `request`, "done" or "error" last."""
        self.num_requests += 1
        clock, idle_s = self._clock, self._limits.idle_s
        left_s = total_s = self._limits.total_s_base
        try:
            wire.send(self._requests, request)
            while True:
                began_s = clock()
                try:
                    message, arrays = wire.receive(
                        self._answers, idle_s=idle_s, deadline_s=began_s + left_s, clock=clock
                    )
                finally:
                    # Only waiting counts: a caller that is busy encoding does not use up its decoder's time.
                    left_s -= clock() - began_s
                if message["kind"] == "probed":
                    extra_s = self._limits.total_s_per_media_s * float(Fraction(message["duration_s"]))
                    left_s, total_s = left_s + extra_s, total_s + extra_s
                if message["kind"] != "alive":
                    yield message, arrays
                if message["kind"] in ("done", "error"):
                    return
                if left_s <= 0:
                    raise wire.Silence
        except wire.Silence:
            what = f"not done in {total_s:.0f} s" if left_s <= 0 else f"no sign of life for {idle_s:.0f} s"
            raise MediaError("decoder_timeout", f"the decoder: {what}") from None
        except (EOFError, BrokenPipeError):
            raise self._death() from None

    def kill(self) -> None:
        """Ends the process and lets go of everything it held."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for fd in (self._requests, self._answers, self._lifeline):
            os.close(fd)
        self._stderr.close()

    def _death(self) -> MediaError:
        code = self.process.wait()  # its end of the pipe is closed: it is going
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 2000))
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        last_words = f"; its last words: {lines[-1].strip()[:200]}" if lines else ""
        if code == -signal.SIGKILL:
            return DecoderKilled("decoder_crash", "the decoder's process was killed (SIGKILL) by another process")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return MediaError("decoder_crash", f"the decoder's process ended by {how}{last_words}")


def _environment() -> dict[str, str]:
    path = os.environ.get("PYTHONPATH")
    return os.environ | {
        "PYTHONPATH": f"{_PROJECT}{os.pathsep}{path}" if path else str(_PROJECT),
        # One decoder, one thread: workers are many. Arenas of idle threads count against the memory limit.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }


def _clips(video_id: str, grid: SegmentGrid, message: wire.Message, arrays: wire.Arrays) -> Clips:
    frames, index, samples, valid = arrays
    return Clips(
        video_id=video_id,
        grid=grid,
        first=message["first"],
        frames_FHWC=frames,
        frame_index_SP=index,
        samples_N=samples,
        sample_valid_N=valid,
        samples_start=message["samples_start"],
        rate_hz=message["rate_hz"],
    )
