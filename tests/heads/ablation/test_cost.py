"""What a forward pass costs, by hand where a head is small enough, and by laws where it is not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from heads.ablation.cost import cost
from heads.registry import build, configure, plugin
from heads.spec import HeadInput

SMALL = {"width": 16, "levels": 2, "unimodal_layers": 1}


def fields(head: str, **changes: Any) -> dict[str, Any]:
    config = configure(head, HeadInput(visual_shape=(6,), audio_shape=(4,), num_classes=3, modality="both"))
    return dataclasses.asdict(config) | changes


def test_cost_of_a_linear_map_by_hand() -> None:
    found = cost("linear", fields("linear"), segments=7)
    # Ten numbers, and a flag for each modality.
    assert (found.parameters, found.flop, found.segments) == (12 * 3 + 3, 2 * 7 * 12 * 3, 7)


def test_cost_parameters_are_those_of_the_head_and_its_state_is_left() -> None:
    told = fields("loco", **SMALL)
    state = torch.random.get_rng_state()
    found = cost("loco", told, segments=8)
    head = build("loco", plugin("loco").Head.Config(**told))
    assert found.parameters == sum(parameter.numel() for parameter in head.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_cost_counts_attention_which_grows_with_the_square_of_the_segments() -> None:
    told = fields("loco", **SMALL, cross="global", attention_window=None, lcc="off")
    one, two, four = (cost("loco", told, segments=segments).flop for segments in (64, 128, 256))
    # Of c + a T + b T^2 this leaves 6 b T^2 (c: convolutions run over the places between levels).
    squares = (four - two) - 2 * (two - one)
    # Blocks of width 16: of 2 modalities, and of 2 streams at T and T / 2; of width 32: the decoder's at T and T / 2.
    widths = 16 * 2 + 16 * 2 * (1 + 1 / 4) + 32 * (1 + 1 / 4)
    # Two products a block, 2 FLOP a multiply-add.
    assert squares == 6 * 64**2 * 2 * 2 * widths
    local = told | {"cross": "fixed", "window": 4, "attention_window": 4}
    assert cost("loco", local, segments=128).flop < two


def test_cost_of_one_modality_is_less() -> None:
    both = cost("loco", fields("loco", **SMALL), segments=16)
    audio = cost("loco", fields("loco", **SMALL, modality="audio"), segments=16)
    assert audio.parameters < both.parameters
    assert audio.flop < both.flop


@pytest.mark.parametrize(("head", "segments"), [("linear", 0), ("loco_texts", 8)])
def test_cost_of_what_cannot_be_counted_is_refused(head: str, segments: int) -> None:
    with pytest.raises(ValueError, match="needs a segment and a head without class texts"):
        cost(head, fields(head), segments=segments)
