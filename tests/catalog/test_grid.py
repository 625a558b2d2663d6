"""Time, exactly: laws against slow obvious loops over rational numbers."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.grid import GridRule, SegmentGrid, exact_seconds, sample_at

positive = st.fractions(min_value=Fraction(1, 50), max_value=20, max_denominator=60)
times = st.fractions(min_value=-30, max_value=60, max_denominator=120)
grids = st.builds(SegmentGrid, window_s=positive, hop_s=positive, count=st.integers(1, 40))
rates = st.sampled_from([1, 7, 8000, 16000, 22050, 44100])


@given(grids, times, times)
def test_overlaps_equals_a_loop_over_all_segments(grid: SegmentGrid, a: Fraction, b: Fraction) -> None:
    start_s, end_s = min(a, b), max(a, b)
    wanted = []
    for i in range(grid.count):
        shared_s = min(end_s, i * grid.hop_s + grid.window_s) - max(start_s, i * grid.hop_s)
        if shared_s > 0:
            wanted.append(i)
    assert list(grid.overlaps(start_s, end_s)) == wanted


@given(grids, times)
def test_overlaps_of_an_empty_or_reversed_interval_is_empty(grid: SegmentGrid, time_s: Fraction) -> None:
    assert list(grid.overlaps(time_s, time_s)) == []
    assert list(grid.overlaps(time_s, time_s - 1)) == []


@given(
    st.builds(
        SegmentGrid,
        window_s=st.fractions(min_value=Fraction(1, 9), max_value=2, max_denominator=9),
        hop_s=st.fractions(min_value=Fraction(1, 9), max_value=2, max_denominator=9),
        count=st.integers(1, 6),
    ),
    st.integers(1, 40),
    st.data(),
)
def test_sample_range_equals_a_loop_over_all_samples(grid: SegmentGrid, rate_hz: int, data: st.DataObject) -> None:
    segment = data.draw(st.integers(0, grid.count - 1))
    start_s = segment * grid.hop_s
    inside = [n for n in range(600) if start_s <= Fraction(n, rate_hz) < start_s + grid.window_s]
    first, stop = grid.sample_range(segment, rate_hz)
    assert list(range(first, stop)) == inside


@given(positive, st.integers(1, 200), rates)
def test_sample_range_of_touching_segments_leaves_no_gap(hop_s: Fraction, count: int, rate_hz: int) -> None:
    grid = SegmentGrid(window_s=hop_s, hop_s=hop_s, count=count)
    ranges = [grid.sample_range(i, rate_hz) for i in range(count)]
    assert ranges[0][0] == 0
    assert all(earlier[1] == later[0] for earlier, later in pairwise(ranges))
    assert ranges[-1][1] == math.ceil(count * hop_s * rate_hz)


def test_sample_at_where_floats_err_is_exact() -> None:
    assert int(0.96 * 11 * 25) == 263  # the trap that the grid exists for
    assert sample_at(Fraction("0.96") * 11, 25) == 264


@given(grids, st.integers(0, 39), st.integers(1, 32), st.fractions(min_value=0, max_value=1, max_denominator=8))
def test_clip_times_lie_evenly_in_their_segment(grid: SegmentGrid, segment: int, num: int, phase: Fraction) -> None:
    found = grid.clip_times_s(segment, num, phase)
    slot_s = grid.window_s / num
    assert len(found) == num
    assert all(later - earlier == slot_s for earlier, later in pairwise(found))
    assert found[0] - grid.start_s(segment) == phase * slot_s
    assert grid.end_s(segment) - found[-1] == (1 - phase) * slot_s


@given(grids)
def test_starts_and_ends_are_the_nearest_floats(grid: SegmentGrid) -> None:
    starts_s, ends_s = grid.starts_s(), grid.ends_s()
    assert starts_s.dtype == ends_s.dtype == np.float64
    assert starts_s.tolist() == [float(i * grid.hop_s) for i in range(grid.count)]
    assert ends_s.tolist() == [float(i * grid.hop_s + grid.window_s) for i in range(grid.count)]
    assert grid.middle_s(0) == grid.window_s / 2


@given(positive, positive, st.fractions(min_value=0, max_value=100, max_denominator=100))
def test_rule_drop_keeps_the_whole_windows_and_at_least_one(
    window_s: Fraction, hop_s: Fraction, duration_s: Fraction
) -> None:
    count = 0
    while count * hop_s + window_s <= duration_s:
        count += 1
    rule = GridRule(window_s=window_s, hop_s=hop_s, tail="drop")
    assert rule.grid(duration_s).count == max(1, count)


@given(positive, positive, st.fractions(min_value=0, max_value=100, max_denominator=100))
def test_rule_pad_covers_all_but_the_tolerance_with_fewest_windows(
    window_s: Fraction, hop_s: Fraction, duration_s: Fraction
) -> None:
    rule = GridRule(window_s=window_s, hop_s=hop_s)
    count = 1
    while (count - 1) * hop_s + window_s < duration_s - Fraction(1, 10):
        count += 1
    assert rule.grid(duration_s).count == count


@pytest.mark.parametrize(
    ("duration", "count"), [("10", 10), ("10.024", 10), ("10.1", 10), ("10.11", 11), ("0.2", 1), ("0", 1), ("9.95", 10)]
)
def test_rule_pad_of_one_second_counts_as_documented(duration: str, count: int) -> None:
    rule = GridRule(window_s=Fraction(1), hop_s=Fraction(1))
    assert rule.grid(Fraction(duration)).count == count


@given(st.floats(min_value=-1e9, max_value=1e9))
def test_exact_seconds_of_a_float_is_the_decimal_a_person_wrote(value: float) -> None:
    exact = exact_seconds(value)
    assert exact == Fraction(repr(value))
    assert float(exact) == value
    assert exact_seconds(np.float64(value)) == exact


def test_exact_seconds_reads_the_usual_spellings() -> None:
    assert exact_seconds("0.96") == exact_seconds(0.96) == exact_seconds("24/25") == Fraction(24, 25)
    assert exact_seconds(3) == exact_seconds("3") == exact_seconds(Fraction(3)) == 3
    assert exact_seconds("1e-3") == Fraction(1, 1000)


@pytest.mark.parametrize(
    "value",
    ["", "x", "1/0", "nan", "inf", float("nan"), float("inf"), "1e999999999", "1E+9999", "1e-999999999", True, None],
)
def test_exact_seconds_of_anything_else_is_refused_at_once(value: object) -> None:
    with pytest.raises(ValueError, match="finite number"):
        exact_seconds(value)  # type: ignore[arg-type] # what a caller without mypy may pass


@pytest.mark.parametrize(
    "value",
    ["1e400", "-1e400", "1e10", 1e308, -(10**9) - 1, pytest.param(10**400, id="whole"), "1000000000.1", "9000000000/2"],
)
def test_exact_seconds_beyond_any_medium_are_refused(value: str | float) -> None:
    with pytest.raises(ValueError, match=r"at most 1e9, got '?-?[0-9]") as refused:
        exact_seconds(value)
    assert len(str(refused.value)) < 200
    assert exact_seconds("1e9") == exact_seconds(1e9) == exact_seconds("2000000000/2") == 10**9


@pytest.mark.parametrize("field", ["window_s", "hop_s", "count"])
@pytest.mark.parametrize("value", [0, -1])
def test_grid_with_a_field_not_above_zero_is_refused(field: str, value: int) -> None:
    fields: dict[str, object] = {"window_s": Fraction(1), "hop_s": Fraction(1), "count": 1, field: value}
    with pytest.raises(ValueError, match="above 0"):
        SegmentGrid(**fields)  # type: ignore[arg-type] # the point of the test


@pytest.mark.parametrize("field", ["window_s", "hop_s"])
@pytest.mark.parametrize("value", [0.96, "1", True, None, float("nan")])
def test_grid_and_rule_with_an_inexact_time_are_refused(field: str, value: object) -> None:
    fields: dict[str, object] = {"window_s": Fraction(1), "hop_s": Fraction(1), field: value}
    with pytest.raises(ValueError, match=f"{field} must be exact"):
        SegmentGrid(count=1, **fields)  # type: ignore[arg-type] # the point of the test
    with pytest.raises(ValueError, match=f"{field} must be exact"):
        GridRule(**fields)  # type: ignore[arg-type] # the point of the test


def test_grid_with_a_fractional_count_is_refused() -> None:
    for count in (1.5, True, 2.0):
        with pytest.raises(ValueError, match="whole number of segments"):
            SegmentGrid(window_s=Fraction(1), hop_s=Fraction(1), count=count)  # type: ignore[arg-type] # ditto


def test_whole_seconds_given_as_integers_become_fractions() -> None:
    rule = GridRule(window_s=2, hop_s=1)  # type: ignore[arg-type] # tolerated, since it is exact
    assert isinstance(rule.window_s, Fraction)
    assert rule == GridRule(window_s=Fraction(2), hop_s=Fraction(1))


def test_rule_with_an_unknown_tail_or_negative_tolerance_is_refused() -> None:
    with pytest.raises(ValueError, match=r"grid\.tail must be"):
        GridRule(window_s=Fraction(1), hop_s=Fraction(1), tail="cut")  # type: ignore[arg-type] # the point
    with pytest.raises(ValueError, match="tail_tolerance_s must be 0 or more"):
        GridRule(window_s=Fraction(1), hop_s=Fraction(1), tail_tolerance_s=Fraction(-1))


def test_grid_clips_spread_from_the_beginning_to_the_end() -> None:
    grid = SegmentGrid(window_s=Fraction(10), hop_s=Fraction(5), count=3)
    spans = grid.clip_spans_s(1, 4, Fraction(2), Fraction(100))
    assert spans == [
        (Fraction(5), Fraction(7)),
        (Fraction(23, 3), Fraction(29, 3)),
        (Fraction(31, 3), Fraction(37, 3)),
        (Fraction(13), Fraction(15)),
    ]


@pytest.mark.parametrize(
    ("until_s", "starts"), [("12.5", ["5", "7.75", "10.5"]), ("6", ["5", "5", "5"]), ("1", ["5", "5", "5"])]
)
def test_grid_clips_stay_within_the_medium(until_s: str, starts: list[str]) -> None:
    grid = SegmentGrid(window_s=Fraction(10), hop_s=Fraction(5), count=3)
    spans = grid.clip_spans_s(1, 3, Fraction(2), Fraction(until_s))
    assert spans == [(Fraction(start), Fraction(start) + 2) for start in starts]


def test_grid_clips_longer_than_the_segment_end_with_it() -> None:
    grid = SegmentGrid(window_s=Fraction(1), hop_s=Fraction(1), count=3)
    assert grid.clip_spans_s(1, 2, Fraction(2), Fraction(9)) == [(Fraction(1), Fraction(2))] * 2
