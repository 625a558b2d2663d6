"""ActionFormer on joined features: its size, its wiring, one modality alone, and its config."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch

from heads.features import FeatureBatch
from heads.models import action_former
from heads.models.action_former import ActionFormer
from heads.spec import HeadInput

PUBLISHED = action_former.Head.Config.for_features(
    HeadInput(visual_shape=(2048,), audio_shape=None, num_classes=20, modality="both")
)
SMALL = replace(PUBLISHED, visual_width=6, audio_width=3, num_classes=4, width=8, hidden=8, levels=3, window=5)


def seeded(config: ActionFormer.Config) -> ActionFormer:
    torch.manual_seed(0)
    head = ActionFormer(config).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return head


def test_action_former_has_the_size_that_its_description_gives() -> None:
    """Its config for THUMOS14, counted by hand from the layers."""
    width, blocks, levels = 512, 7, 6
    stack = 3 * 2048 * width + 3 * width * width + 4 * width
    attention = 3 * (3 * width + 2 * width) + 4 * (width * width + width)
    block = attention + 2 * 2 * width + 2 * 4 * width * width + 5 * width + 2 * width
    tower = 2 * (3 * width * width + 2 * width)
    decoder = 2 * tower + (3 * width + 1) * 20 + (3 * width + 1) * 2 + levels
    with torch.device("meta"):
        head = ActionFormer(PUBLISHED)
    assert sum(p.numel() for p in head.parameters()) == stack + blocks * block + levels * 2 * width + decoder


@pytest.mark.parametrize("modality", ["visual", "audio"])
def test_action_former_one_modality_equals_the_joined_head_without_the_others_weights(
    modality: Literal["visual", "audio"],
) -> None:
    joined = seeded(SMALL)
    alone = ActionFormer(replace(SMALL, modality=modality)).eval()
    state = joined.state_dict()
    first = "stack.convs.0.conv.weight"
    state[first] = state[first][:, :6] if modality == "visual" else state[first][:, 6:]
    alone.load_state_dict(state)
    visual, audio, mask = torch.randn(2, 16, 6), torch.randn(2, 16, 3), torch.ones(2, 16, dtype=torch.bool)
    with torch.no_grad():
        if modality == "visual":
            got, want = (
                alone(FeatureBatch.of(visual, None, mask)),
                joined(FeatureBatch.of(visual, torch.zeros_like(audio), mask)),
            )
        else:
            got, want = (
                alone(FeatureBatch.of(None, audio, mask)),
                joined(FeatureBatch.of(torch.zeros_like(visual), audio, mask)),
            )
    torch.testing.assert_close(got.logits_BPK, want.logits_BPK, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.offsets_BPC2, want.offsets_BPC2, rtol=1e-4, atol=1e-4)


def test_action_former_sees_its_window_and_no_farther() -> None:
    """One block at full rate: window and convolutions reach 2 + 1, the stack 2, the decoder 3 segments."""
    head = seeded(replace(SMALL, levels=1, blocks=1))
    visual, audio, mask = torch.randn(1, 40, 6), torch.randn(1, 40, 3), torch.ones(1, 40, dtype=torch.bool)
    visual.requires_grad_()
    logits = head(FeatureBatch.of(visual, audio, mask)).logits_BPK
    (gradient,) = torch.autograd.grad(logits[0, 20].sum(), visual)
    seen = gradient[0].abs().sum(dim=1).nonzero().flatten().tolist()
    assert (min(seen), max(seen)) == (20 - 8, 20 + 8)


def test_action_former_with_sinusoid_tells_places_apart() -> None:
    visual, audio = torch.ones(1, 64, 6), torch.ones(1, 64, 3)
    batch = FeatureBatch.of(visual, audio, torch.ones(1, 64, dtype=torch.bool))
    logits = {on: seeded(replace(SMALL, sinusoid=on))(batch).logits_BPK[0] for on in (False, True)}
    torch.testing.assert_close(logits[False][30], logits[False][34], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits[True][30], logits[True][34], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"visual_width": 0}, "nothing to look at"),
        ({"window": 0}, "window must be at least 1"),
        ({"dropout": 1.0}, "dropout must be less than 1"),
        ({"num_heads": 3}, "width must be a multiple of num_heads"),
        ({"blocks": 1000}, "blocks must be at most 256"),
    ],
)
def test_action_former_bad_config_is_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PUBLISHED, **bad)
