"""The audio-visual transformer against its equations by hand for each item alone; see also test_baselines."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from heads import registry as model
from heads.features import FeatureBatch
from heads.models.av_transformer.head import SPEC, AudioVisualTransformer, sinusoid
from heads.spec import HeadInput

SMALL: dict[str, Any] = {
    "visual_width": 6,
    "audio_width": 5,
    "num_classes": 4,
    "modality": "both",
    "width": 8,
    "num_heads": 2,
    "feedforward": 12,
    "standardise": False,
}
COUNTS = (10, 7, 1)
MASK = torch.arange(10) < torch.tensor(COUNTS)[:, None]


def built(**options: Any) -> AudioVisualTransformer:
    head = model.build("av_transformer", AudioVisualTransformer.Config(**(SMALL | options)), seed=1)
    assert isinstance(head, AudioVisualTransformer)
    return head.eval()


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_forward_equals_each_item_by_hand(layers: int) -> None:
    head = built(layers=layers)
    torch.manual_seed(0)
    visual, audio = torch.randn(3, 10, 4, 6), torch.randn(3, 10, 5)
    got = head(FeatureBatch.of(visual, audio, MASK))
    for b, count in enumerate(COUNTS):
        mask = torch.ones(1, count, dtype=torch.bool)
        position = torch.tensor(
            [
                [math.sin(t / 10_000 ** (2 * i / 8)) for i in range(4)]
                + [math.cos(t / 10_000 ** (2 * i / 8)) for i in range(4)]
                for t in range(count)
            ]
        )
        v = head.attend(visual[b : b + 1, :count], audio[b : b + 1, :count], mask) + position
        a = head.audio_map(audio[b : b + 1, :count]) + position
        for i in range(layers):
            v, a = head.visual_layers[i](v, mask, a, mask), head.audio_layers[i](a, mask, v, mask)
        wanted = head.classify(torch.relu(head.inner(torch.cat([v, a], dim=-1))))
        torch.testing.assert_close(got[b, :count], wanted[0], rtol=0, atol=1e-5)


def test_seconds_without_picture_are_not_looked_at() -> None:
    head = built(layers=0)
    torch.manual_seed(0)
    visual, audio, mask = torch.randn(1, 5, 4, 6), torch.randn(1, 5, 5), torch.ones(1, 5, dtype=torch.bool)
    valid = torch.tensor([[True, True, False, True, True]])
    got = head(FeatureBatch.of(visual, audio, mask, valid))
    # Zeros that were looked at would pull the neighbours' weighted means towards zero.
    looked_at = head(FeatureBatch.of(torch.where(valid[..., None, None], visual, 0.0), audio, mask))
    assert ((got - looked_at).abs().amax(dim=-1)[0] > 1e-4).tolist() == [False, True, True, True, False]


def test_sinusoid_is_one_row_a_segment() -> None:
    assert sinusoid(3, 8).shape == (3, 8)
    assert len(set(map(tuple, sinusoid(60, 8).tolist()))) == 60


def test_configure_shapes_of_a_store_give_the_stated_reading() -> None:
    config = AudioVisualTransformer.Config.for_features(
        HeadInput(visual_shape=(7, 7, 512), audio_shape=(128,), num_classes=29, modality="both")
    )
    assert (config.width, config.num_heads, config.feedforward, config.layers, config.reach) == (256, 4, 1024, 2, 1)
    assert config.standardise
    assert SPEC.training["optimiser"] == "adamw"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"width": 9, "num_heads": 3}, "width must be a multiple of 2"),
        ({"width": 10, "num_heads": 4}, "a multiple of num_heads"),
        ({"reach": -1}, "reach must be at least 0"),
        ({"layers": 2**25}, "layers must be at most 16777216"),
        ({"dropout": -0.1}, "dropout must be at least 0"),
    ],
)
def test_config_wrong_field_raises(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        AudioVisualTransformer.Config(**(SMALL | wrong))
