"""The bench of dense heads, at sizes that take no time: what it counts, and what it says beside published code."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import dense
from bench.measurement import about, names
from heads.registry import names as head_names
from heads.registry import spec

SMALL = {
    "loco": {"width": 16, "levels": 2, "num_heads": 2},
    "unav": {"width": 16, "levels": 2, "hidden": 16, "class_width": 4},
    "action_former": {"width": 16, "levels": 2, "hidden": 16},
    "tri_det": {"width": 16, "levels": 2, "hidden": 16, "inner": 16},
}


def small(case: dense.Case, batch: int) -> dense.Figures:
    return dense.figures(
        replace(case, changes=SMALL[case.head] | dict(case.changes), batch=batch),
        segments=16,
        video_segments=8,
        width=6,
        rounds=1,
    )


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[] if c.head == "loco" else pytest.mark.slow, id=c.label) for c in dense.CASES],
)
def test_flop_of_a_step_grow_with_the_batch_and_all_is_told(case: dense.Case) -> None:
    one, two = small(case, 1), small(case, 2)
    assert min(one.flop, one.step_s, one.video_s, one.matmul_s, one.parameters) > 0
    # LCC's matrix grows with the square of the batch, everything else with the batch.
    assert two.flop >= 2 * one.flop
    if case.head != "loco":
        assert two.flop == 2 * one.flop
    assert two.parameters == one.parameters


def test_figures_stand_beside_published_ones_where_there_are_some() -> None:
    one = dense.Figures(flop=3 * 10**9, step_s=2.0, video_s=0.5, matmul_s=1.0, parameters=10**6)
    bare, known = dense.CASES[0], dense.CASES[1]
    assert [(m.value, m.unit) for m in dense._measurements(bare, one)] == [(0.5, "x"), (0.5, "CPU s")]
    assert [(m.value, m.unit) for m in dense._measurements(known, one)] == [(0.5, "x"), (12.7 / 2, "x"), (0.5, "x")]


def test_every_dense_head_but_that_of_texts_is_measured() -> None:
    assert "dense" in names()
    assert about("dense") == dense.ABOUT
    dense_heads = {name for name in head_names() if spec(name).task == "events"} - {"loco_texts"}
    assert {case.head for case in dense.CASES} == dense_heads
