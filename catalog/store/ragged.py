"""Features of several videos in one array, and how they are fetched in few large reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from catalog.store.modal import Modal

# A subset is read in slabs of at most this many bytes, each taking in the gaps between wanted videos.
SLAB_BYTES = 64 * 2**20
# Reading over a gap costs less than another request while the gap is shorter than this.
GAP_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Ragged(Modal):
    """Features of several videos: those of video k are rows `offsets[k]:offsets[k + 1]`.

    Attributes:
        values: (rows, *shape) in the recipe's storage dtype, NaN where not valid.
        valid: bool (rows,).
        video_ids: as asked for.
        start_s, end_s: float64 (rows,).
        offsets: int64 (len(video_ids) + 1,).
    """

    video_ids: tuple[str, ...]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.video_ids)

    def rows_of(self, index: int) -> slice:
        """The rows of the video at `index`."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def video(self, index: int) -> Modal:
        """The features of the video at `index`."""
        rows = self.rows_of(index)
        return Modal(values=self.values[rows], valid=self.valid[rows])


def gather_rows(
    array: zarr.Array[Any],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    *,
    slab_bytes: int = SLAB_BYTES,
    gap_bytes: int = GAP_BYTES,
) -> NDArray[Any]:
    """Rows `starts[k] : starts[k] + counts[k]` one after another, read in slabs that run over small gaps.

    Args:
        slab_bytes: bound on the size of one read; a single k may exceed it.
        gap_bytes: the longest gap that is read over.
    """
    total = int(counts.sum())
    has = np.flatnonzero(counts)
    if total == 0:
        return np.empty((0, *array.shape[1:]), dtype=array.dtype)
    first, last = starts[has], starts[has] + counts[has]
    if bool((first[1:] == last[:-1]).all()):
        # One run: what a whole read of an undisturbed store is.
        whole = array[int(first[0]) : int(last[-1])]
        assert isinstance(whole, np.ndarray)
        return whole
    offsets = np.cumsum(counts) - counts
    out = np.empty((total, *array.shape[1:]), dtype=array.dtype)
    row_bytes = max(1, array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64)))
    max_gap, max_rows = max(1, gap_bytes // row_bytes), max(1, slab_bytes // row_bytes)
    order = has[np.argsort(starts[has], kind="stable")]
    slab: list[int] = []
    begin = end = 0
    for k in [*order.tolist(), -1]:
        if slab and (k < 0 or starts[k] > end + max_gap or starts[k] + counts[k] - begin > max_rows):
            rows = np.asarray(array[begin:end])
            for j in slab:
                at = int(starts[j]) - begin
                out[offsets[j] : offsets[j] + counts[j]] = rows[at : at + int(counts[j])]
            slab = []
        if k >= 0:
            begin = int(starts[k]) if not slab else begin
            end = max(end, int(starts[k] + counts[k])) if slab else int(starts[k] + counts[k])
            slab.append(k)
    return out
