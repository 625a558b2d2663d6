"""CMBS's attention over places against a slow loop of its equations, and its laws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from heads.models.cmbs.channel_spatial_attention import ChannelSpatialAttention


def softmax(scores: list[Tensor]) -> list[Tensor]:
    total = sum((s.exp() for s in scores), start=torch.zeros(()))
    return [s.exp() / total for s in scores]


def slow(block: ChannelSpatialAttention, places: Tensor, sound: Tensor) -> Tensor:
    """One segment, place by place."""
    mixed = []
    for place in places:
        weights = softmax([block.query(place) @ block.key(other) for other in places])
        mixed.append(
            block.norm(place + torch.stack([w * block.value(o) for w, o in zip(weights, places, strict=True)]).sum(0))
        )
    mean = torch.relu(block.own_mean(torch.stack(mixed).mean(0)))
    weights = softmax([block.own_score(torch.relu(block.own_places(m)) * mean)[0].tanh() for m in mixed])
    own = torch.stack([w * m for w, m in zip(weights, mixed, strict=True)]).sum(0)

    heard = torch.relu(block.channel_audio(sound))
    together = torch.stack([heard * torch.relu(block.channel_places(m)) for m in mixed]).mean(0)
    gate = torch.sigmoid(block.channel_gate(torch.relu(block.channel_inner(together))))
    chosen = [place * (1 + gate) for place in places]

    heard = torch.relu(block.audio(sound))
    weights = softmax([block.audio_score(torch.relu(block.audio_places(c)) * heard)[0].tanh() for c in chosen])
    out = torch.stack([w * c for w, c in zip(weights, chosen, strict=True)]).sum(0)
    return out + block.beta * torch.sigmoid(own) * out


def block_of(visual: int = 9) -> ChannelSpatialAttention:
    torch.manual_seed(0)
    block = ChannelSpatialAttention(visual, 4, hidden=6).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def test_forward_equals_slow_loop_over_places() -> None:
    block = block_of()
    visual, audio = torch.randn(2, 3, 5, 9), torch.randn(2, 3, 4)
    with torch.inference_mode():
        got = block(visual, audio)
        for b in range(2):
            for t in range(3):
                torch.testing.assert_close(got[b, t], slow(block, visual[b, t], audio[b, t]), rtol=1e-4, atol=1e-5)


def test_order_of_places_does_not_matter_and_sound_does() -> None:
    block = block_of()
    visual, audio = torch.randn(2, 3, 5, 9), torch.randn(2, 3, 4)
    got = block(visual, audio)
    torch.testing.assert_close(block(visual[:, :, torch.randperm(5)], audio), got, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(block(visual, audio.flip(1)), got, atol=1e-3)


def test_one_place_and_narrow_features_work() -> None:
    assert block_of(3)(torch.randn(2, 3, 1, 3), torch.randn(2, 3, 4)).shape == (2, 3, 3)


def test_published_sizes_of_layers() -> None:
    with torch.device("meta"):
        block = ChannelSpatialAttention(512, 128)
    assert tuple(block.query.weight.shape) == (128, 512)
    assert tuple(block.channel_inner.weight.shape) == (256, 512)


def test_init_wrong_width_raises() -> None:
    with pytest.raises(ValueError, match="widths of at least 1"):
        ChannelSpatialAttention(0, 4)
