"""The points of a pyramid against the paper's table of strides and ranges, written out."""

from __future__ import annotations

import math

import pytest

from heads.dense.points import divisor, points


def test_points_of_six_levels_are_those_published() -> None:
    found = points(64)
    ranges = [(0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, math.inf)]
    wanted = [
        (float(time), float(low), float(high), float(stride))
        for stride, (low, high) in zip((1, 2, 4, 8, 16, 32), ranges, strict=True)
        for time in range(0, 64, stride)
    ]
    columns = (found.time_P, found.low_P, found.high_P, found.stride_P)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == wanted
    assert found.counts == (64, 32, 16, 8, 4, 2)


def test_points_of_one_level_are_for_every_length() -> None:
    found = points(3, levels=1)
    assert (found.time_P.tolist(), found.low_P.tolist(), found.high_P.tolist()) == ([0, 1, 2], [0] * 3, [math.inf] * 3)


@pytest.mark.parametrize(("segments", "levels"), [(0, 1), (6, 3), (4, 0), (16, 6)])
def test_points_of_a_length_that_does_not_halve_raise(segments: int, levels: int) -> None:
    with pytest.raises(ValueError, match=f"got {segments}"):
        points(segments, levels)


def test_divisor_halves_down_to_one_point() -> None:
    assert [divisor(levels) for levels in (1, 2, 6)] == [1, 2, 32]
