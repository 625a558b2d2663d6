"""One pass over a container's packets: when they are shown, which are hidden, damaged or out of order."""

from __future__ import annotations

from array import array
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from catalog.errors import MediaError
from pipeline.decode.container import Packet, demux

# A decoding clock that runs back by more than rounding belongs to two recordings glued together.
_CLOCK_BACK_S = Fraction(1, 50)
# More of a track than this damaged (and more than one packet): its features would describe concealment.
MAX_DAMAGED_SHARE = Fraction(1, 20)
# Packets to try before the first audio sample is taken from the packet's own time.
_PRIMING_PACKETS = 64


def read_packets(
    container: av.container.InputContainer, video_packets: VideoPackets | None, audio_packets: AudioPackets | None
) -> Fraction | None:
    """Feeds the tracks; returns when the last packet of any stream ends, in container seconds."""
    others = {stream.index: Packets(stream) for stream in container.streams if stream.time_base is not None}
    for chosen in (video_packets, audio_packets):
        if chosen is not None:
            others[chosen.stream.index] = chosen
    try:
        for packet in demux(container):
            if packet.size:  # the empty ones only flush decoders
                track = others.get(packet.stream_index)
                if track is not None:
                    if isinstance(track, VideoPackets) and track.is_vp8 and not memoryview(packet)[0] & 0x10:
                        # RFC 6386 section 9.1: the show_frame bit; an alternate reference frame is never shown.
                        track.num_invisible += 1
                        continue
                    track.add(packet)
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError) or not any(track.num_packets for track in others.values()):
            raise MediaError("corrupt_container", f"no packet can be read: {error.strerror}") from error
    ends_s = [track.end_ticks * track.time_base for track in others.values() if track.end_ticks is not None]
    return max(ends_s, default=None)


def too_damaged(num_damaged: int, num_packets: int) -> bool:
    """Whether so many of a track's packets are damaged that the track is refused."""
    return num_damaged > max(Fraction(1), num_packets * MAX_DAMAGED_SHARE)


class Packets:
    """What the demuxing pass gathers about one stream; flat arrays, so that a long video costs 8 bytes a frame."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.time_base = Fraction(stream.time_base)
        self.pts = array("q")
        self.num_packets = 0
        self.num_hidden = 0
        self.is_encrypted = False
        self.num_hidden_last = 0  # of these, how many come after the last shown packet
        self.num_corrupt = 0
        self.clock_jumps = 0
        self.end_ticks: int | None = None
        self.last_pts: int | None = None
        self.last_duration = 0
        self._dts: int | None = None

    def add(self, packet: Packet) -> None:
        self.num_packets += 1
        if self.num_packets == 1:
            self.is_encrypted = packet.has_sidedata("encryption_info")
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
            self.num_hidden_last += 1
            return
        self.num_hidden_last = 0
        self.shown(pts, duration)

    def shown(self, pts: int, duration: int) -> None:
        # Packet durations are decode-order differences where B frames are reordered: only the last frame's is used.
        if self.last_pts is None or pts >= self.last_pts:
            self.last_pts, self.last_duration = pts, duration


class VideoPackets(Packets):
    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.is_vp8 = stream.codec_context.name == "vp8"
        self.num_invisible = 0
        self.num_new_settings = 0
        self.starts_mid_gop = False
        self._first_key_pts: int | None = None
        self._seen_key = False

    def add(self, packet: Packet) -> None:
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
        pts_F = np.array(self.pts, dtype=np.int64)
        self.pts = array("q")
        pts_F.sort()
        if (pts_F[1:] == pts_F[:-1]).any():
            pts_F = np.unique(pts_F)
        if self.starts_mid_gop and self._first_key_pts is not None:
            # Cut broadcasts begin between key frames; no decoder can show what comes before the first.
            pts_F = pts_F[pts_F >= self._first_key_pts]
        return pts_F


class AudioPackets(Packets):
    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.start_ticks: int | None = None

    def add(self, packet: Packet) -> None:
        if self.start_ticks is None and self.num_packets < _PRIMING_PACKETS:
            try:
                for frame in packet.decode():
                    if frame.pts is not None and frame.samples:
                        self.start_ticks = frame.pts
                        break
            except av.error.FFmpegError:
                pass  # counted when the audio is decoded
        super().add(packet)
        if not packet.is_discard and packet.pts is not None and not self.pts:
            self.pts.append(packet.pts)
