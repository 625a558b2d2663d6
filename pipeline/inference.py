"""Frozen networks at work: precision, and each distinct frame encoded once.

Shape suffixes: S segments, P frames a segment, F distinct frames, B batch, H W pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.segment import Clips

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


def _encode_all(
    frames: Sequence[NDArray[np.uint8 | np.float32]],
    forward: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    device: str,
    batch_frames: int,
) -> NDArray[np.float32]:
    """(F, *shape) of all frames in order."""
    total = sum(len(part) for part in frames)
    made = np.empty((total, *shape), np.float32)
    flat = np.concatenate(frames) if len(frames) > 1 else frames[0] if frames else np.empty(0, np.uint8)
    for low in range(0, total, batch_frames):
        batch = torch.from_numpy(np.ascontiguousarray(flat[low : low + batch_frames]))
        if device != "cpu":
            batch = batch.pin_memory().to(device, non_blocking=True)
        made[low : low + batch_frames] = forward(batch).float().cpu().numpy()
    return made
