"""Detects events with a dense head: outputs decoded, suppressed, and converted from grid units to seconds.

N items, B items of a batch, T segments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.event import Prediction
from catalog.grid import GridRule
from heads.data.device import DeviceSplit
from heads.data.split import Split
from heads.dense.candidates import Candidates
from heads.dense.decode import Decoding, decode
from heads.dense.head import DenseHead
from heads.dense.nms import Suppression, suppress
from heads.dense.output import DenseOutput
from heads.dense.points import points
from heads.spec import inference

# Segments of a batch, padding included: memory is the same for many short items and for one long one.
BATCH_SEGMENTS = 8192

# An item longer than the first goes through the head in windows of so many segments. The second is how many at either
# end of a window, where it does not see all that a point looks at, are taken from its neighbour. Both are multiples of
# the coarsest stride of 12 levels, so a window's points are the item's.
WINDOW_SEGMENTS = 16384
MARGIN_SEGMENTS = 2048


@dataclass(frozen=True, kw_only=True)
class Detection:
    """How outputs become events; the published settings by default.

    Attributes:
        a_minute: are the most that are kept those of a minute begun, rather than of an item? The published numbers are
            for videos of a minute at most, where either is the same.
    """

    decoding: Decoding = field(default_factory=Decoding)
    suppression: Suppression = field(default_factory=Suppression)
    a_minute: bool = False

    def of(self, seconds: float) -> tuple[Decoding, Suppression]:
        """What applies to an item of so many seconds."""
        times = max(1, math.ceil(seconds / 60)) if self.a_minute else 1
        return (
            replace(self.decoding, most_a_level=times * self.decoding.most_a_level),
            replace(
                self.suppression,
                most=times * self.suppression.most,
                most_a_class=times * self.suppression.most_a_class,
            ),
        )


def detect(
    head: DenseHead,
    split: Split,
    *,
    device: str = "cpu",
    detection: Detection | None = None,
    data: DeviceSplit | None = None,
    on_output: Callable[[NDArray[np.int64], DenseOutput], None] = lambda items_B, output: None,
) -> list[Candidates]:
    """The events of every item of a split, best first, in grid units; none for an item without features.

    Items of like length go through the head together; the head's mode is put back.

    Args:
        data: the split, where it is on the device already.
        on_output: called with each batch's items and what the head says of them, for whoever wants more than events.

    Raises:
        ValueError: an output of a real segment is not finite; names the item.
    """
    detection = detection or Detection()
    data = data or DeviceSplit(split, None, device)
    lengths_N = split.mask_NT.sum(axis=1)
    order_N = split.present[np.argsort(-lengths_N[split.present], kind="stable")]
    found = [_NONE] * len(split.items)
    first = 0
    with inference(head):
        while first < len(order_N):
            # Alone where the bounds hang on the length, so that no item's hang on its neighbours.
            together = 1 if detection.a_minute else max(1, BATCH_SEGMENTS // int(lengths_N[order_N[first]]))
            items_B = order_N[first : first + together]
            first += len(items_B)
            output = outputs(head, data, items_B, lengths_N[items_B], device)
            on_output(items_B, output)
            _check(output.logits_BPK, output.offsets_BPC2, output.mask_BP, split, items_B)
            pyramid = points(output.counts[0], len(output.counts), device=device)
            decoding, suppression = detection.of(int(lengths_N[items_B].max()) * float(split.recipe.grid.hop_s))
            for n, candidates in zip(items_B, decode(output, pyramid, decoding), strict=True):
                found[n] = suppress(candidates, suppression)
    return found


def outputs(
    head: DenseHead,
    data: DeviceSplit,
    items_B: NDArray[np.int64],
    lengths_B: NDArray[np.int64],
    device: str,
    *,
    window: int = WINDOW_SEGMENTS,
    margin: int = MARGIN_SEGMENTS,
) -> DenseOutput:
    """The head's output for whole items, in windows where they are longer than one.

    In windows the result is that of one pass, as long as no point looks further than `margin` segments: so with sliding
    windows of attention, not with attention to the whole item. Windows begin where the head's own do
    (`DenseHead.alignment`).

    Args:
        window, margin: segments, multiples of the coarsest level's stride.

    Raises:
        ValueError: several items longer than a window, or a head whose alignment is longer than a window's middle.
    """
    longest = int(lengths_B.max())
    if longest <= window:
        return _pass(head, data, items_B, np.zeros_like(lengths_B), lengths_B, device)
    if len(items_B) > 1:
        raise ValueError(f"items longer than {window} segments go through a head one by one, got {len(items_B)}")
    step = (window - 2 * margin) // head.alignment * head.alignment
    if step < 1:
        raise ValueError(
            f"an item of {longest} segments goes through the head in windows that begin every {window - 2 * margin}, "
            f"which holds none of the {head.alignment} segments that the head's own windows repeat after: train a head "
            "of fewer levels or a smaller window"
        )
    levels: list[list[tuple[Tensor, Tensor, Tensor]]] = []
    start = 0
    while True:
        length = min(window, longest - start)
        output = _pass(head, data, items_B, np.array([start]), np.array([length]), device)
        is_last = start + length == longest
        core = slice(margin if start else 0, None if is_last else step + margin)
        levels.append(_core(output, core))
        if is_last:
            break
        start += step
    joined = [[torch.cat(parts, dim=1) for parts in zip(*level, strict=True)] for level in zip(*levels, strict=True)]
    logits, offsets, masks = (torch.cat(parts, dim=1) for parts in zip(*joined, strict=True))
    return DenseOutput(
        logits_BPK=logits,
        offsets_BPC2=offsets,
        mask_BP=masks,
        counts=tuple(level[2].shape[1] for level in joined),
    )


def _pass(
    head: DenseHead,
    data: DeviceSplit,
    items_B: NDArray[np.int64],
    starts_B: NDArray[np.int64],
    lengths_B: NDArray[np.int64],
    device: str,
) -> DenseOutput:
    index = [torch.from_numpy(values).to(device) for values in (items_B, starts_B, lengths_B)]
    output: DenseOutput = head(data.crops(*index))
    return output


def _core(output: DenseOutput, core: slice) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Logits, offsets and mask of each level's points in `core`, segments of the finest level."""
    parts = []
    for level, (logits, offsets, mask) in enumerate(
        zip(
            torch.split(output.logits_BPK, list(output.counts), dim=1),
            torch.split(output.offsets_BPC2, list(output.counts), dim=1),
            torch.split(output.mask_BP, list(output.counts), dim=1),
            strict=True,
        )
    ):
        of_level = slice(core.start // 2**level, None if core.stop is None else core.stop // 2**level)
        parts.append((logits[:, of_level], offsets[:, of_level], mask[:, of_level]))
    return parts


def in_seconds(found: Candidates, grid: GridRule, duration_s: float | None) -> Candidates:
    """The same in seconds, cut to [0, duration]; what is nothing then is left out.

    Args:
        duration_s: None where it is not known: only the beginning is cut.
    """
    window_s, hop_s = float(grid.window_s), float(grid.hop_s)
    times_N2 = np.maximum(found.segments_N2 * hop_s + 0.5 * window_s, 0.0)
    if duration_s is not None:
        times_N2 = np.minimum(times_N2, duration_s)
    # A segment without length would match any truth without length: 0 / 0 is no number below a threshold.
    kept_N = times_N2[:, 1] > times_N2[:, 0]
    return Candidates(segments_N2=times_N2[kept_N], scores_N=found.scores_N[kept_N], labels_N=found.labels_N[kept_N])


def predictions(video_id: str, found_s: Candidates, classes: Sequence[str]) -> list[Prediction]:
    """Events in seconds as predictions, best first."""
    return [
        Prediction(video_id=video_id, start_s=float(start), end_s=float(end), label=classes[label], score=float(score))
        for (start, end), label, score in zip(
            found_s.segments_N2, found_s.labels_N.tolist(), found_s.scores_N, strict=True
        )
    ]


def reach_s(split: Split, item: int, duration_s: Fraction | None) -> float | None:
    """Where an item ends: its duration where known, else the end of its last window, else None."""
    if duration_s is not None:
        return float(duration_s)
    count = int(split.mask_NT[item].sum())
    grid = split.recipe.grid
    return float((count - 1) * grid.hop_s + grid.window_s) if count else None


_NONE = Candidates(
    segments_N2=np.zeros((0, 2)), scores_N=np.zeros(0, dtype=np.float32), labels_N=np.zeros(0, dtype=np.int64)
)


def _check(
    logits_BPK: Tensor,
    offsets_BPC2: Tensor,
    mask_BP: Tensor,
    split: Split,
    items_B: NDArray[np.int64],
) -> None:
    finite_BP = torch.isfinite(logits_BPK).all(dim=-1) & torch.isfinite(offsets_BPC2).flatten(2).all(dim=-1)
    bad_B = (~finite_BP & mask_BP).any(dim=1).cpu().numpy()
    if bad_B.any():
        named = ", ".join(split.items[int(n)].id for n in items_B[bad_B][:10])
        raise ValueError(f"the head gives NaN or infinity for {int(bad_B.sum())} items of {split.name}: {named}")
