"""The temporal layer against the published one under stored weights, and its laws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from heads.models.ov_avel.temporal_layer import TemporalLayer

# The golden's names and ours.
NAMES = {
    "self_attn.q": "query",
    "self_attn.k": "key",
    "self_attn.v": "value",
    "self_attn.o": "output",
    "ffn.w_1": "inner",
    "ffn.w_2": "outer",
    "norm1": "attention_norm",
    "norm2": "feedforward_norm",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "norm": {"signed_root_norm": True},
    # Two attention heads, the distance bias, and a local window of four (two before, one after) mixed half and half.
    "adj_mask_h2": {"num_heads": 2, "distance_bias": True, "local_window": 4},
}


@pytest.mark.parametrize("case", OPTIONS)
def test_forward_published_weights_equal_golden(shared: Path, case: str) -> None:
    with np.load(shared / "parity" / "heads" / "ovavel" / "ovavel.npz", allow_pickle=False) as arrays:
        prefix = f"temporal/{case}/"
        golden = {k.removeprefix(prefix): torch.from_numpy(arrays[k]) for k in arrays if k.startswith(prefix)}
    weights = {k.removeprefix("w/"): v for k, v in golden.items() if k.startswith("w/")}
    state = {f"{ours}.{kind}": weights[f"{theirs}.{kind}"] for theirs, ours in NAMES.items() for kind in KINDS}
    if case == "adj_mask_h2":
        state["distance"] = torch.cat([weights["loc_adj.w"], weights["loc_adj.b"]])
        state["alpha"] = weights["self_attn.alpha"][0]
    hidden, width = weights["self_attn.q.weight"].shape
    layer = TemporalLayer(width, hidden=hidden, feedforward=len(weights["ffn.w_1.bias"]), **OPTIONS[case]).eval()
    layer.load_state_dict(state)
    got = layer(golden["x"], torch.ones(golden["x"].shape[:2], dtype=torch.bool))
    torch.testing.assert_close(got, golden["y"], atol=5e-5, rtol=0)


KINDS = ("weight", "bias")


def test_parameters_of_two_published_layers_are_as_counted() -> None:
    # 4,209,158 take part as published, six of them scalars a modality's layer does not use here: alpha, w and b.
    assert 2 * sum(p.numel() for p in TemporalLayer(1024).parameters()) == 4_209_158 - 6


def slow_layer(layer: TemporalLayer, x: Tensor, attend: Tensor, context: Tensor) -> Tensor:
    """One item, segment by segment, plain form with one attention head."""
    rows = []
    for t in range(len(x)):
        total, weights = torch.zeros(()), []
        for s in range(len(context)):
            logit = layer.query(x[t]) @ layer.key(context[s]) / 16**0.5
            weights.append(logit.exp() if attend[s] else torch.zeros(()))
            total = total + weights[-1]
        taken = torch.zeros(16)
        for s in range(len(context)):
            if attend[s]:
                taken = taken + weights[s] / total * layer.value(context[s])
        y = layer.attention_norm(x[t] + layer.output(taken))
        rows.append(layer.feedforward_norm(y + layer.outer(layer.inner(y).clamp(min=0))))
    return torch.stack(rows)


def test_forward_own_and_other_segments_equal_slow_loop() -> None:
    torch.manual_seed(0)
    layer = TemporalLayer(12, hidden=16, feedforward=8).eval()
    x, other = torch.randn(3, 5, 12), torch.randn(3, 7, 12)
    own_mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)
    other_mask = torch.rand(3, 7) < 0.5
    with torch.inference_mode():
        own, crossed = layer(x, own_mask), layer(x, other_mask, other)
        for b in range(3):
            torch.testing.assert_close(own[b], slow_layer(layer, x[b], own_mask[b], x[b]), atol=1e-5, rtol=0)
            torch.testing.assert_close(crossed[b], slow_layer(layer, x[b], other_mask[b], other[b]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", OPTIONS)
def test_forward_padding_changes_no_real_segment(case: str) -> None:
    torch.manual_seed(1)
    layer = TemporalLayer(12, hidden=16, feedforward=8, **OPTIONS[case]).eval()
    x, mask = torch.randn(2, 9, 12), torch.arange(9) < 6
    short = layer(x[:, :6], torch.ones(2, 6, dtype=torch.bool))
    torch.testing.assert_close(layer(x, mask.expand(2, 9))[:, :6], short, atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", OPTIONS)
def test_backward_nothing_to_attend_to_gives_finite_gradients(case: str) -> None:
    torch.manual_seed(2)
    layer = TemporalLayer(12, hidden=16, feedforward=8, **OPTIONS[case])
    layer(torch.zeros(1, 4, 12), torch.zeros(1, 4, dtype=torch.bool)).square().sum().backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in layer.parameters())


def test_forward_dropout_acts_in_training_only() -> None:
    torch.manual_seed(3)
    layer = TemporalLayer(12, hidden=16, feedforward=64, dropout=0.5)
    x, mask = torch.randn(1, 4, 12), torch.ones(1, 4, dtype=torch.bool)
    assert not torch.equal(layer(x, mask), layer(x, mask))
    layer.eval()
    assert torch.equal(layer(x, mask), layer(x, mask))


@pytest.mark.parametrize(
    "wrong", [{"width": 0}, {"hidden": 10, "num_heads": 4}, {"dropout": 1.0}, {"local_window": 0}, {"feedforward": 0}]
)
def test_init_wrong_size_raises(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"needs positive widths|local_window must be above 0"):
        TemporalLayer(**({"width": 12} | wrong))


def test_forward_context_with_norm_over_time_raises() -> None:
    layer = TemporalLayer(4, signed_root_norm=True)
    with pytest.raises(ValueError, match="takes no context"):
        layer(torch.zeros(1, 2, 4), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, 4))
