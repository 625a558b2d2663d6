"""What a medium holds and when: tracks, the table of shown frames, and one clock for picture and sound.

Demuxing only, save for the first sound frame: how many priming samples a decoder drops is known only to it.
t = 0 is the earlier of the first picture and the first sound; every time here is an exact rational.

Rules (facts measured on some 130 odd files):
- The frame table is the sorted pts of the packets that are not marked "discard": an edit list hides the others.
- The end is the last shown frame's pts and duration; container durations are estimates in MPEG-TS and program streams.
- PyAV attributes are copied while the container is open: reading them afterwards reads freed memory.

Runs in the sandbox's child, since opening a hostile file may end the process.
"""

from __future__ import annotations

import os
import statistics
from array import array
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from catalog.errors import MediaError

# The demuxers that may open a file. Others (HLS, DASH, concat, image sequences) fetch further files or URLs that
# a hostile "video" names. FFmpeg checks the first of a demuxer's names against this list.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,matroska,webm,avi,flv,mpegts,mpeg,asf,ogg,wav,w64,flac,mp3,aac,aiff,au,caf"
)
# Containers whose header states how long the medium is; elsewhere FFmpeg guesses from bit rate or time stamps.
_STATES_LENGTH = ("mov", "matroska", "avi", "flv", "asf")
# A container may promise this much more than its packets hold before it counts as cut off.
_SHORTFALL_S, _SHORTFALL_SHARE = Fraction(1, 4), Fraction(1, 50)
# A decoding clock that runs back by more than rounding belongs to two recordings glued together.
_CLOCK_BACK_S = Fraction(1, 50)
_MIN_SIDE_PX = 8
# Longer than any recording: a fortnight.
LONGEST_S = Fraction(14 * 24 * 3600)
# Packets to try before the first sound sample is taken from the packet's own time.
_PRIMING_PACKETS = 64


@dataclass(frozen=True, kw_only=True)
class VideoTrack:
    """The picture track that will be decoded.

    Attributes:
        index: of the stream in the container.
        codec, pixel_format: FFmpeg's names; pixel_format is "" where unknown.
        width_px, height_px: as coded, before rotation.
        time_base: seconds a tick.
        pts_F: int64 ticks, ascending and distinct: when frame i is shown.
        end_ticks: when the last frame ends.
        num_hidden: packets that an edit list hides.
        not_decord: why decord must not be used ("" where it may).
        sparse_safe: decord may skip frames: nothing hidden, a sample table that agrees with the packets.
        clock_jumps: how often the decoding clock ran back.
    """

    index: int
    codec: str
    pixel_format: str
    width_px: int
    height_px: int
    time_base: Fraction
    pts_F: NDArray[np.int64]
    end_ticks: int
    num_hidden: int
    not_decord: str
    sparse_safe: bool
    clock_jumps: int


@dataclass(frozen=True, kw_only=True)
class AudioTrack:
    """The sound track that will be decoded: FFmpeg's best, so the one flagged "default".

    Attributes:
        index, codec, time_base: as in `VideoTrack`.
        rate_hz, channels, layout: as the container states them.
        start_ticks: of the first decoded sample, priming dropped.
        end_ticks: end of the last packet.
        num_packets: how many packets hold sound.
        clock_jumps: as in `VideoTrack`.
    """

    index: int
    codec: str
    rate_hz: int
    channels: int
    layout: str
    time_base: Fraction
    start_ticks: int
    end_ticks: int
    num_packets: int
    clock_jumps: int


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """What `probe` found.

    Attributes:
        container: FFmpeg's demuxer name.
        t0_s: where the clock begins, in the container's own time.
        duration_s: from t0 to the end of the last shown frame, or of the sound where there is no picture.
        tracks: how many streams of each kind the container has.
    """

    container: str
    video: VideoTrack | None
    audio: AudioTrack | None
    t0_s: Fraction
    duration_s: Fraction
    tracks: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain facts for the store and for people; exact times as "n/d"."""
        facts: dict[str, Any] = {
            "container": self.container,
            "t0_s": str(self.t0_s),
            "duration_s": str(self.duration_s),
            "tracks": self.tracks,
        }
        if (video := self.video) is not None:
            start_s, end_s = (ticks * video.time_base for ticks in (int(video.pts_F[0]), video.end_ticks))
            facts["video"] = {
                "stream": video.index,
                "codec": video.codec,
                "pixel_format": video.pixel_format,
                "width_px": video.width_px,
                "height_px": video.height_px,
                "frames": len(video.pts_F),
                "hidden_frames": video.num_hidden,
                "start_s": str(start_s - self.t0_s),
                "end_s": str(end_s - self.t0_s),
            }
        if (audio := self.audio) is not None:
            facts["audio"] = {
                "stream": audio.index,
                "codec": audio.codec,
                "rate_hz": audio.rate_hz,
                "channels": audio.channels,
                "layout": audio.layout,
                "packets": audio.num_packets,
                "start_s": str(audio.start_ticks * audio.time_base - self.t0_s),
                "end_s": str(audio.end_ticks * audio.time_base - self.t0_s),
            }
        return facts


def open_container(path: str) -> av.container.InputContainer:
    """`path` opened by PyAV: local files only, and only demuxers that read nothing but that file."""
    return av.open(path, options={"protocol_whitelist": "file", "format_whitelist": FORMATS}, metadata_errors="replace")


def refuse_implausible(info: MediaInfo) -> None:
    """Raises MediaError corrupt_container where damaged time stamps make a medium longer than a fortnight.

    Apart from `probe`, and called once the decoders are open: where a decoder dies of such a file, that is the
    reason to record.
    """
    if info.duration_s > LONGEST_S:
        raise MediaError("corrupt_container", f"{info.container}: lasts {float(info.duration_s):.0f} s")


def probe(path: str) -> MediaInfo:
    """Demuxes the whole file once.

    Args:
        path: a readable, non-empty file; absolute, so that FFmpeg does not take "a:b.mp4" for a protocol.

    Raises:
        MediaError: not_media, container_truncated, corrupt_container, truncated_media, video_undecodable,
            audio_undecodable, video_too_small.
    """
    try:
        container = open_container(path)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        raise _unopenable(path, error) from error
    with container:
        return _read(container, path)


class _Track:
    """What the demuxing pass gathers about one stream; flat arrays, so that a long video costs 8 bytes a frame."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.time_base = Fraction(stream.time_base)
        self.pts = array("q")
        self.num_packets = 0
        self.num_hidden = 0
        self.num_corrupt = 0
        self.clock_jumps = 0
        self.end_ticks: int | None = None
        self.last_pts: int | None = None
        self.last_duration = 0
        self._dts: int | None = None

    def add(self, packet: Any) -> None:
        self.num_packets += 1
        self.num_corrupt += packet.is_corrupt
        dts = packet.dts
        if dts is not None:
            if self._dts is not None and (self._dts - dts) * self.time_base > _CLOCK_BACK_S:
                self.clock_jumps += 1
            self._dts = dts
        pts = dts if packet.pts is None else packet.pts
        if pts is None:
            return
        duration = packet.duration or 0
        self.end_ticks = pts + duration if self.end_ticks is None else max(self.end_ticks, pts + duration)
        if packet.is_discard:
            self.num_hidden += 1
            return
        self.shown(pts, duration)

    def shown(self, pts: int, duration: int) -> None:
        # Packet durations are decode-order differences where B frames are reordered: only the last frame's is used.
        if self.last_pts is None or pts >= self.last_pts:
            self.last_pts, self.last_duration = pts, duration


class _PictureTrack(_Track):
    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.is_vp8 = stream.codec_context.name == "vp8"
        self.num_invisible = 0
        self.num_new_settings = 0
        self.starts_mid_gop = False
        self._first_key_pts: int | None = None
        self._seen_key = False

    def add(self, packet: Any) -> None:
        if packet.is_keyframe and not self._seen_key:
            self._seen_key = True
            self.starts_mid_gop = self.num_packets > 0
            self._first_key_pts = packet.pts
        if self.num_packets and packet.has_sidedata("new_extradata"):
            self.num_new_settings += 1
        super().add(packet)

    def shown(self, pts: int, duration: int) -> None:
        super().shown(pts, duration)
        self.pts.append(pts)

    def table(self) -> NDArray[np.int64]:
        """(F,) int64, the ticks at which frames are shown."""
        pts_F = np.unique(np.frombuffer(self.pts, dtype=np.int64)) if self.pts else np.zeros(0, np.int64)
        if self.starts_mid_gop and self._first_key_pts is not None:
            # Cut broadcasts begin between key frames; no decoder can show what comes before the first.
            pts_F = pts_F[pts_F >= self._first_key_pts]
        return pts_F


class _SoundTrack(_Track):
    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.start_ticks: int | None = None

    def add(self, packet: Any) -> None:
        if self.start_ticks is None and self.num_packets < _PRIMING_PACKETS:
            try:
                for frame in packet.decode():
                    if frame.pts is not None and frame.samples:
                        self.start_ticks = frame.pts
                        break
            except av.error.FFmpegError:
                pass  # counted when the sound is decoded
        super().add(packet)
        if not packet.is_discard and packet.pts is not None and not self.pts:
            self.pts.append(packet.pts)


def _read(container: Any, path: str) -> MediaInfo:
    name = container.format.name
    kinds = [stream.type for stream in container.streams]
    if not kinds:
        raise MediaError("container_truncated", f"{name}: a header and no tracks in {os.path.getsize(path)} bytes")
    picture_stream, has_cover = _pick_video(container)
    sound_stream = _pick_audio(container)
    if picture_stream is None and sound_stream is None:
        raise MediaError("not_media", f"{name}: neither picture nor sound, only {', '.join(kinds)}")
    picture = None if picture_stream is None else _PictureTrack(picture_stream)
    sound = None if sound_stream is None else _SoundTrack(sound_stream)
    last_end_s = _demux(container, picture, sound)

    _check_tracks(name, picture, sound)
    _check_length(container, name, last_end_s)

    video = None if picture is None else _video_track(picture, name, container, has_cover)
    audio = None if sound is None else _audio_track(sound)
    starts_s = [int(video.pts_F[0]) * video.time_base] if video else []
    starts_s += [audio.start_ticks * audio.time_base] if audio else []
    t0_s = min(starts_s)
    end_s = video.end_ticks * video.time_base if video else audio.end_ticks * audio.time_base if audio else t0_s
    if end_s <= t0_s:
        raise MediaError("corrupt_container", f"{name}: ends at {float(end_s)} s, before it starts")
    return MediaInfo(
        container=name,
        video=video,
        audio=audio,
        t0_s=t0_s,
        duration_s=end_s - t0_s,
        tracks={kind: kinds.count(kind) for kind in sorted(set(kinds))},
    )


def _pick_video(container: Any) -> tuple[Any, bool]:
    """The picture stream to decode (None without one) and whether there is a cover picture beside it."""
    candidates, has_cover = [], False
    for stream in container.streams:
        if stream.type == "video":
            if stream.disposition & Disposition.attached_pic:
                has_cover = True
            else:
                candidates.append(stream)
    best = container.streams.best("video")
    if best is not None and any(best.index == stream.index for stream in candidates):
        candidates = [best]
    if not candidates:
        return None, has_cover
    if candidates[0].codec_context is None:
        raise MediaError("video_undecodable", f"stream {candidates[0].index}: a codec that FFmpeg does not know")
    return candidates[0], has_cover


def _pick_audio(container: Any) -> Any:
    stream = container.streams.best("audio")
    if stream is None:
        stream = next((stream for stream in container.streams if stream.type == "audio"), None)
    if stream is not None and stream.codec_context is None:
        raise MediaError("audio_undecodable", f"stream {stream.index}: a codec that FFmpeg does not know")
    return stream


def _demux(container: Any, picture: _PictureTrack | None, sound: _SoundTrack | None) -> Fraction | None:
    """Feeds the tracks; returns when the last packet of any stream ends, in container seconds."""
    others = {stream.index: _Track(stream) for stream in container.streams if stream.time_base is not None}
    for track in (picture, sound):
        if track is not None:
            others[track.stream.index] = track
    try:
        for packet in container.demux():
            if packet.size:  # the empty ones only flush decoders
                track = others.get(packet.stream_index)
                if track is not None:
                    if track is picture and picture.is_vp8 and not memoryview(packet)[0] & 0x10:
                        # RFC 6386 section 9.1: the show_frame bit; an alternate reference frame is never shown.
                        picture.num_invisible += 1
                        continue
                    track.add(packet)
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError) or not any(track.num_packets for track in others.values()):
            raise MediaError("corrupt_container", f"no packet can be read: {error.strerror}") from error
    ends_s = [track.end_ticks * track.time_base for track in others.values() if track.end_ticks is not None]
    return max(ends_s, default=None)


def _check_tracks(name: str, picture: _PictureTrack | None, sound: _SoundTrack | None) -> None:
    if picture is not None:
        context = picture.stream.codec_context
        if not picture.num_packets:
            raise MediaError("corrupt_container", f"{name}: the picture track's index leads to no packet")
        if context.width and min(context.width, context.height) < _MIN_SIDE_PX:
            raise MediaError("video_too_small", f"{context.width}x{context.height} px; needs {_MIN_SIDE_PX} a side")
    if sound is not None and not sound.num_packets:
        raise MediaError("corrupt_container", f"{name}: the sound track's index leads to no packet")
    for kind, track in (("picture", picture), ("sound", sound)):
        if track is None or not name.startswith("mov"):
            continue
        if track.num_corrupt:
            # The MP4 demuxer marks a packet so when the file ends within it.
            raise MediaError("truncated_media", f"{name}: the file ends within a {kind} packet")
        declared, duration = track.stream.frames, track.stream.duration
        if declared > track.num_packets and duration and track.end_ticks is not None:
            end_s = ((track.stream.start_time or 0) + duration) * track.time_base
            _refuse_shortfall(end_s, track.end_ticks * track.time_base, f"{name}: the {kind} track")


def _check_length(container: Any, name: str, last_end_s: Fraction | None) -> None:
    if last_end_s is None or not container.duration or not name.startswith(_STATES_LENGTH):
        return
    declared_s = Fraction((container.start_time or 0) + container.duration, av.time_base)
    _refuse_shortfall(declared_s, last_end_s, name)


def _refuse_shortfall(declared_s: Fraction, found_s: Fraction, what: str) -> None:
    # A damaged header may state centuries: that is no promise; `refuse_implausible` judges such files.
    if declared_s <= LONGEST_S and declared_s - found_s > max(_SHORTFALL_S, declared_s * _SHORTFALL_SHARE):
        raise MediaError(
            "truncated_media", f"{what} promises {float(declared_s):.3f} s and ends at {float(found_s):.3f} s"
        )


def _video_track(picture: _PictureTrack, name: str, container: Any, has_cover: bool) -> VideoTrack:
    context = picture.stream.codec_context
    pts_F = picture.table()
    if not len(pts_F):
        raise MediaError("corrupt_container", f"{name}: no packet of the picture track has a time stamp")
    duration = picture.last_duration
    if duration <= 0:
        duration = _usual_duration(picture, pts_F)
    num_shown = picture.num_packets - picture.num_hidden
    reasons = {
        "MPEG-TS loses its first pictures in decord": name == "mpegts",
        "decord misplaces program streams": name == "mpeg",
        "decord misplaces B frames in AVI": name == "avi",
        "decord needs a stated duration": not container.duration,
        "decord's FFmpeg 4.1 has no AV1": context.name in ("av1", "libdav1d", "libaom-av1"),
        "a cover picture beside the video": has_cover,
        "packets that are never shown": picture.num_invisible > 0,
        "the codec's settings change": picture.num_new_settings > 0,
        "begins between key frames": picture.starts_mid_gop,
        "frames share time stamps": len(pts_F) != num_shown,
    }
    not_decord = "; ".join(reason for reason, applies in reasons.items() if applies)
    has_sample_table = picture.stream.frames == picture.num_packets
    return VideoTrack(
        index=picture.stream.index,
        codec=context.name,
        pixel_format=context.pix_fmt or "",
        width_px=context.width,
        height_px=context.height,
        time_base=picture.time_base,
        pts_F=pts_F,
        end_ticks=int(pts_F[-1]) + duration,
        num_hidden=picture.num_hidden,
        not_decord=not_decord,
        sparse_safe=not not_decord and not picture.num_hidden and (has_sample_table or name.startswith("matroska")),
        clock_jumps=picture.clock_jumps,
    )


def _usual_duration(picture: _PictureTrack, pts_F: NDArray[np.int64]) -> int:
    """Ticks that a frame usually lasts, for containers that do not say."""
    if len(pts_F) > 1:
        return round(statistics.median(np.diff(pts_F[-1000:]).tolist()))
    rate = picture.stream.average_rate or picture.stream.guessed_rate or Fraction(25)
    return max(1, round(1 / (Fraction(rate) * picture.time_base)))


def _audio_track(sound: _SoundTrack) -> AudioTrack:
    context = sound.stream.codec_context
    start_ticks = sound.start_ticks if sound.start_ticks is not None else sound.pts[0] if sound.pts else 0
    last_pts = start_ticks if sound.last_pts is None else sound.last_pts
    duration = sound.last_duration
    if duration <= 0 and context.frame_size and context.sample_rate:
        duration = round(Fraction(context.frame_size, context.sample_rate) / sound.time_base)
    return AudioTrack(
        index=sound.stream.index,
        codec=context.name,
        rate_hz=context.sample_rate or 0,
        channels=context.channels or 0,
        layout=context.layout.name if context.channels else "",
        time_base=sound.time_base,
        start_ticks=start_ticks,
        end_ticks=last_pts + duration,
        num_packets=sound.num_packets,
        clock_jumps=sound.clock_jumps,
    )


# The first bytes of the containers above (offset, bytes): an unopenable file with one of these was media once.
_SIGNATURES = (
    (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"wide"), (4, b"free"), (4, b"skip"),
    (0, b"\x1a\x45\xdf\xa3"), (0, b"RIFF"), (0, b"FLV"), (0, b"\x00\x00\x01\xba"), (0, b"\x00\x00\x01\xb3"),
    (0, b"OggS"), (0, b"fLaC"), (0, b"ID3"), (0, b"FORM"), (0, b".snd"), (0, b"caff"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
)  # fmt: skip


def _unopenable(path: str, error: BaseException) -> MediaError:
    """Why FFmpeg could not open the file, from its first bytes and, in MP4, its boxes."""
    with open(path, "rb") as file:
        head = file.read(16)
        known = [offset for offset, magic in _SIGNATURES if head[offset : offset + len(magic)] == magic]
        text = str(getattr(error, "strerror", None) or error)
        if not known:
            return MediaError("not_media", f"no demuxer knows it: {text}; begins with {head!r}")
        if known[0] == 4 and b"moov" not in _boxes(file):
            return MediaError("container_truncated", "MP4 without its index (moov): an incomplete download")
    return MediaError("corrupt_container", f"the container cannot be opened: {text}")


def _boxes(file: Any) -> set[bytes]:
    """Types of an MP4's top-level boxes, as far as they can be followed."""
    size, position, found = os.fstat(file.fileno()).st_size, 0, set()
    while position + 8 <= size and len(found) < 1000:
        file.seek(position)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or position + length > size:
            break
        found.add(head[4:8])
        position += length
    return found
