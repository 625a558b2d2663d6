"""Events are exact half-open intervals; predictions are finite."""

from __future__ import annotations

from fractions import Fraction

import pytest

from catalog.event import Event, Prediction


@pytest.mark.parametrize(("start_s", "end_s"), [(1, 1), (2, 1), (-1, 1)])
def test_event_that_is_empty_reversed_or_before_zero_is_refused(start_s: int, end_s: int) -> None:
    with pytest.raises(ValueError, match="0 <= start_s < end_s"):
        Event(start_s=Fraction(start_s), end_s=Fraction(end_s), label="Bark")


def test_event_with_float_times_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Event\.end_s must be exact"):
        Event(start_s=Fraction(0), end_s=0.1, label="Bark")  # type: ignore[arg-type] # the point of the test


def test_event_without_label_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a label"):
        Event(start_s=Fraction(0), end_s=Fraction(1), label="")


@pytest.mark.parametrize(
    ("start_s", "end_s", "score"),
    [
        (1.0, 1.0, 0.5),
        (2.0, 1.0, 0.5),
        (float("nan"), 1.0, 0.5),
        (0.0, float("inf"), 0.5),
        (-float("inf"), 1.0, 0.5),
        (0.0, 1.0, float("nan")),
        (0.0, 1.0, float("inf")),
    ],
)
def test_prediction_that_is_empty_or_not_finite_is_refused(start_s: float, end_s: float, score: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Prediction(video_id="a", start_s=start_s, end_s=end_s, label="Bark", score=score)


def test_prediction_before_zero_is_allowed() -> None:
    # A regression head may place a start before the clip; suppression and scoring cut it.
    assert Prediction(video_id="a", start_s=-0.5, end_s=1.0, label="Bark", score=-3.0).start_s == -0.5
