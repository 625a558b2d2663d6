"""One unit from files to features: the stages that both executors share.

Decoding yields events, encoding takes them in; between the two there may be nothing, a thread or another process.
Videos that fit one window wait until the unit's end and are encoded together; a longer video is encoded window by
window, so that memory is bounded by the window and not by the video.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import threadpoolctl

from catalog.errors import MediaError
from catalog.grid import SegmentGrid
from catalog.recipe import Recipe
from catalog.store.modal import Features
from catalog.video import Video
from pipeline.clips import Clips
from pipeline.plan import Unit
from pipeline.sandbox.parent import Decoded, DecoderKilled, Restart

# A decoder that dies or hangs is tried on that video once more; somebody else's SIGKILL (an operator, the kernel's
# out-of-memory killer) says little about the video, so it gets more tries.
MAX_ATTEMPTS = 2
MAX_FOREIGN_KILLS = 4
CHARGED_REASONS = frozenset({"decoder_crash", "decoder_timeout"})

# Whole videos are gathered up to this much before they are encoded together.
GATHER_BYTES = 64 * 2**20


class DecodingSandbox(Protocol):
    """What decoding needs of `pipeline.sandbox.parent.Sandbox`."""

    @property
    def child_pid(self) -> int | None: ...

    def decode(
        self, video: Video, path: str, recipes: Sequence[Recipe]
    ) -> Iterator[tuple[str, Clips] | Restart | Decoded]: ...


class ClipEncoder(Protocol):
    """What encoding needs of `pipeline.encode.Encoder`."""

    def encode(self, clips: Sequence[Clips]) -> list[Features]: ...


class Stopped(Exception):
    """The executor is closing (or never came up); the unit in hand is given up and nothing of it is kept."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Clips of the unit's video at `position`, for the recipe `recipe`."""

    position: int
    recipe: str
    clips: Clips

    @property
    def nbytes(self) -> int:
        """Bytes of media held."""
        return self.clips.nbytes


@dataclass(frozen=True, kw_only=True)
class Restarted:
    """This video is begun again, by another decoder or in another process: discard its clips so far."""

    position: int
    nbytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The video at `position` is decoded to its end."""

    position: int
    decoded: Decoded
    attempts: int
    decode_s: float
    nbytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Decoding of the video at `position` failed permanently."""

    position: int
    reason: str
    detail: str
    attempts: int
    decode_s: float
    nbytes: int = 0


Event = Window | Restarted | Ended | Failed


@dataclass(frozen=True, kw_only=True)
class VideoWork:
    """One video of a finished unit.

    Attributes:
        decoded: the decoder's report; None where decoding failed.
        reason, detail: why it is quarantined; reason is empty where it is not.
        attempts: how often it was tried, somebody else's kills not counted, so that they leave no trace in the store.
        refused: recipe name -> what its encoder raised on this video; other recipes are not touched by that.
        features: recipe name -> one `Features` a window, in time order; empty when quarantined.
        grids: recipe name -> the whole video's grid.
    """

    decoded: Decoded | None
    reason: str
    detail: str
    attempts: int
    refused: Mapping[str, str]
    features: Mapping[str, Sequence[Features]]
    grids: Mapping[str, SegmentGrid]


@dataclass(frozen=True, kw_only=True)
class UnitResult:
    """A finished unit, its videos in the unit's order, and where the time went (seconds of work, not of waiting)."""

    unit: Unit
    videos: tuple[VideoWork, ...]
    decode_s: float
    encode_s: float

    @property
    def nbytes(self) -> int:
        """Bytes of features held."""
        return sum(part.nbytes for video in self.videos for parts in video.features.values() for part in parts)


def decode_unit(
    unit: Unit,
    recipes: Mapping[str, Recipe],
    sandbox: DecodingSandbox,
    local_copy: Callable[[str], AbstractContextManager[Path | str]],
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """The events of each video of the unit, in order; each video ends with one `Ended` or `Failed`.

    Raises:
        Stopped: `stopping()` has become true.
    """
    wanted = [recipes[name] for name in unit.recipes]
    for position, video in enumerate(unit.videos):
        if stopping():
            raise Stopped
        if video.id in unit.crashed:
            yield Failed(
                position=position,
                reason="worker_crash",
                detail="the worker process died on this video each time it was tried alone",
                attempts=MAX_ATTEMPTS,
                decode_s=0.0,
            )
            continue
        yield from _decode_video(position, video, wanted, sandbox, local_copy, stopping)


class UnitEncoder:
    """Takes a unit's events in, encodes, and gives the unit's result.

    Args:
        unit: whose events they are.
        encoders: recipe name -> encoder.
        gather_bytes: clips of whole videos gathered up to this much are encoded together.
    """

    def __init__(self, unit: Unit, encoders: Mapping[str, ClipEncoder], *, gather_bytes: int = GATHER_BYTES) -> None:
        self._unit = unit
        self._gather_bytes = gather_bytes
        self._encoders = encoders
        self._drafts = [_Draft() for _ in unit.videos]
        self._gathered: dict[str, list[tuple[int, Clips]]] = {name: [] for name in unit.recipes}
        self._decode_s = 0.0
        self._encode_s = 0.0

    def add(self, event: Event) -> None:
        """Takes one event in; encodes where enough has come together."""
        draft = self._drafts[event.position]
        if isinstance(event, Window):
            self._window(draft, event)
            return
        if isinstance(event, Restarted):
            self._drafts[event.position] = _Draft()
            return
        self._decode_s += event.decode_s
        draft.attempts = event.attempts
        if isinstance(event, Failed):
            draft.fail(event.reason, event.detail)
            return
        draft.decoded = event.decoded
        draft.check_complete(self._unit.recipes)
        if draft.reason:
            return
        for name, clips in draft.whole.items():
            self._gathered[name].append((event.position, clips))
            if sum(item.nbytes for _, item in self._gathered[name]) >= self._gather_bytes:
                self._encode_gathered(name)
        draft.whole = {}

    def finish(self) -> UnitResult:
        """Encodes what is left. Every video of the unit must have ended."""
        for name in self._gathered:
            self._encode_gathered(name)
        return UnitResult(
            unit=self._unit,
            videos=tuple(draft.finished() for draft in self._drafts),
            decode_s=self._decode_s,
            encode_s=self._encode_s,
        )

    def _window(self, draft: _Draft, event: Window) -> None:
        clips = event.clips
        if draft.reason or not draft.accept(event.recipe, clips) or event.recipe in draft.refused:
            return
        if clips.first == 0 and clips.count == clips.grid.count:
            draft.whole[event.recipe] = clips
            return
        try:
            draft.features.setdefault(event.recipe, []).extend(self._encode(event.recipe, [clips]))
        except _GuiltyClips as guilty:
            draft.refuse(event.recipe, str(guilty))

    def _encode_gathered(self, name: str) -> None:
        items, self._gathered[name] = self._gathered[name], []
        if not items:
            return
        try:
            made = self._encode(name, [clips for _, clips in items])
        except _GuiltyClips:
            for position, clips in items:
                try:
                    self._drafts[position].features[name] = self._encode(name, [clips])
                except _GuiltyClips as guilty:
                    self._drafts[position].refuse(name, str(guilty))
            return
        for (position, _), features in zip(items, made, strict=True):
            self._drafts[position].features[name] = [features]

    def _encode(self, name: str, clips: list[Clips]) -> list[Features]:
        began_s = time.perf_counter()
        try:
            return self._encoders[name].encode(clips)
        except Exception as error:  # an encoder is a plug-in: whatever it raises is about these clips
            if _blames_no_clip(error):
                raise
            raise _GuiltyClips(f"{type(error).__name__}: {error}") from error
        finally:
            self._encode_s += time.perf_counter() - began_s


def run_unit(
    unit: Unit,
    recipes: Mapping[str, Recipe],
    encoders: Mapping[str, ClipEncoder],
    sandbox: DecodingSandbox,
    local_copy: Callable[[str], AbstractContextManager[Path | str]],
) -> UnitResult:
    """Decodes and encodes one unit, one after the other in this thread."""
    encoder = UnitEncoder(unit, encoders)
    for event in decode_unit(unit, recipes, sandbox, local_copy):
        encoder.add(event)
    return encoder.finish()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Arithmetic on one thread: sums are then taken in one order, whatever the machine and the executor.

    Parallelism comes from running several units at once, never from splitting one sum.
    """
    torch = sys.modules.get("torch")  # an encoder that needs torch has loaded it by now
    before = torch.get_num_threads() if torch is not None else 0
    if torch is not None:
        torch.set_num_threads(1)
    try:
        with threadpoolctl.threadpool_limits(limits=1):
            yield
    finally:
        if torch is not None:
            torch.set_num_threads(before)


class _GuiltyClips(Exception):
    """The encoder raised on these clips."""


@dataclass
class _Draft:
    """A video in the making."""

    decoded: Decoded | None = None
    reason: str = ""
    detail: str = ""
    attempts: int = 1
    whole: dict[str, Clips] = field(default_factory=dict)
    features: dict[str, list[Features]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    grids: dict[str, SegmentGrid] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)

    def fail(self, reason: str, detail: str) -> None:
        """Quarantined: nothing of it is kept."""
        self.reason, self.detail = reason, detail
        self.whole, self.features, self.grids = {}, {}, {}

    def refuse(self, name: str, detail: str) -> None:
        """This recipe's encoder raised on it."""
        self.refused[name] = detail
        self.features.pop(name, None)

    def accept(self, name: str, clips: Clips) -> bool:
        """Whether the window follows on the one before; fails the video otherwise."""
        reached = self.reached.get(name, 0)
        if clips.first != reached or (name in self.grids and self.grids[name] != clips.grid):
            self.fail("decoder_crash", f"{name}: the decoder gave segment {clips.first} where {reached} was due")
            return False
        self.grids[name] = clips.grid
        self.reached[name] = reached + clips.count
        return True

    def check_complete(self, names: Sequence[str]) -> None:
        """Fails the video where a recipe's segments are not all there."""
        for name in names:
            if self.reason:
                return
            grid = self.grids.get(name)
            if grid is None or self.reached[name] != grid.count:
                got = self.reached.get(name, 0)
                need = "any" if grid is None else str(grid.count)
                self.fail("decoder_crash", f"{name}: the decoder ended after {got} segments of {need}")

    def finished(self) -> VideoWork:
        return VideoWork(
            decoded=self.decoded,
            reason=self.reason,
            detail=self.detail,
            attempts=self.attempts,
            refused=self.refused,
            features=self.features,
            grids=self.grids,
        )


def _decode_video(
    position: int,
    video: Video,
    recipes: Sequence[Recipe],
    sandbox: DecodingSandbox,
    local_copy: Callable[[str], AbstractContextManager[Path | str]],
    stopping: Callable[[], bool],
) -> Iterator[Event]:
    charged = foreign = 0
    spent_s = 0.0
    while True:
        began_s = time.perf_counter()
        try:
            with local_copy(video.uri) as path:
                for item in sandbox.decode(video, str(path), recipes):
                    spent_s += time.perf_counter() - began_s
                    if isinstance(item, Decoded):
                        yield Ended(position=position, decoded=item, attempts=charged + 1, decode_s=spent_s)
                        return
                    if isinstance(item, Restart):
                        yield Restarted(position=position)
                        began_s = time.perf_counter()
                        continue
                    yield Window(position=position, recipe=item[0], clips=item[1])
                    began_s = time.perf_counter()
            reason, detail = "decoder_crash", "the decoder ended without a word"
            charged += 1
            final = charged >= MAX_ATTEMPTS
        except DecoderKilled as error:
            reason, detail = error.reason, error.detail
            foreign += 1
            final = foreign >= MAX_FOREIGN_KILLS
        except MediaError as error:
            reason, detail = error.reason, error.detail
            charged += 1
            final = reason not in CHARGED_REASONS or charged >= MAX_ATTEMPTS
        spent_s += time.perf_counter() - began_s
        if stopping():
            raise Stopped
        if final:
            attempts = max(charged, 1)
            yield Failed(position=position, reason=reason, detail=detail, attempts=attempts, decode_s=spent_s)
            return
        yield Restarted(position=position)


def _blames_no_clip(error: Exception) -> bool:
    """Out of memory on the host or the device: the same clips may pass elsewhere, so no video is to blame."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch.cuda's, without importing torch
        or "DefaultCPUAllocator" in str(error)
    )
