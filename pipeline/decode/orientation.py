"""How a display matrix turns and mirrors the coded frames: eight orientations.

FFmpeg's own angle says nothing of a mirror, which front cameras write: one that mirrors left and right is "turned by
180 degrees", one that mirrors up and down is not turned at all. decord has no more than that angle.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """First mirrored left and right, then turned counter-clockwise by quarters."""

    mirrored: bool = False
    quarter_turns: int = 0

    def apply(self, frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frame as it is shown."""
        if self == AS_CODED:
            return frame_HWC
        return np.ascontiguousarray(np.rot90(frame_HWC[:, ::-1] if self.mirrored else frame_HWC, self.quarter_turns))


AS_CODED = Orientation()


def orientation_of(av_frame: av.VideoFrame) -> Orientation:
    """By the display matrix that the frame brings from its container; angles between quarters are rounded."""
    held: Any = av_frame.side_data  # its stubs name another type
    matrix = held.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return AS_CODED
    # A coded point (x, y) is shown at (a x + c y, b x + d y); the other numbers only move it.
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    return Orientation(mirrored=mirrored, quarter_turns=round(-math.atan2(b, a) / (math.pi / 2)) % 4)
