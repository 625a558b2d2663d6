"""One medium in, windows of clips out: both tracks advance together in time, one pass feeds every recipe.

What is held at once is bounded by the window, not by the medium: frames are resized as they come, a frame that several
segments or recipes need is resized and held once, audio is resampled as it comes. Plain functions; the sandbox runs
them in its child.

Policy, beyond the plain cases: a track that some recipe takes is decoded and judged; one that none takes is left alone.
Up to 1 in 20 packets of a track may be damaged (the frame before is held, the audio is zero and marked not real; both
are counted), more is corrupt_payload. Frames missing at the end are truncated_media. A clock that runs back or a
frame that changes its size is refused: the times of such frames are unknown. A broadcast cut between key frames begins
at its first key frame. A medium shorter than its annotation by over a second and a tenth is truncated_media.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.errors import MediaError
from catalog.grid import SegmentGrid, sample_at
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.video import Outcome
from pipeline.clips import Clips
from pipeline.decode.audio import AudioReader, Mono, Resampler, SampleBuffer
from pipeline.decode.frames import Frame, FrameTable, Geometry, resize
from pipeline.decode.packet_source import PacketSource
from pipeline.decode.probe import MediaInfo, refuse_implausible
from pipeline.decode.video import DecordFailed, FrameReader, refuse_clock_jumps

# Windows are this long at most, however small their frames: a three-hour video then costs no more than a short one.
_MAX_WINDOW_S = Fraction(30)
_ANNOTATION_SLACK_S, _ANNOTATION_SLACK_SHARE = Fraction(1), Fraction(1, 10)


@dataclass(frozen=True, kw_only=True)
class DecodeReport:
    """Yielded once a medium is decoded to its end.

    Attributes:
        outcome: extracted; partial for no_video or no_audio.
        media: what the probe found, the decoder paths used and the damage counted; JSON values only.
    """

    outcome: Outcome
    media: dict[str, Any]


@dataclass(frozen=True)
class Restart:
    """Decoding begins again, by another decoder: discard the clips so far."""


@dataclass
class _Feed:
    """One recipe on its way through the medium."""

    recipe: Recipe
    grid: SegmentGrid
    video: VideoSampling | None
    audio: AudioSampling | None
    next_segment: int = 0
    planned: list[list[int]] = field(default_factory=list)  # frame numbers of the segments from next_segment on

    def plan(self, table: FrameTable) -> list[int]:
        """Frame numbers of the next unplanned segment."""
        assert self.video is not None
        numbers = table.of_segment(self.grid, self.next_segment + len(self.planned), self.video)
        self.planned.append(numbers)
        return numbers

    @property
    def num_unplanned(self) -> int:
        return self.grid.count - self.next_segment - len(self.planned)


def decode(
    path: str,
    info: MediaInfo,
    recipes: Sequence[Recipe],
    *,
    video_id: str,
    annotated_s: Fraction | None = None,
    window_bytes: int,
    heartbeat: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, Clips] | Restart | DecodeReport]:
    """Yields (recipe name, Clips) in time order for each recipe, a `DecodeReport` last; a `Restart` may come between.

    Args:
        path: what `info` was probed from.
        annotated_s: the duration that the data set states.
        window_bytes: about how much media one window of all recipes holds.
        heartbeat: called often while decoding, so that a watcher can distinguish slow from stuck.

    Raises:
        MediaError: the medium cannot be used; discard the clips yielded so far.
    """
    _refuse_truncated(info, annotated_s)
    how: dict[str, Any] = {"video_id": video_id, "window_bytes": window_bytes, "heartbeat": heartbeat}
    try:
        yield from _decode_once(path, info, recipes, **how)
    except DecordFailed as failure:
        again = failure.info
        yield Restart()
        yield from _decode_once(path, again, recipes, **how)


def _decode_once(
    path: str,
    info: MediaInfo,
    recipes: Sequence[Recipe],
    *,
    video_id: str,
    window_bytes: int,
    heartbeat: Callable[[], None],
) -> Iterator[tuple[str, Clips] | DecodeReport]:
    wants_video = any(recipe.video for recipe in recipes) and info.video is not None
    wants_audio = any(recipe.audio for recipe in recipes) and info.audio is not None
    with contextlib.ExitStack() as stack:
        source = None
        if wants_video and wants_audio and info.video and info.audio and info.video.not_decord:
            source = stack.enter_context(
                contextlib.closing(PacketSource(path, [info.video.index, info.audio.index], heartbeat))
            )
        held_frames = _HeldFrames(path, info, heartbeat, source) if wants_video else None
        if held_frames:
            stack.callback(held_frames.reader.close)
        held_audio = _HeldAudio(path, info, heartbeat, source, recipes) if wants_audio else None
        if held_audio:
            stack.callback(held_audio.reader.close)
        # After the decoders are open: where one dies of the file, that is the reason to record.
        refuse_implausible(info)
        refuse_clock_jumps(path, info, heartbeat)
        feeds = [
            _Feed(
                recipe=recipe,
                grid=recipe.grid.grid(info.duration_s),
                video=recipe.video if held_frames else None,
                audio=recipe.audio if held_audio else None,
            )
            for recipe in recipes
        ]
        if held_audio:
            held_audio.prepare(feeds)
        yield from _windows(feeds, held_frames, held_audio, video_id=video_id, window_bytes=window_bytes)
        if held_frames:
            held_frames.reader.finish()
        if held_audio:
            held_audio.reader.finish()
        yield _report(info, held_frames, held_audio)


def _refuse_truncated(info: MediaInfo, annotated_s: Fraction | None) -> None:
    """Raises MediaError where a medium is shorter than annotated, beyond the slack of annotations."""
    if annotated_s is None:
        return
    if annotated_s - info.duration_s > max(_ANNOTATION_SLACK_S, annotated_s * _ANNOTATION_SLACK_SHARE):
        raise MediaError(
            "truncated_media", f"lasts {float(info.duration_s):.2f} s, annotated as {float(annotated_s):.2f} s"
        )


def _windows(
    feeds: list[_Feed],
    held_frames: _HeldFrames | None,
    held_audio: _HeldAudio | None,
    *,
    video_id: str,
    window_bytes: int,
) -> Iterator[tuple[str, Clips]]:
    step_s = _window_s(feeds, window_bytes)
    number = 0
    while any(feed.next_segment < feed.grid.count for feed in feeds):
        starts_s = [feed.grid.start_s(feed.next_segment) for feed in feeds if feed.next_segment < feed.grid.count]
        number = max(number, math.floor(min(starts_s) / step_s)) + 1
        due = []
        for feed in feeds:
            stop = feed.next_segment
            while stop < feed.grid.count and feed.grid.start_s(stop) < number * step_s:
                stop += 1
            if stop > feed.next_segment:
                due.append((feed, stop))
        if held_frames:
            held_frames.advance(feeds, due)
        if held_audio:
            held_audio.advance(due)
        for feed, stop in due:
            yield feed.recipe.name, _clips(feed, stop, held_frames, held_audio, video_id)
        for feed, stop in due:
            del feed.planned[: stop - feed.next_segment]
            feed.next_segment = stop
        if held_frames:
            held_frames.forget(feeds)
        if held_audio:
            held_audio.forget(feeds)


def _window_s(feeds: list[_Feed], window_bytes: int) -> Fraction:
    """Seconds that a window covers: at least one segment, about `window_bytes` over all recipes, 30 s at most."""
    per_s = Fraction(0)
    for feed in feeds:
        if (video := feed.video) is not None:
            # Segments that overlap by whole steps between frames share those.
            step_s = feed.grid.window_s / video.frames_per_segment
            shares = video.clip_s is None and feed.grid.hop_s % step_s == 0
            per_s += video.segment_bytes / (max(feed.grid.hop_s, feed.grid.window_s) if shares else feed.grid.hop_s)
        if (audio := feed.audio) is not None:
            per_s += audio.rate_hz * 5  # float32 and its validity
    return min(_MAX_WINDOW_S, window_bytes / per_s) if per_s else _MAX_WINDOW_S


def _clips(
    feed: _Feed, stop: int, held_frames: _HeldFrames | None, held_audio: _HeldAudio | None, video_id: str
) -> Clips:
    recipe, first = feed.recipe, feed.next_segment
    count = stop - first
    if feed.video is not None and held_frames is not None:
        frames, index = held_frames.gather(feed.planned[:count], Geometry.of(feed.video))
    else:
        height, width, slots = (
            (recipe.video.height_px, recipe.video.width_px, recipe.video.slots) if recipe.video else (0, 0, 0)
        )
        frames = np.zeros((0, height, width, 3), np.float32 if recipe.video and recipe.video.is_float else np.uint8)
        index = np.full((count, slots), -1, np.int32)
    samples, valid, start = np.zeros(0, np.float32), np.zeros(0, bool), 0
    if feed.audio is not None and held_audio is not None:
        start, end = _sample_range(feed, first, stop)
        samples, valid = held_audio.buffers[_audio_key(feed.audio)].get(start, end)
    return Clips(
        video_id=video_id,
        grid=feed.grid,
        first=first,
        frames_FHWC=frames,
        frame_index_SP=index,
        samples_N=samples,
        sample_valid_N=valid,
        samples_start=start,
        rate_hz=recipe.audio.rate_hz if recipe.audio else 0,
    )


def _sample_range(feed: _Feed, first: int, stop: int) -> tuple[int, int]:
    """Samples of the segments `first .. stop - 1` with their context."""
    assert feed.audio is not None
    start_s = feed.grid.start_s(first) - feed.audio.context_s
    end_s = feed.grid.end_s(stop - 1) + feed.audio.context_s
    return sample_at(start_s, feed.audio.rate_hz), sample_at(end_s, feed.audio.rate_hz)


class _HeldFrames:
    """Resized frames that are still needed, by geometry and number."""

    def __init__(self, path: str, info: MediaInfo, heartbeat: Callable[[], None], source: PacketSource | None) -> None:
        assert info.video is not None
        self.table = FrameTable(pts_F=info.video.pts_F, time_base=info.video.time_base, t0_s=info.t0_s)
        self.reader = FrameReader(path, info, heartbeat, source)
        self._held: dict[Geometry, dict[int, Frame | None]] = {}
        self._wanted: dict[Geometry, set[int]] = {}
        self._last = -1  # the furthest frame that has been read

    def advance(self, feeds: list[_Feed], due: list[tuple[_Feed, int]]) -> None:
        """Reads on until the due segments have their frames.

        What later segments of any recipe need on the way is kept too: nothing is read twice.
        """
        furthest = self._last
        for feed, stop in due:
            if feed.video is not None:
                while feed.next_segment + len(feed.planned) < stop:
                    self._want(feed)
                furthest = max(furthest, max(feed.planned[stop - feed.next_segment - 1]))
        for feed in feeds:
            if feed.video is not None:
                while feed.num_unplanned and not (feed.planned and feed.planned[-1][0] > furthest):
                    self._want(feed)
        numbers = sorted({n for wanted in self._wanted.values() for n in wanted if n <= furthest})
        for number, frame in self.reader.read(numbers):
            for geometry, wanted in self._wanted.items():
                if number in wanted:
                    wanted.remove(number)
                    self._held[geometry][number] = None if frame is None else resize(frame, geometry)
        self._last = furthest

    def gather(self, planned: list[list[int]], geometry: Geometry) -> tuple[Frame, NDArray[np.int32]]:
        """(F, H, W, 3) distinct frames and (S, P) indices into them."""
        held = self._held[geometry]
        numbers = sorted({n for row in planned for n in row if n >= 0 and held[n] is not None})
        index_of = {number: position for position, number in enumerate(numbers)}
        there = [frame for number in numbers if (frame := held[number]) is not None]
        shape = there[0].shape if there else (geometry.height_px, geometry.width_px, 3)
        frames: Frame = np.empty((len(there), *shape), geometry.dtype)
        for position, frame in enumerate(there):
            frames[position] = frame
        index = np.array([[index_of.get(n, -1) for n in row] for row in planned], np.int32)
        return frames, index

    def forget(self, feeds: list[_Feed]) -> None:
        """Drops frames that lie before every segment to come."""
        for geometry, held in self._held.items():
            users = [feed for feed in feeds if feed.video and Geometry.of(feed.video) == geometry]
            users = [feed for feed in users if feed.next_segment < feed.grid.count]
            first = min((feed.planned[0][0] for feed in users if feed.planned), default=None)
            if not users:
                held.clear()
            elif first is not None and all(feed.planned for feed in users):
                for number in [n for n in held if n < first]:
                    del held[number]

    def _want(self, feed: _Feed) -> None:
        assert feed.video is not None
        geometry = Geometry.of(feed.video)
        held = self._held.setdefault(geometry, {})
        wanted = self._wanted.setdefault(geometry, set())
        wanted.update(n for n in feed.plan(self.table) if n >= 0 and n not in held)


# Recipes with an equal key share their samples: rate, resampler, kind of mono.
_AudioKey = tuple[int, str, Mono]


def _audio_key(audio: AudioSampling) -> _AudioKey:
    return audio.rate_hz, audio.resampler, audio.channels


class _HeldAudio:
    """Resampled audio that is still needed, by rate, resampler and kind of mono."""

    def __init__(
        self,
        path: str,
        info: MediaInfo,
        heartbeat: Callable[[], None],
        source: PacketSource | None,
        recipes: Sequence[Recipe],
    ) -> None:
        wanted = dict.fromkeys(recipe.audio.channels for recipe in recipes if recipe.audio is not None)
        self._monos: tuple[Mono, ...] = tuple(wanted)
        self.reader = AudioReader(path, info, heartbeat, source, monos=self._monos)
        self.buffers: dict[_AudioKey, SampleBuffer] = {}
        self._resamplers: dict[_AudioKey, Resampler] = {}
        self._chunks = self.reader.chunks()
        self._ended = False

    def advance(self, due: list[tuple[_Feed, int]]) -> None:
        """Reads on until the due segments have their samples, or the audio ends."""
        needed: dict[_AudioKey, int] = {}
        for feed, stop in due:
            if feed.audio is not None:
                key = _audio_key(feed.audio)
                needed[key] = max(needed.get(key, 0), _sample_range(feed, feed.next_segment, stop)[1])
        while not self._ended and any(self.buffers[key].end < end for key, end in needed.items()):
            chunk = next(self._chunks, None)
            for key, resampler in self._resamplers.items():
                self._ended = chunk is None
                made = (
                    resampler.finish()
                    if chunk is None
                    else resampler.push(chunk[0][self._monos.index(key[2])], chunk[1])
                )
                for samples, valid in made:
                    self.buffers[key].put(samples, valid)

    def prepare(self, feeds: list[_Feed]) -> None:
        """A resampler for each rate asked for; before anything is read."""
        for feed in feeds:
            if feed.audio is not None and (key := _audio_key(feed.audio)) not in self.buffers:
                self.buffers[key] = SampleBuffer()
                self._resamplers[key] = Resampler(from_hz=self.reader.rate_hz, to_hz=key[0], res_type=key[1])

    def forget(self, feeds: list[_Feed]) -> None:
        """Drops samples that lie before every segment to come."""
        for key, buffer in self.buffers.items():
            starts = [
                _sample_range(feed, feed.next_segment, feed.next_segment + 1)[0]
                for feed in feeds
                if feed.audio is not None and _audio_key(feed.audio) == key and feed.next_segment < feed.grid.count
            ]
            buffer.forget(min(starts, default=buffer.end))


def _report(info: MediaInfo, held_frames: _HeldFrames | None, held_audio: _HeldAudio | None) -> DecodeReport:
    media = info.to_json()
    if held_frames:
        reader = held_frames.reader
        media["video"] |= {
            "path": reader.path_used,
            "packet_errors": reader.packet_errors,
            "missing_frames": reader.missing_frames,
        }
    if held_audio:
        media["audio"] |= {"path": "pyav", "packet_errors": held_audio.reader.packet_errors}
    reason = "no_video" if info.video is None else "no_audio" if info.audio is None else ""
    return DecodeReport(outcome=Outcome(status="partial" if reason else "extracted", reason=reason), media=media)
