"""What a medium holds and when: tracks, the table of shown frames, and one clock for video and audio.

Demuxing only, save for the first audio frame (how many priming samples a decoder drops is known only to it) and, where
decord might be used, the first video frame, which brings the display matrix.
t = 0 is the earlier of the first frame and the first audio sample; every time here is an exact rational.

Rules (facts measured on some 130 odd files):
- The frame table is the sorted pts of the packets that are not marked "discard": an edit list hides the others.
- The end is the last shown frame's pts and duration; container durations are estimates in MPEG-TS and program streams.
- PyAV attributes are copied while the container is open: reading them afterwards reads freed memory.

Runs in the sandbox's child, since opening a hostile file may end the process.
"""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from catalog.errors import MediaError
from pipeline.decode.container import demux, open_container
from pipeline.decode.orientation import orientation_of
from pipeline.decode.packets import AudioPackets, VideoPackets, read_packets
from pipeline.decode.stated_length import mp3_counts_frames, wav_bytes

# Containers whose header states how long the medium is; elsewhere FFmpeg guesses from bit rate or time stamps.
_STATES_LENGTH = ("mov", "matroska", "avi", "flv", "asf", "flac", "aiff", "au")
# Of these the stated duration is where the medium ends on its own clock, not how long it lasts.
_STATES_END = ("matroska", "asf")
# A container may promise this much more than its packets hold before it counts as cut off.
_SHORTFALL_S, _SHORTFALL_SHARE = Fraction(1, 4), Fraction(1, 50)
_MIN_SIDE_PX = 8
# 16K video has 133 million; decoders keep several frames, and more would meet the child's limit of memory.
MAX_PIXELS = 2**27
# Packets of both tracks (5 min at 25 frames a second and 48 kHz AAC) beyond which decord's index and a second
# container's would show in the memory: video and audio then share one container, which decord cannot.
_LONG_PACKETS = 20_000
# Packets to try before a first frame must have come.
_PACKETS_TO_A_FRAME = 64
# Longer than any recording: a fortnight.
LONGEST_S = Fraction(14 * 24 * 3600)
_MIN_BYTES_PER_S = 8
# So few of at least so many frames, so far away from the others, have a damaged stamp.
_MAX_STRAY, _STRAY_OF_FRAMES, _STRAY_S = 2, 20, Fraction(30)


@dataclass(frozen=True, kw_only=True)
class VideoTrack:
    """The video track that will be decoded.

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
    """The audio track that will be decoded: FFmpeg's best, so the one flagged "default".

    Attributes:
        index, codec, time_base: as in `VideoTrack`.
        rate_hz, channels, layout: as the container states them.
        start_ticks: of the first decoded sample, priming dropped.
        end_ticks: end of the last packet.
        num_packets: how many packets hold audio.
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
        duration_s: from t0 to the end of the last shown frame, or of the audio where there is no video.
        tracks: how many streams of each kind the container has.
        num_bytes: the file's size.
    """

    container: str
    video: VideoTrack | None
    audio: AudioTrack | None
    t0_s: Fraction
    duration_s: Fraction
    tracks: dict[str, int]
    num_bytes: int

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


def refuse_implausible(info: MediaInfo) -> None:
    """Raises MediaError corrupt_container where damaged time stamps make a medium longer than it can be.

    A fortnight at most; and over an hour, no less than 8 bytes a second (a still image with Opus audio has 500). One
    or two frames far away from all others, with no audio between, have a damaged stamp.

    Apart from `probe`, and called once the decoders are open: where a decoder dies of such a file, that is the
    reason to record.
    """
    too_thin = info.duration_s > 3600 and info.num_bytes < info.duration_s * _MIN_BYTES_PER_S
    if info.duration_s > LONGEST_S or too_thin:
        raise MediaError(
            "corrupt_container", f"{info.container}: {info.num_bytes} bytes last {float(info.duration_s):.0f} s"
        )
    _refuse_stray_frames(info)


def _refuse_stray_frames(info: MediaInfo) -> None:
    video, audio = info.video, info.audio
    if video is None or len(video.pts_F) < _STRAY_OF_FRAMES:
        return
    gaps = np.diff(video.pts_F)
    place = int(gaps.argmax())
    before, after = place + 1, len(video.pts_F) - place - 1
    gap_s = int(gaps[place]) * video.time_base
    rest_s = int(video.pts_F[-1] - video.pts_F[0]) * video.time_base - gap_s
    audio_s = Fraction(0) if audio is None else (audio.end_ticks - audio.start_ticks) * audio.time_base
    if min(before, after) <= _MAX_STRAY and gap_s > max(_STRAY_S, 10 * rest_s, 10 * audio_s):
        raise MediaError(
            "corrupt_container",
            f"{info.container}: {min(before, after)} of {len(video.pts_F)} frames are {float(gap_s):.0f} s away from "
            "the others: a damaged time stamp",
        )


def probe(path: str, *, max_pixels: int = MAX_PIXELS) -> MediaInfo:
    """Demuxes the whole file once.

    Args:
        path: a readable, non-empty file; absolute, so that FFmpeg does not take "a:b.mp4" for a protocol.
        max_pixels: of a frame.

    Raises:
        MediaError: not_media, container_truncated, corrupt_container, truncated_media, video_undecodable,
            audio_undecodable, video_too_small, decoder_memory.
    """
    with open_container(path) as container:
        for stream in container.streams.video:
            context = stream.codec_context
            if context is not None and context.width * context.height > max_pixels:
                detail = f"frames of {context.width}x{context.height} px; up to {max_pixels:,} px are decoded"
                raise MediaError("decoder_memory", detail)
        return _read(container, path)


def _read(container: av.container.InputContainer, path: str) -> MediaInfo:
    name = container.format.name
    kinds = [stream.type for stream in container.streams]
    if not kinds:
        raise MediaError("container_truncated", f"{name}: a header and no tracks in {os.path.getsize(path)} bytes")
    video_stream, num_tracks, has_cover = _pick_video(container)
    audio_stream = _pick_audio(container)
    if video_stream is None and audio_stream is None:
        raise MediaError("not_media", f"{name}: neither picture nor sound, only {', '.join(kinds)}")
    video_packets = None if video_stream is None else VideoPackets(video_stream)
    audio_packets = None if audio_stream is None else AudioPackets(audio_stream)
    last_end_s = read_packets(container, video_packets, audio_packets)

    _check_tracks(name, video_packets, audio_packets)
    _check_length(container, path, last_end_s)

    num_packets = sum(track.num_packets for track in (video_packets, audio_packets) if track is not None)
    other_reasons = {
        "decord needs a stated duration": not container.duration,
        "a cover picture beside the video": has_cover,
        "several video tracks: decord takes its own choice": num_tracks > 1,
        "long: decord cannot share the sound's container": num_packets > _LONG_PACKETS,
    }
    video = None if video_packets is None else _video_track(video_packets, name, other_reasons)
    if video is not None and not video.not_decord and _is_mirrored(container, video.index):
        video = replace(video, not_decord="decord does not mirror", sparse_safe=False)
    audio = None if audio_packets is None else _audio_track(audio_packets)
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
        num_bytes=os.path.getsize(path),
    )


def _pick_video(container: av.container.InputContainer) -> tuple[av.stream.Stream | None, int, bool]:
    """The video stream to decode (None without one), of how many, and whether there is a cover image beside them."""
    candidates, has_cover = [], False
    for stream in container.streams:
        if stream.type == "video":
            if stream.disposition & Disposition.attached_pic:
                has_cover = True
            else:
                candidates.append(stream)
    num_tracks = len(candidates)
    best = container.streams.best("video")
    if best is not None and any(best.index == stream.index for stream in candidates):
        candidates = [best]
    if not candidates:
        return None, 0, has_cover
    if candidates[0].codec_context is None:
        raise MediaError("video_undecodable", f"stream {candidates[0].index}: a codec that FFmpeg does not know")
    return candidates[0], num_tracks, has_cover


def _is_mirrored(container: av.container.InputContainer, index: int) -> bool:
    """Whether the first frame is shown mirrored; False where none can be decoded, which decoding then says."""
    try:
        container.seek(0)
        for packet in itertools.islice(demux(container, [container.streams[index]]), _PACKETS_TO_A_FRAME):
            for av_frame in packet.decode():
                return orientation_of(av_frame).mirrored
    except av.error.FFmpegError:
        pass
    return False


def _pick_audio(container: av.container.InputContainer) -> av.stream.Stream | None:
    stream = container.streams.best("audio")
    if stream is None:
        stream = next((stream for stream in container.streams if stream.type == "audio"), None)
    if stream is not None and stream.codec_context is None:
        raise MediaError("audio_undecodable", f"stream {stream.index}: a codec that FFmpeg does not know")
    return stream


def _check_tracks(name: str, video_packets: VideoPackets | None, audio_packets: AudioPackets | None) -> None:
    if video_packets is not None:
        context = video_packets.stream.codec_context
        if not video_packets.num_packets:
            raise MediaError("corrupt_container", f"{name}: the picture track's index leads to no packet")
        if context.width and min(context.width, context.height) < _MIN_SIDE_PX:
            raise MediaError("video_too_small", f"{context.width}x{context.height} px; needs {_MIN_SIDE_PX} a side")
    for kind, track in (("video", video_packets), ("audio", audio_packets)):
        if track is not None and track.is_encrypted:
            raise MediaError(
                f"{kind}_undecodable", f"{name}: the {kind} track is encrypted, which nothing here decrypts"
            )
    if audio_packets is not None and not audio_packets.num_packets:
        raise MediaError("corrupt_container", f"{name}: the sound track's index leads to no packet")
    if (
        video_packets is not None
        and name == "avi"
        and video_packets.end_ticks is not None
        and video_packets.stream.average_rate
    ):
        # FFmpeg estimates a cut AVI's duration from what is left; the header's count of frames stands.
        declared_s = video_packets.stream.frames / Fraction(video_packets.stream.average_rate)
        _refuse_shortfall(declared_s, video_packets.end_ticks * video_packets.time_base, "avi: the picture track")
    for kind, track in (("picture", video_packets), ("sound", audio_packets)):
        if track is None or not name.startswith("mov"):
            continue
        if track.num_corrupt:
            # The MP4 demuxer marks a packet so when the file ends within it.
            raise MediaError("truncated_media", f"{name}: the file ends within a {kind} packet")
        declared, duration = track.stream.frames, track.stream.duration
        if declared > track.num_packets and duration and track.end_ticks is not None:
            end_s = ((track.stream.start_time or 0) + duration) * track.time_base
            _refuse_shortfall(end_s, track.end_ticks * track.time_base, f"{name}: the {kind} track")


def _check_length(container: av.container.InputContainer, path: str, last_end_s: Fraction | None) -> None:
    name = container.format.name
    if last_end_s is None or not container.duration:
        return
    if name == "wav" and (stated := wav_bytes(path)) is not None and 0 < stated[1] < stated[0]:
        _refuse_shortfall(last_end_s * Fraction(*stated), last_end_s, name)
    if not (name.startswith(_STATES_LENGTH) or (name == "mp3" and mp3_counts_frames(path))):
        return
    start = max(0, container.start_time or 0)
    # Fragmented MP4 does so too; its header counts no frames.
    is_fragmented = name.startswith("mov") and not any(stream.frames for stream in container.streams)
    if name.startswith(_STATES_END) or is_fragmented:
        start = 0  # a piece of a recording begins late
    declared_s = Fraction(start + container.duration, av.time_base)
    _refuse_shortfall(declared_s, last_end_s, name)


def _refuse_shortfall(declared_s: Fraction, found_s: Fraction, what: str) -> None:
    # A damaged header may state centuries: that is no promise; `refuse_implausible` judges such files.
    if declared_s <= LONGEST_S and declared_s - found_s > max(_SHORTFALL_S, declared_s * _SHORTFALL_SHARE):
        raise MediaError(
            "truncated_media", f"{what} promises {float(declared_s):.3f} s and ends at {float(found_s):.3f} s"
        )


def _video_track(packets: VideoPackets, name: str, other_reasons: Mapping[str, bool]) -> VideoTrack:
    """The table and whether decord may be used; `other_reasons` against it are the container's."""
    context = packets.stream.codec_context
    pts_F = packets.table()
    if not len(pts_F):
        raise MediaError("corrupt_container", f"{name}: no packet of the picture track has a time stamp")
    duration = packets.last_duration
    if duration <= 0:
        duration = _usual_duration(packets, pts_F)
    num_shown = packets.num_packets - packets.num_hidden
    reasons = {
        "MPEG-TS loses its first pictures in decord": name == "mpegts",
        "decord misplaces program streams": name == "mpeg",
        "decord misplaces B frames in AVI": name == "avi",
        "decord's FFmpeg 4.1 has no AV1": context.name in ("av1", "libdav1d", "libaom-av1"),
        "packets that are never shown": packets.num_invisible > 0,
        "the codec's settings change": packets.num_new_settings > 0,
        "begins between key frames": packets.starts_mid_gop,
        "frames share time stamps": len(pts_F) != num_shown,
        "an edit list hides the last packets": packets.num_hidden_last > 0,
        **other_reasons,
    }
    not_decord = "; ".join(reason for reason, applies in reasons.items() if applies)
    has_sample_table = packets.stream.frames == packets.num_packets
    return VideoTrack(
        index=packets.stream.index,
        codec=context.name,
        pixel_format=context.pix_fmt or "",
        width_px=context.width,
        height_px=context.height,
        time_base=packets.time_base,
        pts_F=pts_F,
        end_ticks=int(pts_F[-1]) + duration,
        num_hidden=packets.num_hidden,
        not_decord=not_decord,
        sparse_safe=not not_decord and not packets.num_hidden and (has_sample_table or name.startswith("matroska")),
        clock_jumps=packets.clock_jumps,
    )


def _usual_duration(packets: VideoPackets, pts_F: NDArray[np.int64]) -> int:
    """Ticks that a frame usually lasts, for containers that do not say."""
    if len(pts_F) > 1:
        return int(statistics.median_low(np.diff(pts_F[-1000:]).tolist()))
    rate = packets.stream.average_rate or packets.stream.guessed_rate or Fraction(25)
    return max(1, round(1 / (Fraction(rate) * packets.time_base)))


def _audio_track(packets: AudioPackets) -> AudioTrack:
    context = packets.stream.codec_context
    start_ticks = packets.start_ticks if packets.start_ticks is not None else packets.pts[0] if packets.pts else 0
    last_pts = start_ticks if packets.last_pts is None else packets.last_pts
    duration = packets.last_duration
    if duration <= 0 and context.frame_size and context.sample_rate:
        duration = round(Fraction(context.frame_size, context.sample_rate) / packets.time_base)
    return AudioTrack(
        index=packets.stream.index,
        codec=context.name,
        rate_hz=context.sample_rate or 0,
        channels=context.channels or 0,
        layout=context.layout.name if context.channels else "",
        time_base=packets.time_base,
        start_ticks=start_ticks,
        end_ticks=last_pts + duration,
        num_packets=packets.num_packets,
        clock_jumps=packets.clock_jumps,
    )
