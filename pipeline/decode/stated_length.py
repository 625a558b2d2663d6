"""What an audio file's own header states of its length where FFmpeg does not pass it on."""

from __future__ import annotations

import os

# Sizes that writers of endless streams put in place of one they do not know.
_UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)
# The header of a first MP3 frame is found this near to the end of the tags before it.
_FIRST_FRAME_BYTES = 4096


def wav_bytes(path: str) -> tuple[int, int] | None:
    """Bytes of samples that a WAV header states, and those that the file has; None where it states none.

    FFmpeg takes the smaller of the two for the length, so a file cut in half looks whole to it.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(4) != b"RIFF":  # RF64 keeps its sizes elsewhere
            return None
        position = 12
        while position + 8 <= size:
            file.seek(position)
            head = file.read(8)
            name, stated = head[:4], int.from_bytes(head[4:], "little")
            position += 8
            if name == b"data":
                return None if stated in _UNKNOWN_SIZES else (stated, max(0, size - position))
            position += stated + stated % 2
    return None


def mp3_counts_frames(path: str) -> bool:
    """Whether an MP3 file's first frame states how many follow (Xing, Info, VBRI); else a length is a guess."""
    with open(path, "rb") as file:
        head = file.read(10)
        skip = 0
        if head[:3] == b"ID3" and len(head) == 10:
            # ID3v2's size: four bytes of seven bits, without the header itself.
            skip = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        file.seek(skip)
        first = file.read(_FIRST_FRAME_BYTES)
    return any(mark in first for mark in (b"Xing", b"Info", b"VBRI"))
