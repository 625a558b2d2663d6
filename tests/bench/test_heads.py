"""The bench of heads: FLOP against counts by hand; every head that is trained has a row."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench import heads
from heads.registry import names, spec


def test_flop_of_linear_layers_are_those_of_hand() -> None:
    items, seconds, width = 4, heads.SECONDS, 1024 + 1024
    # Forward, and the weights' gradient; features need none. The loss has a few small products of its own.
    want = 2 * 2 * items * seconds * width * heads.NUM_CLASSES
    assert heads.step("linear", batch=items, rounds=1).flop == pytest.approx(want, rel=2e-3)


def test_flop_of_an_lstm_are_those_of_hand() -> None:
    lstm = nn.LSTM(7, 5, batch_first=True, bidirectional=True)
    x = torch.randn(3, 10, 7)
    forward = 2 * (2 * 3 * 10 * 4 * 5 * (7 + 5))
    assert heads.flop_of(lambda: lstm(x)) == forward
    assert heads.flop_of(lambda: torch.autograd.backward(lstm(x)[0].sum())) == 3 * forward


def test_flop_of_attention_are_those_of_hand() -> None:
    query, key, value = (torch.randn(2, 3, 8, 4, requires_grad=True) for _ in range(3))

    def run() -> None:
        torch.autograd.backward(nn.functional.scaled_dot_product_attention(query, key, value).sum())

    one = 2 * 2 * 3 * 8 * 8 * 4
    assert heads.flop_of(run) == 2 * one + 5 * one


@pytest.mark.slow
def test_every_head_that_is_trained_is_measured() -> None:
    for name in names():
        if name != "ov_avel_free" and spec(name).task == "segments":  # dense heads: test_dense.py
            step = heads.step(name, batch=2, rounds=1)
            assert min(step.flop, step.spent_s, step.matmul_s) > 0, name
