"""Frozen networks at work: precision, each distinct frame encoded once, batches across videos.

Shape suffixes: S segments, P frames a segment, F distinct frames, B batch, H W pixels.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from catalog.recipe import Recipe
from pipeline.clips import Segments
from pipeline.preprocess import spectrogram

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Net = TypeVar("Net", bound=nn.Module)


def frozen(module: Net, device: str, *, channels_last: bool = False) -> Net:
    """The network in inference mode on `device`; its parameters take no gradient."""
    module = module.eval().requires_grad_(False).to(device)
    if channels_last:
        for parameter in module.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


@dataclass(frozen=True, kw_only=True)
class FrozenTowers:
    """Base of an encoder's towers: the recipe they are for, and where they run."""

    recipe: Recipe
    device: str

    def forward(self, network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """`network(x)` in the recipe's precision, without gradients."""
        with arithmetic(self.device, self.recipe.precision):
            return network(x)


@dataclass(frozen=True, kw_only=True)
class TokenTower:
    """A text tower that takes token ids: texts to features (K, D) float32."""

    tokenise: Callable[[Sequence[str]], NDArray[np.int64]]
    tower: nn.Module
    device: str
    precision: str

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        with arithmetic(self.device, self.precision):
            made = self.tower(torch.from_numpy(self.tokenise(texts)).to(self.device))
        return np.asarray(made.float().cpu().numpy(), np.float32)


@contextlib.contextmanager
def arithmetic(device: str, precision: str) -> Iterator[None]:
    """A forward pass without gradients in the recipe's precision.

    float32 means float32: NVIDIA's TF32, which keeps 10 bits of 23, is off inside.

    Args:
        device: torch's name.
        precision: "float32", "bfloat16" or "float16"; the latter two autocast matrix products and convolutions.
    """
    kind = torch.device(device).type
    conv, product = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    if kind == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.inference_mode(), torch.autocast(kind, dtype=_DTYPES[precision], enabled=precision != "float32"):
            yield
    finally:
        if kind == "cuda":
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = conv, product


def normalised(frames_BHWC: Tensor, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """RGB in units of 1/255, (B, H, W, 3), to float32 (B, 3, H, W), channels last in memory: a colour's mean taken off,
    divided by its deviation, both of the range [0, 1].
    """
    device = frames_BHWC.device
    shifted = frames_BHWC.float() / 255 - torch.tensor(mean, device=device)
    return (shifted / torch.tensor(deviation, device=device)).permute(0, 3, 1, 2)


def encode_frames(
    segments: Sequence[Segments],
    forward: Callable[[Tensor], Tensor],
    *,
    device: str,
    batch_frames: int,
    keep: bool = False,
) -> NDArray[np.float32]:
    """Frame features of segments; a frame that several segments see is encoded once.

    Args:
        segments: of one call of a tower; frames of one size, at least one frame a segment.
        forward: frames (B, H, W, 3) on `device` to features (B, ...), B at most `batch_frames`.
        batch_frames: frames that go through the network at once, across the clips given.
        keep: leave a segment's P frames apart instead of taking their mean.

    Returns:
        float32 (n, ...), the mean over each segment's frames (one seen k times counts k times; slots before the first
        frame do not count), or with `keep` (n, P, ...), where a slot before the first frame repeats the segment's
        first.
    """
    index = [clips.frame_index_SP[rows] for clips, rows in segments]
    used = [np.unique(index_SP[index_SP >= 0]) for index_SP in index]
    frames = [clips.frames_FHWC[numbers] for (clips, _), numbers in zip(segments, used, strict=True)]
    made = in_batches(frames, forward, device=device, batch_size=batch_frames)
    results = []
    offset = 0
    for index_SP, numbers in zip(index, used, strict=True):
        own = made[offset : offset + numbers.size]
        offset += numbers.size
        for index_P in index_SP:
            shown = np.searchsorted(numbers, index_P[index_P >= 0])
            if keep:
                results.append(own[np.concatenate([np.repeat(shown[:1], index_P.size - shown.size), shown])])
            else:
                results.append(own[shown].mean(axis=0, dtype=np.float32))
    return np.stack(results)


def encode_audio(
    segments: Sequence[Segments],
    prepare: Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.float32]],
    forward: Callable[[Tensor], Tensor],
    *,
    device: str,
    batch_size: int,
    context_s: Fraction = Fraction(0),
) -> NDArray[np.float32]:
    """Audio features of segments, (n, ...) float32, batched across the clips given.

    Args:
        segments: of one call of a tower.
        prepare: windows with context, float32 (n, N), and which samples are real, bool (n, N), to the network's input
            (n, ...): each by itself, so that no value depends on its neighbours.
        forward: that on `device`, at most `batch_size` of them, to features.
        context_s: audio beyond the window on both sides.
    """
    inputs = []
    for clips, rows in segments:
        samples_SN, real_SN = spectrogram.windows(clips, context_s=context_s)
        inputs.append(prepare(samples_SN[rows], real_SN[rows]))
    return in_batches(inputs, forward, device=device, batch_size=batch_size)


def in_batches(
    inputs: Sequence[NDArray[np.uint8 | np.float32]],
    forward: Callable[[Tensor], Tensor],
    *,
    device: str,
    batch_size: int,
) -> NDArray[np.float32]:
    """(n, ...) float32 of all rows of `inputs` in order, `batch_size` rows at a time; at least one row."""
    flat = np.concatenate(inputs) if len(inputs) > 1 else inputs[0]
    made = []
    for low in range(0, len(flat), batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(flat[low : low + batch_size]))
        if device != "cpu":
            batch = batch.pin_memory().to(device, non_blocking=True)
        made.append(forward(batch).float().cpu().numpy())
    return np.concatenate(made)


def by_shape(
    inputs: Sequence[NDArray[np.float32]], forward: Callable[[Tensor], Tensor], *, device: str, batch_size: int
) -> NDArray[np.float32]:
    """(n, D) float32 of inputs of several lengths, in order: those of one shape together, `batch_size` at a time.

    Padding one to another's length would run through convolutions into it.
    """
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, item in enumerate(inputs):
        alike[item.shape].append(number)
    made: dict[int, NDArray[np.float32]] = {}
    for _, numbers in sorted(alike.items()):
        for low in range(0, len(numbers), batch_size):
            batch = numbers[low : low + batch_size]
            given = torch.from_numpy(np.stack([inputs[number] for number in batch])).to(device)
            made.update(zip(batch, forward(given).float().cpu().numpy(), strict=True))
    return np.stack([made[number] for number in range(len(inputs))])
