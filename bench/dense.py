"""A training step of each dense head on ONE-PEACE features of UnAV-100's size, and a video found by it.

One thread, CPU seconds: published code was measured the same way (UnAV's, without its dependency block at batches of
16, with it at batches of 2, for more do not fit in 23 GB). A step is forward, loss, backward, clipping and AdamW; FLOP
are those of matrix products, convolutions and attention, counted while it runs (2 a multiply-add). The rate is that of
a float32 product of square matrices, measured between the steps.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from bench.heads import flop_of
from bench.measurement import Measurement
from heads.dense.decode import Decoding, decode
from heads.dense.head import DenseHead
from heads.dense.nms import Suppression, suppress
from heads.dense.points import points
from heads.features import FeatureBatch, Target
from heads.registry import build, configure, read_config
from heads.spec import HeadInput, Scalar
from heads.training.optim import optimiser
from heads.training.settings import published_settings
from pipeline.unit import one_thread

ABOUT = "a training step and a video of each dense head against the machine's matmul rate and published code"

SEGMENTS, WIDTH, NUM_CLASSES = 256, 1536, 100
# Of UnAV-100's videos: 42 s, four segments a second.
VIDEO_SEGMENTS = 165
_EVENTS = 3
_ROUNDS, _MATMUL = 2, 1024


@dataclass(frozen=True, kw_only=True)
class Case:
    """A head to be measured.

    Attributes:
        label: what it is called in the figures.
        head, changes: file name in `heads/models`, and fields of its config that are not the published ones.
        batch: items a step.
        published_step_s, published_video_s: CPU seconds of published code; None where none was measured.
    """

    label: str
    head: str
    changes: Mapping[str, Scalar] = field(default_factory=dict)
    batch: int = 16
    published_step_s: float | None = None
    published_video_s: float | None = None


CASES = (
    Case(label="loco", head="loco"),
    Case(
        label="unav without dependency",
        head="unav",
        changes={"dependency": False},
        published_step_s=12.7,
        published_video_s=0.25,
    ),
    Case(label="unav", head="unav", batch=2, published_step_s=19.4, published_video_s=2.1),
    Case(label="action_former", head="action_former"),
    Case(label="tri_det", head="tri_det"),
)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured of a case.

    Attributes:
        flop: of a step.
        step_s, video_s: least CPU seconds.
        matmul_s: CPU seconds of so many FLOP at the matmul rate.
        parameters: numbers that are learned.
    """

    flop: int
    step_s: float
    video_s: float
    matmul_s: float
    parameters: int


def measure(folder: Path) -> list[Measurement]:
    del folder
    with one_thread():
        found = [(case, figures(case)) for case in CASES]
    return [told for case, one in found for told in _measurements(case, one)]


def figures(
    case: Case,
    *,
    segments: int = SEGMENTS,
    video_segments: int = VIDEO_SEGMENTS,
    width: int = WIDTH,
    rounds: int = _ROUNDS,
) -> Figures:
    """Measures one head, on made-up features of sound and picture."""
    config = configure(
        case.head, HeadInput(visual_shape=(width,), audio_shape=(width,), num_classes=NUM_CLASSES, modality="both")
    )
    head = build(case.head, read_config(case.head, dataclasses.asdict(config) | dict(case.changes)))
    assert isinstance(head, DenseHead)
    run = _stepper(case, head, segments, width)
    flop = flop_of(run)
    left, right = torch.randn(2, _MATMUL, _MATMUL)
    step_s = matmul_s = float("inf")
    for _ in range(rounds):
        matmul_s = min(matmul_s, _cpu_s(lambda: left @ right))
        step_s = min(step_s, _cpu_s(run))
        matmul_s = min(matmul_s, _cpu_s(lambda: left @ right))
    find = _finder(head, video_segments, width)
    find()
    return Figures(
        flop=flop,
        step_s=step_s,
        video_s=min(_cpu_s(find) for _ in range(max(2, rounds))),
        matmul_s=flop * matmul_s / (2 * _MATMUL**3),
        parameters=sum(parameter.numel() for parameter in head.parameters()),
    )


def _measurements(case: Case, one: Figures) -> list[Measurement]:
    sizes = f"{case.batch} x {SEGMENTS}"
    detail = f"{one.flop / 1e9:.0f} GFLOP, {one.step_s:.2f} CPU s, {one.parameters / 1e6:.1f} M parameters"
    told = [
        Measurement(
            what=f"{case.label}: matmul rate's time for its FLOP / a training step, {sizes}",
            value=one.matmul_s / one.step_s,
            unit="x",
            detail=f"{detail}, matmul {one.flop / one.matmul_s / 1e9:.0f} GFLOP/s, 1 thread",
        )
    ]
    for what, published_s, own_s in (
        (f"a training step, {sizes}", case.published_step_s, one.step_s),
        (f"a video of {VIDEO_SEGMENTS} segments, suppression included", case.published_video_s, one.video_s),
    ):
        seconds = f"{own_s:.2f} CPU s"
        if published_s is not None:
            told.append(
                Measurement(
                    what=f"{case.label}: published code's time / {what}",
                    value=published_s / own_s,
                    unit="x",
                    detail=f"{seconds}, published {published_s:g} CPU s",
                )
            )
        elif own_s is one.video_s:
            told.append(Measurement(what=f"{case.label}: {what}", value=own_s, unit="CPU s"))
    return told


def _stepper(case: Case, head: DenseHead, segments: int, width: int) -> Callable[[], None]:
    """One training step of the head, optimiser included."""
    generator = torch.Generator().manual_seed(0)
    visual, audio = (torch.randn(case.batch, segments, width, generator=generator) for _ in range(2))
    batch = FeatureBatch.of(visual, audio, torch.ones(case.batch, segments, dtype=torch.bool))
    shape = (case.batch, _EVENTS)
    starts_BE = torch.rand(shape, generator=generator) * segments * 0.7
    ends_BE = starts_BE + 2 + torch.rand(shape, generator=generator) * segments * 0.25
    target = Target(
        events_BE2=torch.stack((starts_BE, ends_BE), dim=-1),
        event_labels_BE=torch.randint(NUM_CLASSES, shape, generator=generator),
    )
    settings = published_settings(case.head)
    stepper = optimiser(
        settings.optimiser, head, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
    )

    def run() -> None:
        head.train()
        sums_B, counts_B = head.loss(batch, target)
        stepper.zero_grad(set_to_none=True)
        torch.autograd.backward(sums_B.sum() / counts_B.sum())
        if settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(head.parameters(), settings.clip_norm)
        stepper.step()

    return run


def _finder(head: DenseHead, segments: int, width: int) -> Callable[[], None]:
    """The events of one video, as the head finds them after a few steps."""
    generator = torch.Generator().manual_seed(1)
    visual, audio = (torch.randn(1, segments, width, generator=generator) for _ in range(2))
    batch = FeatureBatch.of(visual, audio, torch.ones(1, segments, dtype=torch.bool))

    def run() -> None:
        head.eval()
        with torch.inference_mode():
            output = head(batch)
            (found,) = decode(output, points(output.counts[0], len(output.counts)), Decoding())
            suppress(found, Suppression())

    return run


def _cpu_s(run: Callable[[], object]) -> float:
    began_s = time.process_time()
    run()
    return time.process_time() - began_s
