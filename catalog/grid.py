"""The one owner of time: seconds to segments, frames and samples, in exact rationals.

t = 0 is the earlier of a medium's first frame and first audio sample. Segment i is half-open:
`[i * hop_s, i * hop_s + window_s)`. Nobody else multiplies seconds by rates:
`int(0.96 * 11 * 25)` is 263, the wrong frame; `int(Fraction("0.96") * 11 * 25)` is 264.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# A rest shorter than this after the last whole segment makes no segment of its own: AAC padding and rounding
# make ten-second clips 10.024 s long.
TAIL_TOLERANCE_S = Fraction(1, 10)

# Fraction("1e999999999") would compute ten to that power; texts may come from others' files.
_HUGE_EXPONENT = re.compile(r"[eE][+-]?\d{4}")

# 31 years: no medium is as long, and what is longer has no float to be computed with.
LONGEST_S = 10**9


@dataclass(frozen=True, kw_only=True)
class SegmentGrid:
    """The segments of one medium.

    Attributes:
        window_s: seconds that one feature sees.
        hop_s: seconds between the starts of neighbouring segments.
        count: how many segments there are, at least 1.
    """

    window_s: Fraction
    hop_s: Fraction
    count: int

    def __post_init__(self) -> None:
        need_exact(self, "window_s", "hop_s")
        if isinstance(self.count, bool) or not isinstance(self.count, int):
            raise ValueError(f"a grid needs a whole number of segments, got count={self.count!r}")
        if self.window_s <= 0 or self.hop_s <= 0 or self.count <= 0:
            raise ValueError(f"a grid needs window_s, hop_s and count above 0, got {self}")

    def start_s(self, segment: int) -> Fraction:
        """Where `segment` begins."""
        return segment * self.hop_s

    def end_s(self, segment: int) -> Fraction:
        """Where `segment` ends (exclusive)."""
        return segment * self.hop_s + self.window_s

    def middle_s(self, segment: int) -> Fraction:
        """The middle of `segment`."""
        return self.start_s(segment) + self.window_s / 2

    def starts_s(self) -> NDArray[np.float64]:
        """(count,) float64 seconds, each the float nearest to the exact start."""
        return np.array([float(self.start_s(i)) for i in range(self.count)])

    def ends_s(self) -> NDArray[np.float64]:
        """(count,) float64 seconds, each the float nearest to the exact end."""
        return np.array([float(self.end_s(i)) for i in range(self.count)])

    def clip_times_s(self, segment: int, num: int, phase: Fraction, after: int = 0) -> list[Fraction]:
        """The `num` instants of `segment` at which a frame is taken: `start + (j + phase) * window / num`.

        Args:
            after: so many more, at the same step beyond the segment's end.
        """
        step = self.window_s / num
        start = self.start_s(segment)
        return [start + (j + phase) * step for j in range(num + after)]

    def clip_spans_s(
        self, segment: int, num: int, clip_s: Fraction, until_s: Fraction
    ) -> list[tuple[Fraction, Fraction]]:
        """(start, end) of `num` clips of `clip_s` seconds, spread evenly from the beginning of `segment` to its end.

        Args:
            num: at least 2.
            until_s: where the medium ends; a segment that goes on beyond is treated as if it ended there. Where clips
                are longer than what there is, all begin with the segment; none passes the segment's end.
        """
        start = self.start_s(segment)
        slack_s = max(min(self.end_s(segment), until_s) - start - clip_s, Fraction(0))
        starts = [start + k * slack_s / (num - 1) for k in range(num)]
        return [(start_s, min(start_s + clip_s, self.end_s(segment))) for start_s in starts]

    def sample_range(self, segment: int, rate_hz: int) -> tuple[int, int]:
        """First (inclusive) and last (exclusive) sample of `segment`: those with start <= n / rate_hz < end."""
        return sample_at(self.start_s(segment), rate_hz), sample_at(self.end_s(segment), rate_hz)

    def overlaps(self, start_s: Fraction, end_s: Fraction) -> range:
        """The segments that share more than a point with `[start_s, end_s)`, cut to the grid."""
        if end_s <= start_s:
            return range(0)
        # end_s(i) > start_s  <=>  i > (start_s - window) / hop
        first = math.floor((start_s - self.window_s) / self.hop_s) + 1
        last = math.ceil(end_s / self.hop_s)
        return range(max(0, first), min(self.count, max(last, 0)))


@dataclass(frozen=True, kw_only=True)
class GridRule:
    """How a duration becomes a grid: what a recipe states, since a medium's length is not known to it.

    Attributes:
        window_s, hop_s: as in `SegmentGrid`.
        tail: "pad" makes a last, padded segment of a rest longer than `tail_tolerance_s`;
            "drop" keeps whole windows only. Either gives at least one segment.
    """

    window_s: Fraction
    hop_s: Fraction
    tail: Literal["pad", "drop"] = "pad"
    tail_tolerance_s: Fraction = TAIL_TOLERANCE_S

    def __post_init__(self) -> None:
        need_exact(self, "window_s", "hop_s", "tail_tolerance_s")
        if min(self.window_s, self.hop_s) <= 0:
            raise ValueError(f"a grid rule needs window_s and hop_s above 0, got {self}")
        if self.tail not in ("pad", "drop"):
            raise ValueError(f"grid.tail must be 'pad' or 'drop', got {self.tail!r}")
        if self.tail_tolerance_s < 0:
            raise ValueError(f"grid.tail_tolerance_s must be 0 or more, got {self.tail_tolerance_s}")

    def grid(self, duration_s: Fraction) -> SegmentGrid:
        """The grid of a medium that lasts `duration_s`.

        "pad" with window = hop = 1 s gives `max(1, ceil(duration - 0.1))`; "drop" gives
        `max(1, floor((duration - window) / hop) + 1)`, which is UnAV-100's count.
        """
        if self.tail == "pad":
            steps = math.ceil((duration_s - self.tail_tolerance_s - self.window_s) / self.hop_s)
        else:
            steps = math.floor((duration_s - self.window_s) / self.hop_s)
        return SegmentGrid(window_s=self.window_s, hop_s=self.hop_s, count=max(1, steps + 1))


def sample_at(time_s: Fraction, rate_hz: int) -> int:
    """The first sample at or after `time_s`: ceil(time_s * rate_hz), exactly."""
    return math.ceil(time_s * rate_hz)


def need_exact(owner: object, *fields: str) -> None:
    """Checks that fields of a frozen dataclass are fractions; whole numbers become so.

    A float would pass arithmetic and comparison, and be inexact; an int would be equal and have another fingerprint.

    Raises:
        ValueError: a field is neither; the message names it.
    """
    for field in fields:
        value = getattr(owner, field)
        if isinstance(value, Fraction):
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(
                f"{type(owner).__name__}.{field} must be exact, got {value!r}; give a Fraction, "
                'as exact_seconds("0.96") makes it'
            )
        object.__setattr__(owner, field, Fraction(value))


def exact_seconds(value: str | int | float | Fraction) -> Fraction:
    """Seconds as an exact rational: "0.96" and 0.96 are both 24/25, as a person means them.

    Raises:
        ValueError: `value` is not a finite number, or its exponent has over three digits, or it is further from 0 than
            `LONGEST_S`.
    """
    try:
        if isinstance(value, bool) or (isinstance(value, str) and _HUGE_EXPONENT.search(value)):
            raise ValueError("not a number of seconds")
        # repr gives the shortest decimal that reads back as this float: 0.1 becomes 1/10, not its binary value.
        # float() first: a NumPy float's own repr is "np.float64(0.1)".
        exact = Fraction(repr(float(value)) if isinstance(value, float) else value)
    except (ValueError, ZeroDivisionError, TypeError, OverflowError) as error:
        raise ValueError(f"seconds must be a finite number such as 0.96 or 24/25, got {value!r}") from error
    if abs(exact) > LONGEST_S:
        raise ValueError(f"seconds must be a finite number of at most 1e9, got {value!r:.40}")
    return exact
