"""Means and standard deviations over seeds, against numbers by hand."""

from __future__ import annotations

import pytest

from heads.runs.seeds import Spread, spreads


def test_spread_mean_and_sample_deviation_by_hand() -> None:
    spread = Spread(values=(0.5, 0.7, 0.9))
    assert spread.mean == pytest.approx(0.7)
    # Squares 0.04, 0, 0.04 over n - 1 = 2.
    assert spread.sd == pytest.approx(0.2)


def test_spread_of_one_value_has_no_deviation() -> None:
    assert (Spread(values=(0.5,)).mean, Spread(values=(0.5,)).sd) == (0.5, None)
    with pytest.raises(ValueError, match="at least one"):
        Spread(values=())


def test_spreads_of_runs_by_split_and_metric_without_counts() -> None:
    runs = [{"val": {"accuracy": a, "items": 4}, "test": {"accuracy": 1.0}} for a in (0.2, 0.4)]
    assert spreads(runs) == {
        "val": {"accuracy": Spread(values=(0.2, 0.4))},
        "test": {"accuracy": Spread(values=(1.0, 1.0))},
    }


def test_spreads_of_runs_that_differ_in_metrics_raise() -> None:
    with pytest.raises(ValueError, match="same splits and metrics"):
        spreads([{"val": {"accuracy": 0.5}}, {"val": {"segment_map": 0.5}}])
