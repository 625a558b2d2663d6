"""Clips of several videos cut into the batches that an encoder gets: by their number alone, never by timing.

Shape suffixes: S segments, P frames a segment, N sound samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from catalog.grid import sample_at
from catalog.recipe import Recipe
from pipeline.clips import Clips


def batches(clips: Sequence[Clips], batch_segments: int, recipe: Recipe) -> Iterator[list[tuple[int, Clips]]]:
    """Lists of (index into `clips`, piece) that hold `batch_segments` segments each, the last one the rest."""
    context_s = recipe.audio.context_s if recipe.audio is not None else Fraction(0)
    batch: list[tuple[int, Clips]] = []
    free = batch_segments
    for owner, item in enumerate(clips):
        done = 0
        while done < item.count:
            take = min(free, item.count - done)
            batch.append((owner, item if take == item.count else piece(item, done, take, context_s)))
            done += take
            free -= take
            if free == 0:
                yield batch
                batch, free = [], batch_segments
    if batch:
        yield batch


def piece(clips: Clips, skip: int, count: int, context_s: Fraction) -> Clips:
    """Segments `skip .. skip + count - 1` of `clips`, with the frames they point at and the samples they hear."""
    index_SP = clips.frame_index_SP[skip : skip + count]
    shown = index_SP[index_SP >= 0]
    low, high = (int(shown.min()), int(shown.max()) + 1) if shown.size else (0, 0)
    moved_SP = np.where(index_SP >= 0, index_SP - np.int32(low), np.int32(-1)).astype(np.int32)
    cut = replace(clips, first=clips.first + skip, frames_FHWC=clips.frames_FHWC[low:high], frame_index_SP=moved_SP)
    if clips.rate_hz == 0 or clips.samples_N.size == 0:
        return cut
    first, last = clips.first + skip, clips.first + skip + count - 1
    start = sample_at(clips.grid.start_s(first) - context_s, clips.rate_hz)
    stop = sample_at(clips.grid.end_s(last) + context_s, clips.rate_hz)
    low, high = (min(max(at - clips.samples_start, 0), clips.samples_N.size) for at in (start, stop))
    return replace(
        cut,
        samples_N=clips.samples_N[low:high],
        sample_valid_N=clips.sample_valid_N[low:high],
        samples_start=clips.samples_start + low,
    )
