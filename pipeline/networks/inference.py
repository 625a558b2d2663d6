"""Frozen networks at work: precision, each distinct frame encoded once, batches across videos.

Shape suffixes: S segments, P frames a segment, F distinct frames, B batch, H W pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.clips import Clips
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
    clips: Sequence[Clips],
    forward: Callable[[Tensor], Tensor],
    *,
    shape: tuple[int, ...],
    device: str,
    batch_frames: int,
    keep: bool = False,
) -> list[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Frame features of each segment; a frame that several segments see is encoded once.

    Args:
        clips: of one call of `encode`; frames of one size.
        forward: frames (B, H, W, 3) on `device` to features (B, *shape), B at most `batch_frames`.
        shape: of one frame's features.
        batch_frames: frames that go through the network at once, across the clips given.
        keep: leave a segment's P frames apart instead of taking their mean.

    Returns:
        For each of `clips` float32 (S, *shape), the mean over the segment's frames (one seen k times counts k times;
        slots before the first picture do not count), or with `keep` (S, P, *shape), where a slot before the first
        picture repeats the segment's first; NaN where the segment sees no frame. And bool (S,): it sees one.
    """
    used = [np.unique(item.frame_index_SP[item.frame_index_SP >= 0]) for item in clips]
    frames = [item.frames_FHWC[index] for item, index in zip(clips, used, strict=True) if index.size]
    made = _encode_all(frames, forward, shape, device, batch_frames)
    results: list[tuple[NDArray[np.float32], NDArray[np.bool_]]] = []
    at = 0
    for item, index in zip(clips, used, strict=True):
        valid_S = np.asarray((item.frame_index_SP >= 0).any(axis=1))
        slots = item.frame_index_SP.shape[1]
        own = made[at : at + index.size]
        at += index.size
        rows = np.full((item.count, slots, *shape) if keep else (item.count, *shape), np.nan, np.float32)
        for row, index_P in enumerate(item.frame_index_SP):
            if valid_S[row]:
                shown = np.searchsorted(index, index_P[index_P >= 0])
                if keep:
                    rows[row] = own[np.concatenate([np.repeat(shown[:1], slots - shown.size), shown])]
                else:
                    rows[row] = own[shown].mean(axis=0, dtype=np.float32)
        results.append((rows, valid_S))
    return results


def encode_sounds(
    clips: Sequence[Clips],
    prepare: Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.float32]],
    forward: Callable[[Tensor], Tensor],
    *,
    width: int,
    min_coverage: Fraction,
    device: str,
    batch_sounds: int,
    context_s: Fraction = Fraction(0),
) -> list[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Sound features of each segment, batched across the clips given.

    Args:
        clips: of one call of `encode`.
        prepare: windows with context, float32 (n, N), and which samples are real, bool (n, N), to what the network
            takes, (n, ...): each by itself, so that no value hangs on its neighbours.
        forward: that on `device`, at most `batch_sounds` of them, to features (n, width).
        min_coverage: see `spectrogram.coverage`.

    Returns:
        For each of `clips` float32 (S, width), NaN where a segment holds too little sound; and bool (S,): it holds
        enough.
    """
    valid, inputs = [], []
    for item in clips:
        heard_S = np.zeros(item.count, np.bool_)
        if item.samples_N.size:
            heard_S = spectrogram.coverage(item, min_coverage)
        if heard_S.any():
            samples_SN, real_SN = spectrogram.windows(item, context_s=context_s)
            inputs.append(prepare(samples_SN[heard_S], real_SN[heard_S]))
        valid.append(heard_S)
    made = _encode_all(inputs, forward, (width,), device, batch_sounds)
    results: list[tuple[NDArray[np.float32], NDArray[np.bool_]]] = []
    at = 0
    for heard_S in valid:
        rows = np.full((heard_S.size, width), np.nan, np.float32)
        count = int(heard_S.sum())
        rows[heard_S] = made[at : at + count]
        at += count
        results.append((rows, heard_S))
    return results


def _encode_all(
    inputs: Sequence[NDArray[np.uint8 | np.float32]],
    forward: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    device: str,
    batch_size: int,
) -> NDArray[np.float32]:
    """(n, *shape) of all inputs in order, `batch_size` at a time."""
    total = sum(len(part) for part in inputs)
    made = np.empty((total, *shape), np.float32)
    flat = np.concatenate(inputs) if len(inputs) > 1 else inputs[0] if inputs else np.empty(0, np.uint8)
    for low in range(0, total, batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(flat[low : low + batch_size]))
        if device != "cpu":
            batch = batch.pin_memory().to(device, non_blocking=True)
        made[low : low + batch_size] = forward(batch).float().cpu().numpy()
    return made
