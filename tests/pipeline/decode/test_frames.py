"""Which frame is shown when, and Pillow's resize of a box against the whole picture resized and cut."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from catalog.grid import SegmentGrid
from catalog.recipe import VideoSampling
from pipeline.decode.frames import FILTERS, FrameTable, Geometry, resize


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


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(48, 64), (97, 31), (24, 24), (60, 61)])
def test_frames_three_crops_equal_resizing_the_whole_and_cutting(interpolation: str, height: int, width: int) -> None:
    frame = np.random.default_rng(width).integers(64, 192, (height, width, 3), dtype=np.uint8)
    got = resize(frame, Geometry.of(_sampling("three_crops", interpolation, 72, 24)))
    size = (int(width / height * 24), 24) if height < width else (24, int(height / width * 24))
    whole = np.asarray(Image.fromarray(frame).resize(size, FILTERS[interpolation]))
    starts = (0, -((24 - max(size)) // 2), max(size) - 24)
    crops = [whole[:, at : at + 24] if height < width else whole[at : at + 24] for at in starts]
    assert got.shape == (72, 24, 3)
    assert np.abs(got.astype(int) - np.concatenate(crops)).max() <= 1  # one rounding of the weights


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(48, 64), (97, 31), (24, 24), (60, 61), (240, 426)])
def test_frames_left_whole_equal_resizing_the_short_side(interpolation: str, height: int, width: int) -> None:
    frame = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    geometry = Geometry.of(_sampling("whole", interpolation, short=32))
    size = (int(width / height * 32), 32) if height < width else (32, int(height / width * 32))
    got = resize(frame, geometry)
    assert got.shape[:2] == geometry.size(height, width) == size[::-1]
    np.testing.assert_array_equal(got, np.asarray(Image.fromarray(frame).resize(size, FILTERS[interpolation])))


@pytest.mark.parametrize(("height", "width"), [(8, 512), (512, 8)])
def test_frames_left_whole_are_cut_where_they_are_far_too_long(height: int, width: int) -> None:
    frame = np.random.default_rng(width).integers(64, 192, (height, width, 3), dtype=np.uint8)
    got = resize(frame, Geometry.of(_sampling("whole", "bilinear", short=32)))
    long = Image.fromarray(frame).resize((32 * width // min(height, width), 32 * height // min(height, width)), 2)
    want = np.asarray(long)
    middle = slice((2048 - 128) // 2, (2048 + 128) // 2)
    want = want[:, middle] if width > height else want[middle]
    assert got.shape == want.shape
    assert np.abs(got.astype(int) - want).max() <= 1  # one rounding of the weights


def test_frames_after_a_segment_follow_at_the_same_step() -> None:
    grid = SegmentGrid(window_s=Fraction("0.96"), hop_s=Fraction("0.32"), count=30)
    sampling = VideoSampling(frames_per_segment=24, frames_after=1, height_px=8, width_px=8)
    table = _table(list(range(100)))
    assert table.of_segment(grid, 2, sampling) == list(range(16, 41))
    assert table.of_segment(grid, 9, sampling) == [*range(72, 97)]
    assert table.of_segment(grid, 10, sampling)[-6:] == [99] * 6  # the last frame is held beyond the end


def _clip_sampling(clips: int, clip_s: Fraction = Fraction(2)) -> VideoSampling:
    return VideoSampling(frames_per_segment=2 * clips, height_px=8, width_px=8, clip_s=clip_s)


@given(
    num_frames=st.integers(1, 400),
    fps=st.fractions(Fraction(1, 2), 60, max_denominator=1001),
    window_s=st.fractions(Fraction(1, 10), 20, max_denominator=100),
    clips=st.integers(2, 6),
)
def test_frames_of_clips_are_the_published_ones_of_a_constant_rate(
    num_frames: int, fps: Fraction, window_s: Fraction, clips: int
) -> None:
    table = _table(list(range(num_frames)), 1 / fps, Fraction(0))
    grid = SegmentGrid(window_s=window_s, hop_s=window_s, count=1)
    made = table.of_segment(grid, 0, _clip_sampling(clips))
    # pytorchvideo's ConstantClipsPerVideoSampler and EncodedVideo, of a file that ends with the window or the frames
    num_frames = min(num_frames, math.ceil(fps * window_s))
    duration_s = min(window_s, num_frames / fps)
    starts = [k * max(duration_s - 2, Fraction(0)) / (clips - 1) for k in range(clips)]
    want = []
    for start_s in starts:
        shown = [i for i in range(num_frames) if math.ceil(fps * start_s) <= i <= math.ceil(fps * (start_s + 2)) - 1]
        # Frames two seconds apart may leave a clip without one.
        want += [shown[0], shown[-1]] if shown else [math.floor(fps * start_s)] * 2
    assert made == want


def test_frames_end_when_the_last_has_been_shown_as_long_as_the_others_on_average() -> None:
    assert _table([50, 51, 52], t0_s=Fraction(1)).end_s == Fraction(28, 25)
    assert _table([0, 10, 11, 15]).end_s == Fraction(20, 25)
    assert _table([7]).end_s == Fraction(7, 25)


def test_frames_of_clips_follow_the_frames_own_times() -> None:
    # Shown from 1, 1.1, 4, 4.1, 9 and 9.5 s; at an end of 9.5 + 8.5 / 5 s.
    table = _table([10, 11, 40, 41, 90, 95], Fraction(1, 10))
    grid = SegmentGrid(window_s=Fraction(10), hop_s=Fraction(10), count=2)
    assert table.of_segment(grid, 0, _clip_sampling(5)) == [0, 1, 1, 1, 2, 3, 3, 3, 4, 5]
    # The second segment has 1.2 s of picture: five times the same clip, in which none begins.
    assert table.of_segment(grid, 1, _clip_sampling(5)) == [5] * 10


def test_frames_of_clips_before_the_first_picture_there_are_none() -> None:
    table = _table([30, 31, 32], Fraction(1, 10))
    grid = SegmentGrid(window_s=Fraction(4), hop_s=Fraction(4), count=1)
    # Until the picture ends, at 3.3 s: [0, 2) and [1.3, 3.3); then [0, 3.1) and [0.2, 3.3).
    assert table.of_segment(grid, 0, _clip_sampling(2)) == [-1, -1, 0, 2]
    assert table.of_segment(grid, 0, _clip_sampling(2, Fraction(31, 10))) == [0, 0, 0, 2]


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
