"""Event-guided refinement put together by hand, its options, and its laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from heads.models.ave_clip.egta import EventAttention, EventRefinement, event_cross_entropy
from heads.models.ave_clip.mwtf import MultiWindowFusion

RAGGED = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]], dtype=torch.bool)


def test_forward_equals_equations_13_to_15_and_the_refiner() -> None:
    torch.manual_seed(0)
    refine = EventRefinement(8, 4)
    assert refine.event is not None
    assert refine.fusion is not None
    x = torch.randn(3, 6, 8)
    got, logits = refine(x, RAGGED)
    for b, count in enumerate((6, 4, 1)):
        alone = x[b : b + 1, :count]
        gamma = refine.event.lstm.lstm(refine.event.norm(alone))[0]
        score = (gamma @ refine.event.score.weight[0] + refine.event.score.bias)[0]
        alpha = 1 / (1 + (-score).exp())
        wanted = refine.fusion(alone * alpha[None, :, None], torch.ones(1, count, dtype=torch.bool))
        torch.testing.assert_close(logits[b, :count], score, rtol=0, atol=1e-6)
        torch.testing.assert_close(got[b, :count], wanted[0], rtol=0, atol=1e-6)
    assert refine.fusion.windows == MultiWindowFusion(8, 4, windows="T").windows


@pytest.mark.parametrize(("windows", "width"), [("T", 4), ("10", 4), ("5", 4), ("10,5", 8), ("", 4)])
@pytest.mark.parametrize("masked", [True, False])
def test_refiner_of_table_6_or_without_gives_its_width(windows: str, width: int, masked: bool) -> None:
    refine = EventRefinement(8, 4, windows=windows, masked=masked)
    got, logits = refine(torch.randn(3, 6, 8), RAGGED)
    assert got.shape == (3, 6, width)
    assert refine.output_width == width
    assert (logits is None) == (not masked)


def test_options_reach_the_refiner() -> None:
    options: dict[str, Any] = {"attention": "feature", "shared": False, "residual": False}
    refine = EventRefinement(8, 4, windows="3,T", **options)
    assert refine.fusion is not None
    assert refine.fusion.attention == "feature"
    assert len(refine.fusion.projections) == 2
    assert not any("residual" in name for name, _ in refine.named_parameters())


def test_without_windows_is_a_linear_map_of_the_masked_input() -> None:
    torch.manual_seed(1)
    refine = EventRefinement(8, 4, windows="")
    assert refine.linear is not None
    x = torch.randn(3, 6, 8)
    got, logits = refine(x, RAGGED)
    wanted = (x * logits.sigmoid()[..., None]) @ refine.linear.weight.T + refine.linear.bias
    torch.testing.assert_close(got, wanted.clamp(min=0), rtol=0, atol=1e-6)


def test_event_cross_entropy_equals_slow_loop() -> None:
    torch.manual_seed(2)
    logits, event = torch.randn(3, 6), torch.rand(3, 6) < 0.5
    sums, counts = event_cross_entropy(logits, event, RAGGED)
    for b in range(3):
        wanted = torch.zeros(())
        for t in range(6):
            if RAGGED[b, t]:
                p = 1 / (1 + (-logits[b, t]).exp())
                wanted = wanted - (p if event[b, t] else 1 - p).log()
        torch.testing.assert_close(sums[b], wanted, rtol=0, atol=1e-5)
        assert counts[b] == RAGGED[b].sum()


def test_init_odd_width_raises() -> None:
    with pytest.raises(ValueError, match="even width, got 5"):
        EventAttention(8, 5)
