"""What crosses from decoding to encoding: the clips of a run of segments, at the encoder's input size and rate.

Shape suffixes: N audio samples, F distinct frames, S segments, P frames a segment, H W pixels, D feature width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.grid import SegmentGrid


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Frames and samples of the segments `first .. first + S - 1` of one video, for one recipe.

    A frame that several segments see is held once: `frame_index_SP` points at it.

    Attributes:
        video_id: whose.
        grid: the whole video's grid (not only of these segments).
        first: number of the first segment here.
        frames_FHWC: uint8 RGB, or float32 in the same units by a tensor interpolation; ascending in time; F = 0 where
            there is no frame. Of the recipe's size; where it leaves frames whole, of a size of the video's own.
        frame_index_SP: int32 into `frames_FHWC`; -1 where no frame has been shown yet. P counts frames beyond the
            segment too where the recipe has such; P = 0 without a video tower.
        samples_N: float32 in about [-1, 1], mono, at `rate_hz`; zeros where there is no audio. N = 0 without
            an audio tower or track.
        sample_valid_N: bool, True where a sample is real.
        samples_start: number of `samples_N[0]` on the video's clock (sample n is at n / rate_hz seconds; with
            context it may be negative).
        rate_hz: 0 without an audio tower.
    """

    video_id: str
    grid: SegmentGrid
    first: int
    frames_FHWC: NDArray[np.uint8 | np.float32]
    frame_index_SP: NDArray[np.int32]
    samples_N: NDArray[np.float32]
    sample_valid_N: NDArray[np.bool_]
    samples_start: int
    rate_hz: int

    def __post_init__(self) -> None:
        if self.frames_FHWC.ndim != 4 or self.frames_FHWC.dtype not in (np.uint8, np.float32):
            raise ValueError(f"{self.video_id}: frames must be uint8 or float32 (F, H, W, 3)")
        if self.frame_index_SP.ndim != 2 or self.frame_index_SP.shape[0] < 1:
            raise ValueError(f"{self.video_id}: frame_index must be (S, P) with S of at least 1")
        if self.samples_N.shape != self.sample_valid_N.shape or self.samples_N.ndim != 1:
            raise ValueError(f"{self.video_id}: samples and their validity must be (N,) both")

    @property
    def count(self) -> int:
        """S, the number of segments here."""
        return int(self.frame_index_SP.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of media held."""
        return self.frames_FHWC.nbytes + self.samples_N.nbytes + self.sample_valid_N.nbytes

    def window_samples(self, segment: int) -> slice:
        """Where the samples of `segment` (a number on the whole grid) lie in `samples_N`, context left out."""
        start, stop = self.grid.sample_range(segment, self.rate_hz)
        return slice(start - self.samples_start, stop - self.samples_start)


# Clips of one video, and which of their segments are to be encoded: rows, ascending, at least one.
Segments = tuple[Clips, NDArray[np.intp]]
