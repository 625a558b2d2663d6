"""Layers across modalities against torch's own modules, item by item, and their laws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from heads.blocks.cross_modal_layer import CrossModalLayer, ModalityInteraction, MultiHeadAttention

MASK = torch.arange(6) < torch.tensor([6, 4, 1])[:, None]
CONTEXT_MASK = torch.arange(9) < torch.tensor([3, 9, 5])[:, None]


def torch_attention(mine: MultiHeadAttention, width: int) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(width, mine.num_heads, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": mine.projection.weight,
            "in_proj_bias": mine.projection.bias,
            "out_proj.weight": mine.output.weight,
            "out_proj.bias": mine.output.bias,
        }
    )
    return theirs.eval()


def random_biases(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)


def inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x, context = torch.randn(3, 6, 8), torch.randn(3, 9, 8)
    x[~MASK], context[~CONTEXT_MASK] = 1e3, -1e3
    return x, context


def test_layer_over_its_own_segments_equals_torch_encoder_layer() -> None:
    x, _ = inputs()
    layer = CrossModalLayer(8, num_heads=2, feedforward=12).eval()
    random_biases(layer)
    theirs = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True).eval()
    theirs.self_attn = torch_attention(layer.attention, 8)
    for name, mine in (
        ("linear1", layer.inner),
        ("linear2", layer.outer),
        ("norm1", layer.attention_norm),
        ("norm2", layer.feedforward_norm),
    ):
        theirs.get_submodule(name).load_state_dict(mine.state_dict())
    got = layer(x, MASK)
    for b in range(3):
        wanted = theirs(x[b : b + 1][:, MASK[b]])
        torch.testing.assert_close(got[b][MASK[b]], wanted[0], rtol=0, atol=1e-5)


def test_layer_with_context_attends_to_both_and_no_padding() -> None:
    x, context = inputs()
    layer = CrossModalLayer(8, num_heads=4, feedforward=12).eval()
    random_biases(layer)
    got = layer(x, MASK, context, CONTEXT_MASK)
    theirs = torch_attention(layer.attention, 8)
    for b in range(3):
        query = x[b : b + 1][:, MASK[b]]
        both = torch.cat([context[b : b + 1][:, CONTEXT_MASK[b]], query], dim=1)
        y = layer.attention_norm(query + theirs(query, both, both)[0])
        wanted = layer.feedforward_norm(y + layer.outer(torch.relu(layer.inner(y))))
        torch.testing.assert_close(got[b][MASK[b]], wanted[0], rtol=0, atol=1e-5)


def test_interaction_is_the_product_attending_to_both() -> None:
    one, context = inputs()
    other = context[:, :6].clone()
    other[~MASK] = 7.0
    block = ModalityInteraction(8, num_heads=2).eval()
    random_biases(block)
    got = block(one, other, MASK)
    theirs = torch_attention(block.attention, 8)
    for b in range(3):
        first, second = one[b : b + 1][:, MASK[b]], other[b : b + 1][:, MASK[b]]
        both = torch.cat([first, second], dim=1)
        wanted = block.norm(first * second + theirs(first * second, both, both)[0])
        torch.testing.assert_close(got[b][MASK[b]], wanted[0], rtol=0, atol=1e-5)


def test_attention_to_nothing_gives_the_bias_and_finite_gradients() -> None:
    x, _ = inputs()
    x.requires_grad_()
    attention = MultiHeadAttention(8, 2).eval()
    random_biases(attention)
    mask = MASK.clone()
    mask[1] = False
    got = attention(x, x, mask)
    torch.testing.assert_close(got[1], attention.output.bias.expand(6, 8))
    torch.autograd.backward(got.sum())
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


def test_init_begins_as_torch_does() -> None:
    torch.manual_seed(3)
    mine = MultiHeadAttention(16, 4)
    theirs = nn.MultiheadAttention(16, 4)
    bound = (6 / (16 + 3 * 16)) ** 0.5
    for weight in (mine.projection.weight, theirs.in_proj_weight):
        assert 0.95 * bound < weight.abs().max().item() <= bound
    assert not mine.projection.bias.any()
    assert not mine.output.bias.any()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_acts_in_training_only(dropout: float) -> None:
    x, context = inputs()
    attention = MultiHeadAttention(8, 2, dropout=dropout)
    assert torch.allclose(attention.eval()(x, x, MASK), attention.train()(x, x, MASK)) == (dropout == 0.0)
    layer = CrossModalLayer(8, num_heads=2, feedforward=12, dropout=dropout)
    calm = layer.eval()(x, MASK, context, CONTEXT_MASK)
    trained = layer.train()(x, MASK, context, CONTEXT_MASK)
    assert torch.allclose(calm[MASK], trained[MASK]) == (dropout == 0.0)


@pytest.mark.parametrize(("width", "heads", "dropout"), [(0, 1, 0.1), (8, 3, 0.1), (8, 0, 0.1), (8, 2, 1.0)])
def test_init_wrong_field_raises(width: int, heads: int, dropout: float) -> None:
    with pytest.raises(ValueError, match="attention needs a width that is a positive multiple"):
        MultiHeadAttention(width, heads, dropout=dropout)
    with pytest.raises(ValueError, match="inner width of at least 1, got 0"):
        CrossModalLayer(8, feedforward=0)
