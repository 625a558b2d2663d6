"""Instance attention against a slow loop with every key and value made, and its laws."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from heads.models.av_transformer.instance_attention import InstanceAttention

SEEN = torch.tensor([[1, 1, 0, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)


def block_of(reach: int = 1) -> InstanceAttention:
    torch.manual_seed(0)
    block = InstanceAttention(7, 4, 6, num_heads=2, reach=reach).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def slow(block: InstanceAttention, visual: Tensor, audio: Tensor, seen: Tensor, t: int) -> Tensor:
    """One segment of one item: visual (T, R, V), audio (T, A)."""
    query, heads = block.query(audio[t]).reshape(2, 3), []
    for h in range(2):
        logits, values = [], []
        for offset in range(-block.reach, block.reach + 1):
            if 0 <= t + offset < len(visual) and seen[t + offset]:
                for place in visual[t + offset]:
                    key = block.key(place).reshape(2, 3)[h]
                    logits.append(query[h] @ key / math.sqrt(3) + block.offset_OH[offset + block.reach, h])
                    values.append(block.value(place).reshape(2, 3)[h])
        if not logits:
            return torch.as_tensor(block.norm(block.mean(visual[t].mean(dim=0))))
        heads.append(torch.stack(logits).softmax(dim=0) @ torch.stack(values))
    return torch.as_tensor(block.norm(block.mean(visual[t].mean(dim=0)) + block.output(torch.cat(heads))))


@pytest.mark.parametrize("reach", [0, 1, 2, 7])
def test_forward_equals_slow_loop_over_places(reach: int) -> None:
    block = block_of(reach)
    visual, audio = torch.randn(3, 5, 3, 7), torch.randn(3, 5, 4)
    visual[~SEEN] = 0
    with torch.inference_mode():
        got = block(visual, audio, SEEN)
        for b in range(3):
            for t in range(5):
                wanted = slow(block, visual[b], audio[b], SEEN[b], t)
                torch.testing.assert_close(got[b, t], wanted, rtol=0, atol=1e-5)


def test_sound_finds_an_instance_in_the_neighbouring_second() -> None:
    block = block_of()
    visual, audio = torch.randn(1, 5, 3, 7), torch.randn(1, 5, 4)
    mask = torch.ones(1, 5, dtype=torch.bool)
    before = block(visual, audio, mask)
    visual[0, 2, 1] += 3.0
    moved = (block(visual, audio, mask) - before).abs().amax(dim=-1)[0]
    assert (moved > 1e-4).tolist() == [False, True, True, True, False]


def test_gradients_are_finite_where_nothing_is_seen() -> None:
    block = block_of()
    torch.autograd.backward(block(torch.zeros(3, 5, 3, 7), torch.randn(3, 5, 4), SEEN).sum())
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in block.parameters())


@pytest.mark.parametrize("wrong", [{"width": 7}, {"reach": -1}, {"visual_width": 0}])
def test_init_wrong_field_raises(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="instance attention needs widths"):
        InstanceAttention(**({"visual_width": 7, "audio_width": 4, "width": 6, "num_heads": 2} | wrong))
