"""Opening a medium's container: local files and self-contained formats only, and why others do not open."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import av

from catalog.errors import MediaError

# The demuxers that may open a file. Others (HLS, DASH, concat, image sequences) fetch further files or URLs that
# a hostile "video" names. FFmpeg checks the first of a demuxer's names against this list.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,asf,mxf,ogg,wav,w64,flac,mp3,aac,aiff,au,caf"

# PyAV's is generic in newer versions alone.
Packet = Any


def demux(container: av.container.InputContainer, streams: Sequence[av.stream.Stream] = ()) -> Iterator[Packet]:
    """Packets of `streams` (all where none are named), last an empty one for each, which flushes its decoder."""
    try:
        yield from container.demux(*([list(streams)] if streams else []))
    except IndexError:
        # PyAV 18.1 trips over a stream that appeared in mid-file (FLV, MPEG-TS) when it comes to flush it: after all
        # packets and the known streams' flushing.
        return


def open_container(path: str) -> av.container.InputContainer:
    """`path` opened by PyAV: local files only, and only demuxers that read nothing but that file.

    Args:
        path: absolute, so that FFmpeg does not take "a:b.mp4" for a protocol.

    Raises:
        MediaError: not_media, container_truncated or corrupt_container.
    """
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        return av.open(path, options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        raise _unopenable(path, error) from error


# The first bytes of the containers above (offset, bytes): an unopenable file with one of these was media once.
_SIGNATURES = (
    (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"wide"), (4, b"free"), (4, b"skip"),
    (0, b"\x1a\x45\xdf\xa3"), (0, b"RIFF"), (0, b"FLV"), (0, b"\x00\x00\x01\xba"), (0, b"\x00\x00\x01\xb3"),
    (0, b"OggS"), (0, b"fLaC"), (0, b"ID3"), (0, b"FORM"), (0, b".snd"), (0, b"caff"), (0, b"\x06\x0e\x2b\x34"),
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


def _boxes(file: BinaryIO) -> set[bytes]:
    """Types of an MP4's top-level boxes, as far as they can be followed."""
    size, position = os.fstat(file.fileno()).st_size, 0
    found: set[bytes] = set()
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
