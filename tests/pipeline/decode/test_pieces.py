"""Pieces of a recording, cut by FFmpeg's own muxers: each begins late on its clock and is whole."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest

from catalog.errors import MediaError
from pipeline.decode.probe import probe

SECONDS, FPS, RATE_HZ, PIECE_S = 12, 10, 48_000, 4
# Name: codecs of video and audio, and the suffix of a piece.
FORMATS = {
    "matroska": ("libx264", "aac", "mkv"),
    "webm": ("libvpx", "libopus", "webm"),
    "asf": ("libx264", "aac", "asf"),
    "flv": ("libx264", "aac", "flv"),
    "mpegts": ("libx264", "aac", "ts"),
    "mp4": ("libx264", "aac", "mp4"),
}


def recording(path: Path, video_codec: str, audio_codec: str) -> Path:
    """A key frame a second, so that pieces of whole seconds can be cut."""
    with av.open(str(path), "w") as container:
        video = cast(av.VideoStream, container.add_stream(video_codec, rate=FPS, options={"threads": "1"}))
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.gop_size = FPS
        video.codec_context.max_b_frames = 0
        audio = cast(av.AudioStream, container.add_stream(audio_codec, rate=RATE_HZ))
        audio.layout = "mono"
        format_ = "flt" if audio_codec == "libopus" else "fltp"
        for number in range(SECONDS * FPS):
            picture = np.full((48, 64, 3), number * 2, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            samples = np.zeros((1, RATE_HZ // FPS), np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format=format_, layout="mono")
            frame.sample_rate, frame.pts = RATE_HZ, number * samples.shape[1]
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def cut(source: Path, out: str, muxer: str, options: dict[str, str]) -> None:
    """Copies the recording's packets into a muxer that cuts them into files."""
    with av.open(str(source)) as given, av.open(out, "w", format=muxer, options=options) as made:
        copies = {stream.index: made.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                made.mux(packet)


def frames_of(pieces: list[Path]) -> int:
    """Frames in all pieces, each of which lasts about as long as it should."""
    count = 0
    for path in pieces:
        info = probe(str(path))
        assert info.video is not None
        assert info.audio is not None
        assert abs(info.duration_s - PIECE_S) < Fraction(1, 4), (path.name, info.duration_s)
        count += len(info.video.pts_F)
    return count


@pytest.mark.parametrize("name", FORMATS)
def test_every_piece_of_a_segmented_recording_is_whole(tmp_path: Path, name: str) -> None:
    video_codec, audio_codec, suffix = FORMATS[name]
    source = recording(tmp_path / f"whole.{'webm' if name == 'webm' else 'mkv'}", video_codec, audio_codec)
    options = {"segment_time": str(PIECE_S), "segment_format": name}
    cut(source, str(tmp_path / f"piece%d.{suffix}"), "segment", options)
    pieces = sorted(tmp_path.glob("piece*"))
    assert len(pieces) == SECONDS // PIECE_S
    assert frames_of(pieces) == SECONDS * FPS
    if name in ("matroska", "webm", "flv"):  # of a cut ASF FFmpeg gives no duration at all
        for piece in pieces:
            half = tmp_path / f"half.{suffix}"
            half.write_bytes(piece.read_bytes()[: piece.stat().st_size * 55 // 100])
            with pytest.raises(MediaError, match="promises") as told:
                probe(str(half))
            assert told.value.reason == "truncated_media"


def test_every_fragment_of_a_stream_with_its_beginning_is_whole(tmp_path: Path) -> None:
    source = recording(tmp_path / "whole.mkv", "libx264", "aac")
    options = {"hls_time": str(PIECE_S), "hls_segment_type": "fmp4", "hls_playlist_type": "vod"}
    cut(source, str(tmp_path / "list.m3u8"), "hls", options)
    begin = (tmp_path / "init.mp4").read_bytes()
    fragments = sorted(tmp_path.glob("*.m4s"))
    assert len(fragments) == SECONDS // PIECE_S
    pieces = [tmp_path / f"piece{number}.mp4" for number in range(len(fragments))]
    for piece, fragment in zip(pieces, fragments, strict=True):
        piece.write_bytes(begin + fragment.read_bytes())
    assert frames_of(pieces) == SECONDS * FPS
