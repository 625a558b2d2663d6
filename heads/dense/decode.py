"""Decodes a dense head's output into scored events, before suppression. B items, P points, K classes, N events found.

Source: UnAV's and ActionFormer's published inference, whose defaults stand in `Decoding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from catalog.fields import check_fields
from heads.dense.candidates import Candidates
from heads.dense.output import DenseOutput
from heads.dense.points import Points


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Which (point, class) pairs become events.

    Attributes:
        threshold: their probability lies above.
        most_a_level: of each level at most so many, the most probable.
        shortest: grid units; events are longer.
    """

    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.001
    most_a_level: Annotated[int, Field(ge=1)] = 2000
    shortest: Annotated[float, Field(ge=0)] = 0.05

    def __post_init__(self) -> None:
        check_fields(self)


def decode(output: DenseOutput, points: Points, decoding: Decoding) -> list[Candidates]:
    """Events of each item, in grid units: level after level, each in descending score (equal ones as they stand).

    Raises:
        ValueError: the points are not the output's, or a real point has NaN or an event without an end.
    """
    if points.counts != output.counts or len(points.time_P) != output.logits_BPK.shape[1]:
        raise ValueError(
            f"the output has {output.logits_BPK.shape[1]} points of levels {output.counts}, got points of levels "
            f"{points.counts}"
        )
    mask_BP1 = output.mask_BP.unsqueeze(-1)
    share_BPK = torch.where(mask_BP1, output.logits_BPK.detach().float().sigmoid(), 0.0).cpu().numpy()
    offsets_BPC2 = output.offsets_BPC2.detach().float().cpu().numpy()
    time_P, stride_P = points.time_P.cpu().numpy(), points.stride_P.cpu().numpy()
    if np.isnan(share_BPK).any():
        raise ValueError(f"logits must not be NaN; items {_where(np.isnan(share_BPK))} of the batch have some")
    found = [
        _events(share_PK, offsets_PC2, time_P, stride_P, points.counts, decoding)
        for share_PK, offsets_PC2 in zip(share_BPK, offsets_BPC2, strict=True)
    ]
    wrong = [item for item, events in enumerate(found) if not np.isfinite(events.segments_N2).all()]
    if wrong:
        raise ValueError(f"events must have finite ends; items {wrong[:5]} of the batch have others")
    return found


def _events(
    share_PK: NDArray[np.float32],
    offsets_PC2: NDArray[np.float32],
    time_P: NDArray[np.float32],
    stride_P: NDArray[np.float32],
    counts: tuple[int, ...],
    decoding: Decoding,
) -> Candidates:
    num_classes, width = share_PK.shape[1], offsets_PC2.shape[1]
    ends = np.cumsum(counts)
    pairs_N = np.concatenate(
        [
            start * num_classes + _best(share_PK[start:end].reshape(-1), decoding)
            for start, end in zip(ends - counts, ends, strict=True)
        ]
    )
    point_N, label_N = np.divmod(pairs_N, num_classes)
    reach_N2 = offsets_PC2[point_N, label_N if width > 1 else 0] * stride_P[point_N, None]
    segments_N2 = time_P[point_N, None] + reach_N2 * np.array([-1, 1], dtype=np.float32)
    # NaN stays in, so that it is reported.
    kept_N = ~(segments_N2[:, 1] - segments_N2[:, 0] <= decoding.shortest)
    return Candidates(
        segments_N2=segments_N2[kept_N].astype(np.float64),
        scores_N=share_PK.reshape(-1)[pairs_N[kept_N]],
        labels_N=label_N[kept_N].astype(np.int64),
    )


def _best(shares: NDArray[np.float32], decoding: Decoding) -> NDArray[np.intp]:
    """Places of the shares above the threshold, in descending order; equal ones by place, at the cut too."""
    above = np.flatnonzero(shares > decoding.threshold)
    most = decoding.most_a_level
    if len(above) > most:
        values = shares[above]
        least = np.partition(values, -most)[-most]
        more = np.flatnonzero(values > least)
        above = above[np.sort(np.concatenate([more, np.flatnonzero(values == least)[: most - len(more)]]))]
    return above[np.argsort(-shares[above], kind="stable")]


def _where(wrong_BPK: NDArray[np.bool_]) -> list[int]:
    return [int(item) for item in np.flatnonzero(wrong_BPK.any(axis=(1, 2)))[:5]]
