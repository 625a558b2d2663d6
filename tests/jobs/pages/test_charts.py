from __future__ import annotations

import math

import numpy as np
import pytest

from jobs.pages.charts import LEVELS, heat_map, line_chart, nice_ticks, shortened


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.31, 0.74), (0.0, 60.0), (2.0, 2.0), (-3.0, 0.001), (0.0, 0.0)]
)
def test_nice_ticks_enclose_the_range_evenly_with_round_steps(low: float, high: float) -> None:
    ticks = nice_ticks(low, high, 4)
    steps = np.diff(ticks)
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high - 1e-9
    assert 2 <= len(ticks) <= 7
    np.testing.assert_allclose(steps, steps[0])
    assert min(abs(steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9) - f) for f in (1, 2, 5)) < 1e-6


def test_line_chart_maps_values_linearly_and_marks_the_chosen_epoch() -> None:
    chart = line_chart("Loss", [1, 2, 3], [("val", "val", [0.0, 1.0, 2.0])], chosen=2)
    assert chart is not None
    points = [tuple(map(float, pair.split(","))) for pair in chart.lines[0].pieces[0].split()]
    assert points[1] == pytest.approx(((points[0][0] + points[2][0]) / 2, (points[0][1] + points[2][1]) / 2), abs=0.11)
    assert points[0][1] > points[2][1], "larger values stand higher"
    assert chart.mark_x == points[1][0]
    assert chart.mark_points[0][:3] == (*points[1], "1")


def test_line_chart_leaves_a_gap_where_a_value_is_missing() -> None:
    chart = line_chart("Loss", [1, 2, 3, 4, 5], [("val", "val", [1.0, 2.0, math.nan, 3.0, math.nan])], chosen=None)
    assert chart is not None
    assert len(chart.lines[0].pieces) == 1
    assert len(chart.lines[0].dots) == 1
    assert chart.mark_x is None


def test_line_chart_of_one_epoch_is_a_dot_and_of_no_number_is_none() -> None:
    chart = line_chart("Loss", [1], [("val", "val", [1.0])], chosen=1)
    assert chart is not None
    assert len(chart.lines[0].dots) == 1
    assert line_chart("Loss", [1], [("val", "val", [math.nan])], chosen=1) is None


def test_heat_map_places_a_cell_for_each_pair_that_occurs() -> None:
    counts_KK = np.array([[1, 3, 0], [0, 2, 0], [0, 0, 0]])
    shares_KK = np.array([[0.25, 0.75, 0], [0, 1, 0], [np.nan] * 3])
    heat = heat_map(shares_KK, counts_KK, ["a", "b", "c"])
    places = {
        (round((c.y - heat.top) / heat.cell), round((c.x - heat.left) / heat.cell)): (c.level, c.right, c.text)
        for c in heat.cells
    }
    assert places == {
        (0, 0): (math.ceil(0.25 * LEVELS), True, "25"),
        (0, 1): (math.ceil(0.75 * LEVELS), False, "75"),
        (1, 1): (LEVELS, True, "100"),
    }
    assert heat.empty_rows == (2,)


def test_heat_map_of_101_classes_fits_a_laptop() -> None:
    counts_KK = np.ones((101, 101), dtype=np.int64)
    heat = heat_map(counts_KK / 101, counts_KK, [f"a class with a rather long name {k}" for k in range(101)])
    assert heat.width < 970
    assert len(heat.cells) == 101 * 101


def test_shortened_keeps_short_and_cuts_long_texts() -> None:
    assert shortened("harp", 4) == "harp"
    assert shortened("harps", 4) == "har…"
