"""Frames of a video by number, read once from front to back.

Two readers give the same frames: decord where the probe finds nothing that it misplaces, else PyAV. Facts behind
this (133 odd files): read contiguously from 0, decord's frame i is the i-th shown frame; skipping is right only where
nothing is hidden; program streams, MPEG-TS, AVI with B frames, AV1 and files without duration are PyAV's. PyAV reads
those from the file itself: each frame brings its own pts, so none can be misplaced, and a change of size shows. (The
other way, a stream copy to Matroska for decord, costs a second file on disk.)

Each reader goes to the end of the video whatever the recipe needs, so that what is found damaged depends on the medium
alone. decord stops at the first damaged packet, but its thread reads ahead: how many frames it gives before that hangs
on the machine. So nothing of it is kept: PyAV decodes the whole video, conceals and counts. Where an edit list hides
the last packets, its thread may or may not meet damage among them: such files are PyAV's.

Shape suffixes: H W pixels, C = RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from catalog.errors import MediaError
from pipeline.decode.orientation import orientation_of
from pipeline.decode.packet_source import PacketSource
from pipeline.decode.packets import too_damaged
from pipeline.decode.probe import MediaInfo, VideoTrack

# Frames missing at the end for longer than this were promised and are not there.
_MAX_MISSING_TAIL_S = Fraction(1, 4)

Frame = NDArray[np.uint8]


class _NotAsProbed(RuntimeError):
    """decord gives other frames than the probe found."""


class DecordFailed(Exception):
    """decord stopped in mid-video: its frames so far are not to be kept, and `info` is for reading the video again."""

    def __init__(self, info: MediaInfo, error: BaseException) -> None:
        super().__init__(_why(error))
        assert info.video is not None
        self.info = replace(info, video=replace(info.video, not_decord=_why(error), sparse_safe=False))


class FrameReader:
    """The frames of one video, ascending.

    Attributes:
        path_used: "decord", "decord, skipping" or "pyav: <why not decord>".
        packet_errors: packets of shown frames that PyAV could not decode.
    """

    def __init__(
        self, path: str, info: MediaInfo, heartbeat: Callable[[], None], source: PacketSource | None = None
    ) -> None:
        """Opens the decoder.

        Args:
            path: as given to `probe`.
            heartbeat: called at least once a decoded frame.
            source: packets to share with the audio where the probe rules out decord.
        """
        assert info.video is not None
        self._info = info
        if not info.video.not_decord:
            try:
                self._reader: _DecordReader | _PyavReader = _DecordReader(path, info.video, heartbeat)
                self.path_used = self._reader.name
                return
            except _decord_errors() as error:
                why = _why(error)
        else:
            why = info.video.not_decord
        self._reader = _PyavReader(path, info.video, heartbeat, source)
        self.path_used = f"pyav: {why}"

    def read(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame | None]]:
        """Yields (number, frame (H, W, 3) uint8 RGB) for each of `wanted`, ascending and beyond all asked for before.

        None stands for a frame before the first that could be decoded; a damaged one repeats the one before.

        Raises:
            MediaError: resolution_change.
            DecordFailed: read the video again, by the error's `info`.
        """
        try:
            yield from self._reader.read(wanted)
        except _decord_errors() as error:
            raise DecordFailed(self._info, error) from error

    def finish(self) -> None:
        """Decodes the rest and holds the medium to what its packets promised.

        Raises:
            MediaError: video_undecodable, truncated_media, corrupt_payload, resolution_change.
            DecordFailed: as `read`.
        """
        try:
            self._reader.finish()
        except _decord_errors() as error:
            raise DecordFailed(self._info, error) from error

    @property
    def packet_errors(self) -> int:
        return self._reader.packet_errors

    @property
    def missing_frames(self) -> int:
        """Shown frames that were never decoded."""
        return self._reader.missing_frames

    def close(self) -> None:
        self._reader.close()


class _DecordReader:
    packet_errors = 0
    missing_frames = 0

    def __init__(self, path: str, track: VideoTrack, heartbeat: Callable[[], None]) -> None:
        import decord  # here: a child that decodes audio alone does not need it

        decord.logging.set_level(decord.logging.QUIET)
        # fault_tol: by default decord repeats the last frame where one is missing, and says nothing.
        self._reader = decord.VideoReader(path, num_threads=1, fault_tol=1e-9)
        if len(self._reader) < len(track.pts_F):
            raise _NotAsProbed(f"decord sees {len(self._reader)} frames of {len(track.pts_F)}")
        self._track, self._heartbeat = track, heartbeat
        self._position = 0
        self._keys = np.asarray(self._reader.get_key_indices(), np.int64)
        self.name = "decord, skipping" if track.sparse_safe else "decord"

    def read(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame | None]]:
        for number in wanted:
            if number < 0:
                yield number, None
                continue
            self._advance(number)
            frame = self._reader.next().asnumpy()
            self._position = number + 1
            self._heartbeat()
            # Where its padded lines are a whole number of pixels, it takes the padding for further channels.
            size = (self._track.height_px, self._track.width_px)
            if frame.shape not in ((*size, 3), (*size[::-1], 3)):
                raise _NotAsProbed(f"decord reads {frame.shape}, not {size[1]}x{size[0]} px of 3 channels")
            yield number, frame

    def finish(self) -> None:
        last = len(self._track.pts_F) - 1
        if self._position <= last:
            for _ in self.read([last]):
                pass

    def close(self) -> None:
        # The object is left in a caught error's frames otherwise, and holds the whole decoder.
        del self._reader

    def _advance(self, number: int) -> None:
        while self._position < number:
            step = self._skippable(number) if self._track.sparse_safe else 0
            if step:
                self._reader.skip_frames(step)
            else:
                self._reader.next()
            self._position += max(1, step)
            self._heartbeat()

    def _skippable(self, number: int) -> int:
        """Frames to skip towards `number` without meeting a key frame: decord seeks to those, past damage unseen."""
        following = int(np.searchsorted(self._keys, self._position, side="right"))
        before_key = int(self._keys[following]) - 1 if following < len(self._keys) else number
        return min(number, before_key, self._position + 100) - self._position


class _PyavReader:
    def __init__(
        self, path: str, track: VideoTrack, heartbeat: Callable[[], None], source: PacketSource | None = None
    ) -> None:
        self._track = track
        self._is_own = source is None
        self._source = source or PacketSource(path, [track.index], heartbeat)
        self.packet_errors = 0
        self._num_decoded = 0
        self._seen = np.zeros(len(track.pts_F), bool)
        self._size: tuple[int, int] | None = None
        self._shown: tuple[int, av.VideoFrame] | None = None  # number and frame of the latest that was decoded
        self._next: tuple[int, av.VideoFrame] | None = None  # one further on, not yet due
        self._av_frames = self._decode()
        # Kept: a frame's own to_ndarray builds a converter a frame (1 to 7 ms against 0.1 ms at 480x360).
        self._reformatter = VideoReformatter()

    def read(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame | None]]:
        converted: tuple[int, Frame] | None = None
        for number in wanted:
            self._show(number)
            if self._shown is None:
                yield number, None
                continue
            if converted is None or converted[0] != self._shown[0]:
                converted = self._shown[0], _to_rgb(self._shown[1], self._reformatter)
            yield number, converted[1]

    def finish(self) -> None:
        self._show(len(self._track.pts_F))
        self._show_rest()
        num_packets, detail = len(self._seen), f"{self.packet_errors} packets failed"
        if not self._num_decoded:
            raise MediaError("video_undecodable", f"no picture comes out of {num_packets} packets; {detail}")
        last = int(np.flatnonzero(self._seen)[-1]) if self._seen.any() else -1
        tail_s = int(self._track.pts_F[-1] - self._track.pts_F[last]) * self._track.time_base
        if last < 0 or tail_s > _MAX_MISSING_TAIL_S:
            raise MediaError(
                "truncated_media", f"the last {float(tail_s):.2f} s hold no picture: {last + 1} of {num_packets} frames"
            )
        if too_damaged(max(self.missing_frames, self.packet_errors), num_packets):
            raise MediaError(
                "corrupt_payload", f"{self.missing_frames} of {num_packets} frames have no picture; {detail}"
            )

    @property
    def missing_frames(self) -> int:
        return int(len(self._seen) - np.count_nonzero(self._seen))

    def close(self) -> None:
        self._av_frames.close()
        self._shown = self._next = None
        if self._is_own:
            self._source.close()

    def _show(self, number: int) -> None:
        """Goes on until the latest frame at or before frame `number` is `_shown`."""
        while True:
            if self._next is None:
                self._next = next(self._av_frames, None)
                if self._next is None:
                    return
            if self._next[0] > number:
                return
            self._shown, self._next = self._next, None

    def _show_rest(self) -> None:
        for _ in self._av_frames:
            pass

    def _decode(self) -> Generator[tuple[int, av.VideoFrame]]:
        """(frame number, frame) as decoded; a frame that no table entry names is counted, not shown."""
        for packet in self._source.packets(self._track.index):
            try:
                av_frames = packet.decode()
            except av.error.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                # Damage counts where it concerns what is shown: not in packets that an edit list hides.
                self.packet_errors += bool(packet.size) and not packet.is_discard
                continue
            for av_frame in av_frames:
                number = self._number(av_frame)
                self._num_decoded += 1
                size = (av_frame.height, av_frame.width)
                if self._size is None:
                    self._size = size
                if size != self._size:
                    (h, w), (new_h, new_w) = self._size, size
                    raise MediaError("resolution_change", f"from {w}x{h} to {new_w}x{new_h} px in mid-video")
                if number is not None:
                    self._seen[number] = True
                    yield number, av_frame

    def _number(self, av_frame: av.VideoFrame) -> int | None:
        pts = av_frame.dts if av_frame.pts is None else av_frame.pts
        if pts is None:
            return None
        number = int(np.searchsorted(self._track.pts_F, pts))
        if number < len(self._track.pts_F) and self._track.pts_F[number] == pts:
            return number
        return None


def _to_rgb(av_frame: av.VideoFrame, reformatter: VideoReformatter) -> Frame:
    """(H, W, 3) uint8 RGB, turned as the container says (decord turns its own).

    Bilinear as in decord's filter graph: on 8-bit video the two give the same bytes.
    """
    rgb = reformatter.reformat(av_frame, format="rgb24", interpolation="BILINEAR")
    return orientation_of(av_frame).apply(np.asarray(rgb.to_ndarray(), dtype=np.uint8))


def refuse_clock_jumps(path: str, info: MediaInfo, heartbeat: Callable[[], None]) -> None:
    """Raises MediaError where the clock of either track runs back: nobody can say when such frames are shown.

    resolution_change where the frame size changes as well (two recordings glued together), else
    timestamps_not_monotonic.
    """
    jumps = max((track.clock_jumps for track in (info.video, info.audio) if track is not None), default=0)
    if not jumps:
        return
    if info.video is not None:
        reader = _PyavReader(path, info.video, heartbeat)
        try:
            _drain(reader.read([len(info.video.pts_F) - 1]))
            reader._show_rest()
        finally:
            reader.close()
    raise MediaError("timestamps_not_monotonic", f"the decoding clock runs back {jumps} times")


def _drain(items: Iterable[object]) -> None:
    for _ in items:
        pass


def _decord_errors() -> tuple[type[BaseException], ...]:
    import decord

    # What decord raises for media: its own two, a bare RuntimeError or AssertionError on opening, StopIteration early.
    return decord.DECORDError, decord._ffi.base.DECORDLimitReachedError, AssertionError, StopIteration, RuntimeError


def _why(error: BaseException) -> str:
    """For the store: decord's own messages hold the time of day, and which of its checks speaks is a race."""
    return str(error) if isinstance(error, _NotAsProbed) else "decord fails"
