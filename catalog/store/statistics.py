"""Mean, spread, share of NaN and norm of a recipe's features, of a store of any size, by dask with bounded memory.

Rows are taken in blocks of some 32 MB, each reduced on its own; what is added up are a few numbers a block. Mean and
spread go through sums of deviations from each block's mean (Chan et al. 1983), so that a large mean does not eat the
digits of a small spread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from catalog.store.format import MODALITIES
from catalog.store.reader import FeatureStore

BLOCK_BYTES = 32 * 2**20
# Blocks at once: with two, one is read while the other is reduced.
_WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of one recipe and modality, over all values that are not NaN.

    Attributes:
        rows: how many there are.
        valid_rows: those without any NaN.
        nan_share: of all values, in [0, 1].
        mean, std: of the values (population spread); None without values.
        norm_mean, norm_std: of the valid rows' L2 norms; None without valid rows.
        minimum, maximum: of the values; None without values.
    """

    rows: int
    valid_rows: int
    nan_share: float
    mean: float | None
    std: float | None
    norm_mean: float | None
    norm_std: float | None
    minimum: float | None
    maximum: float | None


def feature_statistics(
    store: FeatureStore, recipe_name: str, modality: str, *, block_bytes: int = BLOCK_BYTES
) -> Statistics:
    """Statistics of one array, which is read once.

    Args:
        block_bytes: size of one read; at least one chunk is read.

    Raises:
        ValueError: no such recipe or modality.
    """
    array = store.lazy(recipe_name, modality)
    row_bytes = max(1, array.dtype.itemsize * math.prod(array.shape[1:]))
    # Whole chunks, so that none is read twice.
    chunk = array.chunks[0]
    block = max(chunk, block_bytes // row_bytes // chunk * chunk)
    rows = array.shape[0]
    reduced = [delayed(_reduce)(array, begin, min(begin + block, rows)) for begin in range(0, rows, block)]
    parts: Any = compute(*reduced, scheduler="threads", num_workers=_WORKERS)  # type: ignore[no-untyped-call]  # dask has no types
    values, norms = _Moments(), _Moments()
    missing, minimum, maximum = 0, math.inf, -math.inf
    for part in parts:
        values, norms = values.joined(part[0]), norms.joined(part[1])
        missing += part[2]
        minimum, maximum = min(minimum, part[3]), max(maximum, part[4])
    total = rows * math.prod(array.shape[1:])
    return Statistics(
        rows=rows,
        valid_rows=norms.count,
        nan_share=missing / total if total else 0.0,
        mean=values.mean if values.count else None,
        std=values.std if values.count else None,
        norm_mean=norms.mean if norms.count else None,
        norm_std=norms.std if norms.count else None,
        minimum=minimum if values.count else None,
        maximum=maximum if values.count else None,
    )


def all_statistics(store: FeatureStore) -> dict[str, dict[str, Statistics]]:
    """Recipe to modality to statistics, of all that the store holds."""
    return {
        name: {m: feature_statistics(store, name, m) for m in MODALITIES if entry.shape(m) is not None}
        for name, entry in store.recipes().items()
    }


@dataclass(frozen=True, kw_only=True)
class _Moments:
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared deviations from the mean

    @property
    def std(self) -> float:
        return math.sqrt(self.squares / self.count)

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> _Moments:
        if not len(values):
            return cls()
        mean = float(values.mean())
        return cls(count=len(values), mean=mean, squares=float(np.square(values - mean).sum()))

    def joined(self, other: _Moments) -> _Moments:
        count = self.count + other.count
        if not self.count or not other.count:
            return other if other.count else self
        apart = other.mean - self.mean
        return _Moments(
            count=count,
            mean=self.mean + apart * other.count / count,
            squares=self.squares + other.squares + apart * apart * self.count * other.count / count,
        )


def _reduce(array: zarr.Array[Any], begin: int, end: int) -> tuple[_Moments, _Moments, int, float, float]:
    """Moments of the values and of the rows' norms, number of NaN, least and greatest value of a block."""
    values, norms = _Moments(), _Moments()
    missing, minimum, maximum = 0, math.inf, -math.inf
    # The block comes in storage precision; float64 copies are made of a part at a time.
    rows = np.asarray(array[begin:end]).reshape(end - begin, -1)
    step = max(1, 2**16 // rows.shape[1])
    for at in range(0, len(rows), step):
        part = rows[at : at + step].astype(np.float64)
        nan = np.isnan(part)
        missing += int(nan.sum())
        present = part[~nan]
        whole = part[~nan.any(axis=1)]
        values = values.joined(_Moments.of(present))
        norms = norms.joined(_Moments.of(np.sqrt(np.square(whole).sum(axis=1))))
        if len(present):
            minimum, maximum = min(minimum, float(present.min())), max(maximum, float(present.max()))
    return values, norms, missing, minimum, maximum
