"""A training step of each head at 128 items of 10 s: its FLOP, and the time they take at the machine's matmul rate.

FLOP are those of matrix products, convolutions, attention and LSTMs, counted while the step runs (2 a multiply-add);
what is element-wise counts nothing, so a head of much softmax stays further from 1. The rate is that of a float32
product of square matrices, measured between the steps with as many threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.measurement import Measurement
from heads.features import FeatureBatch, Target
from heads.registry import build, configure, names, spec
from heads.spec import Head, HeadInput
from heads.training.optim import optimiser
from heads.training.settings import published_settings

ABOUT = "a training step of each head against the machine's matmul rate"

BATCH, SECONDS, NUM_CLASSES = 128, 10, 29
AIM = 0.6
_ROUNDS, _MATMUL = 7, 1024
_MAPS, _VECTORS = ((7, 7, 512), (128,)), ((1024,), (1024,))
# With the features that a head was published on.
_SHAPES: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "avel": _MAPS,
    "psp": _MAPS,
    "cmbs": _MAPS,
    "av_transformer": _MAPS,
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One head's training step.

    Attributes:
        flop: of forward, loss and backward.
        spent_s, matmul_s: least wall-clock seconds of the step, and of so many FLOP at the matmul rate.
    """

    head: str
    flop: int
    spent_s: float
    matmul_s: float


def measure(folder: Path) -> list[Measurement]:
    del folder
    threads = torch.get_num_threads()
    # Dense heads take other shapes and learn from events: `bench/dense.py`.
    trained = [name for name in names() if spec(name).needs_training and spec(name).task == "segments"]
    steps = [step(name) for name in trained]
    return [
        Measurement(
            what=f"{one.head}: matmul rate's time for its FLOP / a training step, {BATCH} x {SECONDS}",
            value=one.matmul_s / one.spent_s,
            unit="x",
            at_least=AIM,
            detail=f"{one.flop / 1e9:.2f} GFLOP, {1000 * one.spent_s:.1f} ms, "
            f"matmul {one.flop / one.matmul_s / 1e9:.0f} GFLOP/s, {threads} threads",
        )
        for one in steps
    ]


def step(name: str, *, batch: int = BATCH, rounds: int = _ROUNDS) -> Step:
    """Measures one head on made-up features of the shapes that it was published on."""
    run = _stepper(name, batch)
    flop = flop_of(run)
    left, right = torch.randn(2, _MATMUL, _MATMUL)
    spent_s = matmul_s = float("inf")
    for _ in range(rounds):
        matmul_s = min(matmul_s, _seconds(lambda: left @ right))
        spent_s = min(spent_s, _seconds(run))
        matmul_s = min(matmul_s, _seconds(lambda: left @ right))
    return Step(head=name, flop=flop, spent_s=spent_s, matmul_s=flop * matmul_s / (2 * _MATMUL**3))


def flop_of(run: Callable[[], object]) -> int:
    """FLOP of a call on the CPU; torch itself does not count its CPU kernels of attention and LSTM."""
    aten = torch.ops.aten
    counter = FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flop,
            aten.mkldnn_rnn_layer: _lstm_flop,
            aten.mkldnn_rnn_layer_backward: _lstm_backward_flop,
        },
    )
    with counter:
        run()
    return int(counter.get_total_flops())


def _stepper(name: str, batch: int) -> Callable[[], None]:
    """One training step of the head, optimiser included."""
    generator = torch.Generator().manual_seed(0)
    visual_shape, audio_shape = _SHAPES.get(name, _VECTORS)
    visual = torch.randn(batch, SECONDS, *visual_shape, generator=generator)
    audio = torch.randn(batch, SECONDS, *audio_shape, generator=generator)
    valid_BT = torch.ones(batch, SECONDS, dtype=torch.bool)
    classes_BT = torch.randint(0, NUM_CLASSES, (batch, SECONDS), generator=generator)
    target = Target(classes_BT=classes_BT, background=NUM_CLASSES - 1)
    settings = replace(published_settings(name), batch_size=batch)
    config = configure(
        name, HeadInput(visual_shape=visual_shape, audio_shape=audio_shape, num_classes=NUM_CLASSES, modality="both")
    )
    head = build(name, config).train()
    if spec(name).needs_texts:
        head.set_texts(torch.randn(NUM_CLASSES, visual_shape[-1], generator=generator))
    stepper = optimiser(
        settings.optimiser, head, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
    )

    def run() -> None:
        loss = _loss(head, FeatureBatch.of(visual, audio, valid_BT), target)
        stepper.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(head.parameters(), settings.clip_norm)
        stepper.step()

    return run


def _loss(head: Head, batch: FeatureBatch, target: Target) -> Tensor:
    sums_B, counts_B = head.loss(batch, target)
    loss: Tensor = sums_B.sum() / counts_B.sum()
    return loss


def _seconds(run: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    run()
    return time.perf_counter() - began_s


# By torch's protocol: the kernels' shapes, and whatever else they take.


def _attention_flop(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: object, **__: object) -> int:
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (width + value[3])


def _attention_backward_flop(
    grad: Sequence[int], query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: object, **__: object
) -> int:
    # The scores again, then the gradients of the scores, of values, queries and keys.
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (3 * width + 2 * value[3])


def _lstm_flop(x: Sequence[int], into: Sequence[int], within: Sequence[int], *_: object, **__: object) -> int:
    # One direction: 4 gates from the input (T, B, D) and from the state.
    return 2 * x[0] * x[1] * (into[0] * into[1] + within[0] * within[1])


def _lstm_backward_flop(x: Sequence[int], into: Sequence[int], within: Sequence[int], *_: object, **__: object) -> int:
    return 2 * _lstm_flop(x, into, within)
