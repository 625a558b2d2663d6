"""Units, clips and their features for tests of the stages between decoding and the store; no media, no networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from catalog.grid import GridRule, SegmentGrid
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.store.modal import Features, Modal
from catalog.video import Outcome, Video
from pipeline.clips import Clips
from pipeline.executors.job import Job
from pipeline.plan import Unit
from pipeline.sandbox.parent import Decoded
from pipeline.unit import ClipEncoder

VISUAL, AUDIO = 2, 1


def recipe(name: str = "r", *, picture: bool = True, sound: bool = True) -> Recipe:
    return Recipe(
        name=name,
        encoder="made",
        grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
        video=VideoSampling(frames_per_segment=1, height_px=8, width_px=8) if picture else None,
        audio=AudioSampling(rate_hz=1000) if sound else None,
    )


def videos(count: int) -> tuple[Video, ...]:
    return tuple(Video(id=f"v{i:02d}", uri=f"/media/v{i:02d}.mp4") for i in range(count))


def unit(
    count: int = 3, *, recipes: tuple[str, ...] = ("r",), index: int = 0, crashed: frozenset[str] = frozenset()
) -> Unit:
    return Unit(index=index, number=index, videos=videos(count), recipes=recipes, crashed=crashed)


def grid(count: int) -> SegmentGrid:
    return SegmentGrid(window_s=Fraction(1), hop_s=Fraction(1), count=count)


def clips(video_id: str, *, first: int = 0, count: int = 2, of: int = 2, shade: int = 1) -> Clips:
    """Segments `first .. first + count - 1` of `of`, every picture of one `shade`."""
    return Clips(
        video_id=video_id,
        grid=grid(of),
        first=first,
        frames_FHWC=np.full((count, 8, 8, 3), shade, np.uint8),
        frame_index_SP=np.arange(count, dtype=np.int32)[:, None],
        samples_N=np.zeros(0, np.float32),
        sample_valid_N=np.zeros(0, np.bool_),
        samples_start=0,
        rate_hz=0,
    )


def decoded(status: str = "extracted", reason: str = "", *, duration_s: Fraction = Fraction(2)) -> Decoded:
    return Decoded(
        outcome=Outcome(status=status, reason=reason), duration_s=duration_s, media={}, sha256="ab" * 32, num_bytes=7
    )


def features(value: float, count: int = 2, *, sound: bool = True) -> Features:
    """Every number `value`; NaN stands for rows that are not valid."""
    valid_S = np.full(count, not math.isnan(value))
    return Features(
        visual=Modal(values=np.full((count, VISUAL), value, np.float32), valid=valid_S),
        audio=Modal(values=np.full((count, AUDIO), value, np.float32), valid=valid_S) if sound else None,
    )


# What a decoder gives or raises, one after the other, in one attempt.
Attempt = Sequence[tuple[str, Clips] | Decoded | Exception]


@dataclass
class ScriptedDecoder:
    """In the place of the decoding child: for each video what it gives, or raises, at each attempt in turn."""

    script: Mapping[str, Sequence[Attempt]]
    child_pid: int | None = None
    asked: list[str] = field(default_factory=list)

    def decode(self, video: Video, path: str, recipes: Sequence[Recipe]) -> Iterator[tuple[str, Clips] | Decoded]:
        attempt = self.asked.count(video.id)
        self.asked.append(video.id)
        for item in self.script[video.id][min(attempt, len(self.script[video.id]) - 1)]:
            if isinstance(item, Exception):
                raise item
            yield item


@dataclass
class ShadeEncoder:
    """A segment's features are its picture's shade; `refuse` may raise on what it is given."""

    refuse: Callable[[Sequence[Clips]], None] = lambda given: None
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def encode(self, given: Sequence[Clips]) -> list[Features]:
        self.calls.append(tuple(item.video_id for item in given))
        self.refuse(given)
        return [features(float(item.frames_FHWC[0, 0, 0, 0]), item.count) for item in given]


def local_copy(uri: str) -> AbstractContextManager[str]:
    return nullcontext(uri)


@dataclass(frozen=True, kw_only=True)
class ScriptedJob(Job):
    """A job whose decoders read from a script and whose encoders give shades."""

    script: Mapping[str, Sequence[Attempt]]

    def load_encoders(self) -> dict[str, ClipEncoder]:
        return {recipe.name: ShadeEncoder() for recipe in self.recipes}

    def new_sandbox(self) -> AbstractContextManager[ScriptedDecoder]:
        return nullcontext(ScriptedDecoder(self.script))

    def local_copy(self, uri: str) -> AbstractContextManager[str]:
        return local_copy(uri)
