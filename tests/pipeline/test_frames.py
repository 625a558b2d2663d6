"""Which frame is shown when, and Pillow's resize of a box against the whole picture resized and cut."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from catalog.grid import SegmentGrid
from catalog.recipe import VideoSampling
from pipeline.frames import FILTERS, FrameTable, Geometry, resize


def _sampling(
    fit: str, interpolation: str, height: int = 24, width: int = 24, short: int | None = None
) -> VideoSampling:
    return VideoSampling(
        frames_per_segment=1,
        height_px=height,
        width_px=width,
        fit=fit,  # type: ignore[arg-type]  # parametrised text
        short_side_px=short,
        interpolation=interpolation,  # type: ignore[arg-type]
    )


def _table(pts: list[int], time_base: Fraction = Fraction(1, 25), t0_s: Fraction = Fraction(0)) -> FrameTable:
    return FrameTable(pts_F=np.array(pts, np.int64), time_base=time_base, t0_s=t0_s)


def test_frames_shown_holds_each_until_the_next_and_the_last_for_ever() -> None:
    table = _table([0, 1, 50])
    asked = [
        Fraction(0),
        Fraction(1, 25) - Fraction(1, 10**12),
        Fraction(1, 25),
        Fraction(199, 100),
        Fraction(2),
        Fraction(9),
    ]
    assert [table.shown_at(time_s) for time_s in asked] == [0, 0, 1, 1, 2, 2]


def test_frames_before_the_first_picture_there_is_none() -> None:
    table = _table([12800], Fraction(1, 12800))
    assert [table.shown_at(Fraction(n, 10)) for n in (0, 9, 10)] == [-1, -1, 0]


@given(
    pts=st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=20, unique=True),
    time_base=st.fractions(Fraction(1, 10**9), 1),
    t0_ticks=st.integers(-(2**40), 2**40),
    time_s=st.fractions(0, 10**6),
)
def test_frames_shown_equals_a_search_in_exact_rationals(
    pts: list[int], time_base: Fraction, t0_ticks: int, time_s: Fraction
) -> None:
    pts = sorted(pts)
    table = _table(pts, time_base, t0_ticks * time_base)
    shown = [i for i, ticks in enumerate(pts) if (ticks - t0_ticks) * time_base <= time_s]
    assert table.shown_at(time_s) == (shown[-1] if shown else -1)


def test_frames_of_a_segment_follow_slots_and_phase() -> None:
    grid = SegmentGrid(window_s=Fraction("0.96"), hop_s=Fraction("0.48"), count=30)
    table = _table(list(range(1000)))
    sampling = VideoSampling(frames_per_segment=24, height_px=8, width_px=8, phase=Fraction(0))
    # 0.48 s are 12 frames; in floats int(0.48 * 11 * 25) is 131, the wrong frame
    assert table.of_segment(grid, 11, sampling) == list(range(132, 156))


@pytest.mark.parametrize("interpolation", sorted(FILTERS))
@pytest.mark.parametrize(("height", "width"), [(48, 64), (97, 31), (8, 512), (24, 24), (60, 61)])
@pytest.mark.parametrize("short", [24, 32])
def test_frames_crop_equals_resizing_the_whole_and_cutting(
    interpolation: str, height: int, width: int, short: int
) -> None:
    # Half contrast: overshoot is then not clipped between Pillow's two passes, whose order depends on the sizes.
    frame = np.random.default_rng(height).integers(64, 192, (height, width, 3), dtype=np.uint8)
    got = resize(frame, Geometry.of(_sampling("crop", interpolation, short=short)))
    # torchvision's Resize(short) and CenterCrop(24), written out with Pillow
    size = (int(short * width / height), short) if height < width else (short, int(short * height / width))
    whole = np.asarray(Image.fromarray(frame).resize(size, FILTERS[interpolation]))
    top, left = round((size[1] - 24) / 2), round((size[0] - 24) / 2)
    want = whole[top : top + 24, left : left + 24]
    if interpolation == "nearest":
        # Source positions that are ties between two pixels may fall to either: whole rows or columns.
        assert np.mean(np.abs(got.astype(int) - want).max(axis=2) > 0) < 0.2
    else:
        assert np.abs(got.astype(int) - want).max() <= 1  # one rounding of the weights


def test_frames_stretch_equals_pillow() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (97, 31, 3), dtype=np.uint8)
    got = resize(frame, Geometry.of(_sampling("stretch", "bicubic", 24, 40)))
    np.testing.assert_array_equal(got, np.asarray(Image.fromarray(frame).resize((40, 24), Image.Resampling.BICUBIC)))


def test_frames_of_the_right_size_are_left_alone() -> None:
    frame = np.random.default_rng(2).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    for fit in ("crop", "stretch"):
        np.testing.assert_array_equal(resize(frame, Geometry.of(_sampling(fit, "lanczos"))), frame)


def test_frames_extreme_shape_needs_no_huge_intermediate() -> None:
    # Resized whole, the short side to 256, this would be 2 million pixels wide: 1.6 GB.
    frame = np.zeros((8, 65_000, 3), np.uint8)
    geometry = Geometry.of(_sampling("crop", "bilinear", 224, 224, 256))
    assert resize(frame, geometry).shape == (224, 224, 3)


def test_geometry_is_shared_by_recipes_that_differ_in_their_times_only() -> None:
    some = VideoSampling(frames_per_segment=1, height_px=8, width_px=8)
    other = VideoSampling(frames_per_segment=9, height_px=8, width_px=8, phase=Fraction(0), short_side_px=8)
    assert Geometry.of(some) == Geometry.of(other)
