"""TriDet on joined features: its size, one modality alone, its outputs' ranges, and its config."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from heads.features import FeatureBatch
from heads.models.tri_det import head as tri_det
from heads.models.tri_det.head import TriDet
from heads.spec import HeadInput

PUBLISHED = tri_det.Head.Config.for_features(
    HeadInput(visual_shape=(2048,), audio_shape=None, num_classes=20, modality="both")
)
SMALL = replace(
    PUBLISHED, visual_width=6, audio_width=3, num_classes=4, width=16, inner=8, hidden=8, levels=3, bins=4, reach=2.0
)


def seeded(config: TriDet.Config) -> TriDet:
    torch.manual_seed(0)
    head = TriDet(config).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return head


def test_tri_det_has_the_size_that_its_description_gives() -> None:
    """Its config for THUMOS14, counted by hand from the layers."""
    width, inner, levels, bins = 512, 768, 6, 16
    stack = 3 * 2048 * width + 3 * width * width + 4 * width
    block = (1 + 1 + 1 + 1 + 11 + 5) * width + 4 * width + 2 * inner * width + inner + width
    tower = 2 * (3 * width * width + 2 * width)
    towers = 4 * tower + (3 * width + 1) * (3 * 20 + 2 * (bins + 1)) + levels
    with torch.device("meta"):
        head = TriDet(PUBLISHED)
    scales = 5 * 2 * width
    assert sum(p.numel() for p in head.parameters()) == stack + 7 * block + scales + levels * 2 * width + towers


def test_tri_det_offsets_lie_within_the_bins_and_learn_through_both_parts() -> None:
    head = seeded(SMALL)
    visual, audio = torch.randn(2, 20, 6), torch.randn(2, 20, 3)
    mask = torch.arange(20) < torch.tensor([[20], [7]])
    output = head(FeatureBatch.of(visual, audio, mask))
    assert output.counts == (20, 10, 5)
    assert output.offsets_BPC2.shape == (2, 35, 4, 2)
    assert bool(((output.offsets_BPC2 >= 0) & (output.offsets_BPC2 <= 4)).all())
    output.offsets_BPC2.sum().backward()
    for part in (head.regress.start, head.regress.end, head.regress.center):
        weight = part.out.conv.weight
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0


def test_tri_det_one_modality_equals_the_joined_head_without_the_others_weights() -> None:
    joined, alone = seeded(SMALL), TriDet(replace(SMALL, modality="audio")).eval()
    state = joined.state_dict()
    first = "stack.convs.0.conv.weight"
    alone.load_state_dict(state | {first: state[first][:, 6:]})
    audio, mask = torch.randn(2, 16, 3), torch.ones(2, 16, dtype=torch.bool)
    with torch.no_grad():
        got, want = (
            alone(FeatureBatch.of(None, audio, mask)),
            joined(FeatureBatch.of(torch.zeros(2, 16, 6), audio, mask)),
        )
    torch.testing.assert_close(got.logits_BPK, want.logits_BPK, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.offsets_BPC2, want.offsets_BPC2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"visual_width": 0}, "nothing to look at"),
        ({"width": 24}, "multiple of 16"),
        ({"bins": 0}, "bins must be at least 1"),
        ({"kernel": 2}, "kernel must be odd"),
        ({"reach": float("inf")}, "reach must be a finite number"),
        ({"regression": "class_agnostic"}, "regression must be one of"),
    ],
)
def test_tri_det_bad_config_is_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PUBLISHED, **bad)
