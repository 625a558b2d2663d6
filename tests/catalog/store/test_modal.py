"""Features with their validity: joining, filling and the one check of values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.store.modal import Features, Modal

NAN, INF = float("nan"), float("inf")


def modal(values: Sequence[float], valid: Sequence[bool], dtype: str = "float32") -> Modal:
    """Rows of two numbers, the second 0 except where the first is NaN."""
    first = np.array(values, dtype)
    return Modal(values=np.stack([first, np.where(np.isnan(first), first, 0)], axis=1), valid=np.array(valid, bool))


@given(
    rows=st.lists(st.tuples(st.sampled_from([0.0, -3.5, 65504.0, 65520.0, 1e5, INF, -INF, NAN]), st.booleans())),
    storage=st.sampled_from([None, "float16", "float32"]),
)
def test_faults_equal_a_slow_loop(rows: list[tuple[float, bool]], storage: str | None) -> None:
    infinite, unknown = modal([v for v, _ in rows], [flag for _, flag in rows]).faults(storage)
    most = 65519 if storage == "float16" else INF  # float16 rounds 65,520 to infinity
    assert infinite.tolist() == [
        i for i, (v, flag) in enumerate(rows) if (flag and not -most <= v <= most) or (flag and abs(v) == INF)
    ]
    assert unknown.tolist() == [i for i, (v, flag) in enumerate(rows) if not flag and v == v]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_faults_of_maps_look_at_every_value_of_a_row(dtype: str) -> None:
    values = np.zeros((4, 2, 3), dtype)
    values[1, 1, 2] = np.inf
    values[2] = np.nan
    values[3] = np.nan
    values[3, 0, 1] = 0
    made = Modal(values=values, valid=np.array([True, True, False, False]))
    assert [rows.tolist() for rows in made.faults()] == [[1], [3]]


@pytest.mark.parametrize(
    ("made", "shape", "storage", "message"),
    [
        (modal([1, 2], [True] * 3), None, None, r"needs 2 validity flags, got bool \(3,\)"),
        (
            Modal(values=np.zeros((2, 2)), valid=np.array([1, 1])),
            None,
            None,
            r"needs 2 validity flags, got int64 \(2,\)",
        ),
        (modal([1], [True] * 2), None, None, r"needs floats \(2, 2\), got float32 \(1, 2\)"),
        (modal([1, 2], [True] * 2), (3,), None, r"needs floats \(2, 3\), got float32 \(2, 2\)"),
        (modal([1, 2], [True] * 2, "int64"), None, None, r"needs floats \(2, 2\), got int64 \(2, 2\)"),
        (modal([1, NAN], [True] * 2), None, None, "row 1 is valid and not finite in float32"),
        (modal([1, 1e5], [True] * 2), None, "float16", "row 1 is valid and not finite in float16"),
        (modal([1, 0], [True, False]), None, None, "row 1 is not valid and not NaN"),
    ],
)
def test_check_refuses(made: Modal, shape: tuple[int, ...] | None, storage: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made.check(2, shape, storage=storage)


def test_check_takes_good_rows_and_none() -> None:
    modal([1, NAN], [True, False]).check(2, (2,), storage="float16")
    Modal(values=np.zeros((0, 6), np.float32), valid=np.zeros(0, bool)).check(0, (6,))


def test_filled_changes_the_rows_that_are_not_valid_alone() -> None:
    made = modal([1, NAN, 3], [True, False, True], "float16")
    filled = made.filled(0)
    assert filled.dtype == np.float16
    assert filled.tolist() == [[1, 0], [0, 0], [3, 0]]
    assert np.isnan(made.values[1]).all()


def test_join_of_features_keeps_order_and_refuses_a_modality_that_some_lack() -> None:
    one = Features(visual=modal([1], [True]), audio=None)
    two = Features(visual=modal([NAN, 3], [False, True]), audio=None)
    joined = Features.join([one, two])
    assert joined.visual is not None
    np.testing.assert_array_equal(joined.visual.values[:, 0], [1, NAN, 3])
    assert joined.visual.valid.tolist() == [True, False, True]
    assert joined.audio is None
    with pytest.raises(ValueError, match="audio features are missing from 1 of 2 windows"):
        Features.join([one, Features(visual=one.visual, audio=modal([1], [True]))])


def test_modalities_are_those_there_are() -> None:
    audio = modal([1], [True])
    made = Features(visual=None, audio=audio)
    assert list(made.modalities()) == [("audio", audio)]
    assert (made.modal("visual"), made.modal("audio"), made.nbytes) == (None, audio, 8)
