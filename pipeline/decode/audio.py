"""Audio as mono samples on the medium's clock, at its native rate and at the encoders' rates, a few seconds at a time.

PyAV decodes; the mean of the channels is taken (an ITU downmix has another level), or the first of them, or both in one
pass; each frame lies where its pts says, holes are zeros marked not real. A broadcast's audio may change its channels
or its rate on the way: the clock goes on, and what comes at another rate is brought to the first. Resampling goes in
blocks at fixed times of the clock, so that a sample's value depends neither on what else is read nor on where reading
stops.

Shape suffixes: N samples, M kinds of mono.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from typing import Literal

import av
import numpy as np
import soxr
from numpy.typing import NDArray

from catalog.errors import MediaError
from pipeline.decode.packet_source import PacketSource
from pipeline.decode.packets import too_damaged
from pipeline.decode.probe import MediaInfo
from pipeline.decode.resample import resample

Samples = NDArray[np.float32]
Valid = NDArray[np.bool_]
# What becomes the one channel: the mean of all, or the first.
Mono = Literal["mean", "first"]

# A damaged AAC frame may claim 17 to 24 channels; more than these are believed of a track that states them alone.
_MAX_CHANNELS = 8
# FFmpeg keeps the planes of further channels elsewhere, and PyAV 18.1 reads past the first ones (SIGSEGV).
_MAX_PLANES = 8
# Frames this near to where the last one ended follow it directly. Exact clocks (MP4, MPEG-TS: finer than 1/8000 s)
# are taken at their word; millisecond clocks (Matroska, FLV) of live recordings jitter: half a frame is bridged.
_EXACT_TOLERANCE_S = Fraction(2, 1000)
_MAX_TOLERANCE_S = Fraction(10, 1000)
# Audio around each block that the resampler sees. Measured with white noise, 10 pairs of rates from 8 to 96 kHz: 20 ms
# already bring every soxr quality within 8e-7 of resampling the whole; ten times that costs 5 % at 4 s a block.
CONTEXT_S = Fraction(1, 5)
BLOCK_S = 4


class AudioReader:
    """Native-rate mono of one track, contiguous from t = 0, front to back.

    Attributes:
        rate_hz: of the samples: the first frame's.
        packet_errors: packets that failed, or whose frame was like neither the one before nor the one after.
        num_packets: packets read.
    """

    def __init__(
        self,
        path: str,
        info: MediaInfo,
        heartbeat: Callable[[], None],
        source: PacketSource | None = None,
        *,
        monos: tuple[Mono, ...] = ("mean",),
    ) -> None:
        """Decodes up to the first samples.

        Args:
            path: as given to `probe`.
            heartbeat: called at least once a packet.
            source: packets to share with the video.
            monos: the kinds wanted.

        Raises:
            MediaError: audio_undecodable.
        """
        assert info.audio is not None
        self._track, self._t0_s = info.audio, info.t0_s
        self._is_own = source is None
        self._monos = monos
        self._source = source or PacketSource(path, [info.audio.index], heartbeat)
        self.packet_errors = 0
        self.num_packets = 0
        self._max_channels = max(_MAX_CHANNELS, info.audio.channels)
        self._frames = self._decode()
        self._first = next(self._frames, None)
        if self._first is None:
            raise self._undecodable()
        self.rate_hz = self._first[0].sample_rate

    def chunks(self) -> Iterator[tuple[Samples, Valid]]:
        """Yields (samples (M, N) float32, real (N,) bool), each beginning where the one before ended, from t = 0.

        Raises:
            MediaError: audio_not_finite, corrupt_payload (a hole of years).
        """
        assert self._first is not None
        end = 0  # the sample at which the next chunk begins
        tolerance = self._tolerance(self._first[0].samples)
        for start, samples_MN in self._placed(tolerance):
            # A hole of years is damage, not silence.
            if start - end > 24 * 3600 * self.rate_hz:
                raise MediaError("corrupt_payload", f"the sound has a hole of {(start - end) / self.rate_hz:.0f} s")
            if not np.isfinite(samples_MN).all():
                bad = int(np.count_nonzero(~np.isfinite(samples_MN).all(axis=0)))
                raise MediaError(
                    "audio_not_finite", f"{bad} samples near {start / self.rate_hz:.2f} s are NaN or infinite"
                )
            if abs(start - end) > tolerance or end == 0:
                while start > end:
                    size = min(start - end, self.rate_hz)
                    yield np.zeros((len(self._monos), size), np.float32), np.zeros(size, bool)
                    end += size
                samples_MN = samples_MN[:, end - start :]  # what overlaps has been given already
            if size := samples_MN.shape[1]:
                yield samples_MN, np.ones(size, bool)
                end += size

    def _placed(self, tolerance: int) -> Iterator[tuple[int, Samples]]:
        """(first sample, samples (M, N)) at `rate_hz`, as decoded."""
        following = 0  # the sample at which the next frame is expected
        other: _OtherRate | None = None
        pending = self._first
        while pending is not None:
            frame, pts_s = pending
            start = following if pts_s is None else round((pts_s - self._t0_s) * self.rate_hz)
            samples_MN = _mono(frame, self._monos)
            if other is not None and (frame.sample_rate != other.from_hz or abs(start - following) > tolerance):
                yield from other.finish()
                other = None
            if frame.sample_rate == self.rate_hz:
                yield start, samples_MN
                following = start + samples_MN.shape[1]
            else:
                if other is None:
                    other = _OtherRate(frame.sample_rate, self.rate_hz, start, len(self._monos))
                yield from other.push(samples_MN)
                following = other.end
            pending = next(self._frames, None)
        if other is not None:
            yield from other.finish()

    def finish(self) -> None:
        """Judges the damage met so far.

        Raises:
            MediaError: corrupt_payload.
        """
        # Damage is judged against the whole track: reading may stop where the video ends.
        if too_damaged(self.packet_errors, self._track.num_packets):
            detail = f"{self.packet_errors} of {self._track.num_packets} sound packets failed"
            raise MediaError("corrupt_payload", detail)

    def close(self) -> None:
        self._frames.close()
        if self._is_own:
            self._source.close()

    def _decode(self) -> Generator[tuple[av.AudioFrame, Fraction | None]]:
        """Frames and their times; a frame unlike the one before waits until the next one is like it, or is damage."""
        like: tuple[int, str, int] | None = None
        waiting: tuple[tuple[int, str, int], av.AudioFrame] | None = None
        for packet in self._source.packets(self._track.index):
            self.num_packets += bool(packet.size)
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                self.packet_errors += bool(packet.size)
                continue
            for frame in frames:
                if not frame.samples:
                    continue
                shape = (frame.layout.nb_channels, frame.format.name, frame.sample_rate)
                if not 1 <= shape[0] <= self._max_channels or not 1000 <= shape[2] <= 768_000:
                    self.packet_errors += 1
                    continue
                if like is None or shape == like or (waiting is not None and shape == waiting[0]):
                    if waiting is not None and shape == waiting[0]:
                        yield _timed(waiting[1])
                    elif waiting is not None:
                        self.packet_errors += 1
                    like, waiting = shape, None
                    yield _timed(frame)
                else:
                    self.packet_errors += waiting is not None
                    waiting = shape, frame
        self.packet_errors += waiting is not None

    def _tolerance(self, frame_samples: int) -> int:
        if self._track.time_base < Fraction(1, 8000):
            return int(_EXACT_TOLERANCE_S * self.rate_hz)
        return min(frame_samples // 2, int(_MAX_TOLERANCE_S * self.rate_hz))

    def _undecodable(self) -> MediaError:
        return MediaError("audio_undecodable", f"no sound comes out of {self.num_packets} packets")


class _OtherRate:
    """A stretch of audio at another rate than the first, brought to that: its place on the clock is kept."""

    def __init__(self, from_hz: int, to_hz: int, start: int, channels: int) -> None:
        self.from_hz, self._to_hz, self._start = from_hz, to_hz, start
        self._stream = soxr.ResampleStream(from_hz, to_hz, channels, dtype="float32", quality="HQ")
        self._channels = channels
        self._taken = self._given = 0

    @property
    def end(self) -> int:
        """Where what was pushed ends, in samples at the first rate."""
        return self._start + round(Fraction(self._taken * self._to_hz, self.from_hz))

    def push(self, samples_MN: Samples) -> Iterator[tuple[int, Samples]]:
        """(first sample, samples) as far as they are certain."""
        self._taken += samples_MN.shape[1]
        yield from self._made(self._stream.resample_chunk(np.ascontiguousarray(samples_MN.T)))

    def finish(self) -> Iterator[tuple[int, Samples]]:
        """What is left."""
        end = np.zeros((0, self._channels), np.float32)
        yield from self._made(self._stream.resample_chunk(end, last=True))

    def _made(self, made_NM: Samples) -> Iterator[tuple[int, Samples]]:
        if len(made_NM):
            yield self._start + self._given, np.ascontiguousarray(made_NM.reshape(len(made_NM), -1).T)
            self._given += len(made_NM)


class Resampler:
    """`resample` of an endless signal: pushed in chunks, equal to resampling the whole (to 1e-6).

    Blocks are cut at common multiples of both rates, where both have a sample, counted from sample 0.
    """

    def __init__(self, *, from_hz: int, to_hz: int, res_type: str) -> None:
        self._from_hz, self._to_hz, self._res_type = from_hz, to_hz, res_type
        divisor = math.gcd(from_hz, to_hz)
        self._unit_in, self._unit_out = from_hz // divisor, to_hz // divisor
        units = max(1, BLOCK_S * from_hz // self._unit_in)
        self._block = units * self._unit_in
        self._context = math.ceil(CONTEXT_S * from_hz / self._unit_in) * self._unit_in
        self._samples: list[Samples] = []
        self._valid: list[Valid] = []
        self._start = 0  # of what is held, in input samples; a multiple of the unit
        self._end = 0
        self._position = 0  # where the next block begins

    def push(self, samples_N: Samples, valid_N: Valid) -> Iterator[tuple[Samples, Valid]]:
        """Yields (resampled, real) as blocks become complete; contiguous from output sample 0."""
        if self._from_hz == self._to_hz:
            yield samples_N, valid_N
            return
        self._samples.append(samples_N)
        self._valid.append(valid_N)
        self._end += len(samples_N)
        while self._end >= self._position + self._block + self._context:
            yield self._next(self._position + self._block, self._position + self._block + self._context)

    def finish(self) -> Iterator[tuple[Samples, Valid]]:
        """Yields what is left at the end of the audio."""
        while self._position < self._end:
            stop = min(self._position + self._block, self._end)
            yield self._next(stop, min(stop + self._context, self._end))

    def _next(self, stop: int, seen: int) -> tuple[Samples, Valid]:
        """The block from `_position` to `stop`, with the audio up to `seen` as context."""
        samples_N, valid_N = np.concatenate(self._samples), np.concatenate(self._valid)
        resampled = resample(samples_N[: seen - self._start], self._from_hz, self._to_hz, self._res_type)
        first = (self._position - self._start) // self._unit_in * self._unit_out
        if stop < self._end or stop % self._unit_in == 0:
            count = (stop - self._position) // self._unit_in * self._unit_out
        else:
            count = math.ceil(Fraction((stop - self._position) * self._to_hz, self._from_hz))
        out_N = resampled[first : first + count]
        if len(out_N) < count:
            out_N = np.concatenate([out_N, np.zeros(count - len(out_N), np.float32)])
        nearest = (np.arange(count, dtype=np.int64) * self._unit_in // self._unit_out) + self._position - self._start
        out_valid_N = valid_N[np.minimum(nearest, len(valid_N) - 1)]
        keep = max(0, stop - self._context) // self._unit_in * self._unit_in
        drop = keep - self._start
        if drop > 0:
            samples_N, valid_N = samples_N[drop:].copy(), valid_N[drop:].copy()
            self._start = keep
        self._samples, self._valid = [samples_N], [valid_N]
        self._position = stop
        return out_N, out_valid_N


class SampleBuffer:
    """Consecutive samples by number; zeros, not real, outside of what was put in."""

    def __init__(self) -> None:
        self._samples: list[Samples] = []
        self._valid: list[Valid] = []
        self._start = 0
        self.end = 0

    def put(self, samples_N: Samples, valid_N: Valid) -> None:
        self._samples.append(samples_N)
        self._valid.append(valid_N)
        self.end += len(samples_N)

    def get(self, start: int, stop: int) -> tuple[Samples, Valid]:
        """(samples, real) of `[start, stop)`; `start` may be negative."""
        out_N, valid_N = np.zeros(stop - start, np.float32), np.zeros(stop - start, bool)
        position = self._start
        for samples, valid in zip(self._samples, self._valid, strict=True):
            low, high = max(position, start), min(position + len(samples), stop)
            if low < high:
                out_N[low - start : high - start] = samples[low - position : high - position]
                valid_N[low - start : high - start] = valid[low - position : high - position]
            position += len(samples)
        return out_N, valid_N

    def forget(self, before: int) -> None:
        """Drops whole chunks that end at or before `before`."""
        while self._samples and self._start + len(self._samples[0]) <= before:
            self._start += len(self._samples.pop(0))
            self._valid.pop(0)


_SCALES = {"u8": 128.0, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}


def _timed(frame: av.AudioFrame) -> tuple[av.AudioFrame, Fraction | None]:
    return frame, None if frame.pts is None or frame.time_base is None else frame.pts * Fraction(frame.time_base)


def _mono(frame: av.AudioFrame, monos: tuple[Mono, ...]) -> Samples:
    """(M, N) float32: the mean of the channels or the first of them, integers scaled to [-1, 1)."""
    if frame.format.is_planar and frame.layout.nb_channels > _MAX_PLANES:
        packed = av.AudioResampler(format=frame.format.packed.name)
        (frame,) = packed.resample(frame)
    values = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        values = values.reshape(-1, channels).T
    name = frame.format.name.removesuffix("p")
    if name in _SCALES:
        values = values.astype(np.float64)
        values = (values - 128.0 if name == "u8" else values) / _SCALES[name]
    kinds = [values[0] if channels == 1 or mono == "first" else values.mean(axis=0) for mono in monos]
    return np.stack(kinds).astype(np.float32)
