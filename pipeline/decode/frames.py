"""Which frames the segments need, and those frames at the encoder's input size.

Shape suffixes: F frames of the medium, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catalog.grid import SegmentGrid
from catalog.recipe import VideoSampling
from pipeline.decode.tensor_resize import tensor_resize

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


# Resized: uint8, or float32 by a tensor interpolation.
Frame = NDArray[np.uint8 | np.float32]

Box = tuple[float, float, float, float]  # left, top, right, bottom

# Frames left whole are at most so many times as long as wide; of longer ones the middle is kept. A 512 x 8 frame
# would become one of 16384 x 256.
_LONGEST_WHOLE = 4


@dataclass(frozen=True, kw_only=True)
class FrameTable:
    """When each frame is shown.

    Attributes:
        pts_F: int64 ticks, ascending and distinct.
        time_base: seconds a tick.
        t0_s: the container's time at which the clock begins.
    """

    pts_F: NDArray[np.int64]
    time_base: Fraction
    t0_s: Fraction

    @property
    def end_s(self) -> Fraction:
        """When the video ends on the clock: the last frame is shown as long as the mean of those before it."""
        first, last = int(self.pts_F[0]), int(self.pts_F[-1])
        shown = Fraction(last - first, max(len(self.pts_F) - 1, 1))
        return (last + shown) * self.time_base - self.t0_s

    def shown_at(self, time_s: Fraction) -> int:
        """The frame on screen at `time_s`: the last with start <= time_s (held to the end), -1 before the first."""
        ticks = math.floor((time_s + self.t0_s) / self.time_base)
        return int(np.searchsorted(self.pts_F, ticks, side="right")) - 1

    def of_segment(self, grid: SegmentGrid, segment: int, sampling: VideoSampling) -> list[int]:
        """Frame numbers of `segment`, one a slot, the smallest first; ascending but where clips overlap."""
        if sampling.clip_s is not None:
            spans_s = grid.clip_spans_s(segment, sampling.frames_per_segment // 2, sampling.clip_s, self.end_s)
            return [number for span_s in spans_s for number in self._ends_of(*span_s)]
        times_s = grid.clip_times_s(segment, sampling.frames_per_segment, sampling.phase, sampling.frames_after)
        return [self.shown_at(time_s) for time_s in times_s]

    def _ends_of(self, start_s: Fraction, end_s: Fraction) -> tuple[int, int]:
        """The first and the last frame to begin in `[start_s, end_s)`; where none does, the one on screen, twice."""
        ticks = [math.ceil((time_s + self.t0_s) / self.time_base) for time_s in (start_s, end_s)]
        first, behind = (int(index) for index in np.searchsorted(self.pts_F, ticks, side="left"))
        return min(first, behind - 1), behind - 1


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a frame becomes the encoder's input: recipes with equal geometry share the resized frames."""

    height_px: int
    width_px: int
    fit: str
    short_side_px: int
    interpolation: str

    @property
    def dtype(self) -> type[np.uint8] | type[np.float32]:
        """Of the resized frames."""
        return np.uint8 if self.interpolation in FILTERS else np.float32

    @classmethod
    def of(cls, sampling: VideoSampling) -> Geometry:
        longest = sampling.width_px if sampling.fit == "three_crops" else max(sampling.height_px, sampling.width_px)
        return cls(
            height_px=sampling.height_px,
            width_px=sampling.width_px,
            fit=sampling.fit,
            short_side_px=sampling.short_side_px or longest,
            interpolation=sampling.interpolation,
        )

    def size(self, height_px: int, width_px: int) -> tuple[int, int]:
        """(height, width) of the output for a source of that size."""
        if self.fit != "whole":
            return self.height_px, self.width_px
        resized_h, resized_w = self._resized(height_px, width_px)
        longest = _LONGEST_WHOLE * self.short_side_px
        return min(resized_h, longest), min(resized_w, longest)

    def boxes(self, height_px: int, width_px: int) -> list[Box]:
        """The parts of the source that become the output, one below the other, in source pixels."""
        if self.fit == "stretch":
            return [(0.0, 0.0, float(width_px), float(height_px))]
        if self.fit == "three_crops":
            return self._three_boxes(height_px, width_px)
        # As torchvision's CenterCrop, which begins at int(round(d / 2)).
        resized_h, resized_w = self._resized(height_px, width_px)
        cut_h, cut_w = self.size(height_px, width_px)
        if self.fit == "whole" and (cut_h, cut_w) == (resized_h, resized_w):
            return [(0.0, 0.0, float(width_px), float(height_px))]
        left, top = round((resized_w - cut_w) / 2.0), round((resized_h - cut_h) / 2.0)
        scale_w, scale_h = width_px / resized_w, height_px / resized_h
        return [(left * scale_w, top * scale_h, (left + cut_w) * scale_w, (top + cut_h) * scale_h)]

    def _resized(self, height_px: int, width_px: int) -> tuple[int, int]:
        # As torchvision's Resize: the long side becomes int(size * long / short).
        short = min(height_px, width_px)
        return (
            self.short_side_px if height_px == short else int(self.short_side_px * height_px / width_px),
            self.short_side_px if width_px == short else int(self.short_side_px * width_px / height_px),
        )

    def _three_boxes(self, height_px: int, width_px: int) -> list[Box]:
        # As pytorchvideo: short_side_scale makes the long side floor(long / short * size), in this order of rounding;
        # uniform_crop begins at 0, ceil(d / 2) and d.
        side = self.short_side_px
        if height_px > width_px:
            long_side = math.floor(height_px / width_px * side)
            scale = height_px / long_side
        else:
            long_side = math.floor(width_px / height_px * side)
            scale = width_px / long_side
        spans = [(at * scale, (at + side) * scale) for at in (0, math.ceil((long_side - side) / 2), long_side - side)]
        if height_px > width_px:
            return [(0.0, low, float(width_px), high) for low, high in spans]
        return [(low, 0.0, high, float(height_px)) for low, high in spans]


def resize(frame_HWC: NDArray[np.uint8], geometry: Geometry) -> Frame:
    """One frame at the encoder's input size.

    Only what is wanted is computed. Pillow's filters reach beyond a box into the rest of the frame, so this equals
    resizing the whole and cutting (to 1 of 255; more only where a filter's overshoot is clipped between Pillow's two
    passes), without the intermediate: a 512x8 frame would become 16384x256.

    Args:
        frame_HWC: uint8 RGB of any size.

    Returns:
        (H', W', 3) RGB of the geometry's size and dtype, in units of 1/255.
    """
    boxes = geometry.boxes(*frame_HWC.shape[:2])
    out_h, out_w = geometry.size(*frame_HWC.shape[:2])
    size = (out_w, out_h // len(boxes))
    parts = [_resize_box(frame_HWC, box, size, geometry.interpolation) for box in boxes]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _resize_box(frame_HWC: NDArray[np.uint8], box: Box, size: tuple[int, int], interpolation: str) -> Frame:
    height_px, width_px = frame_HWC.shape[:2]
    if interpolation not in FILTERS:
        kind = interpolation.removesuffix("_tensor")
        return tensor_resize(frame_HWC, box, height_px=size[1], width_px=size[0], kind=kind)
    if box == (0.0, 0.0, float(width_px), float(height_px)) and (width_px, height_px) == size:
        return frame_HWC
    # The box's far edge may pass the frame's by a rounding error; Pillow refuses that.
    box = (box[0], box[1], min(box[2], float(width_px)), min(box[3], float(height_px)))
    image = Image.fromarray(frame_HWC).resize(size, FILTERS[interpolation], box=box)
    return np.asarray(image)
