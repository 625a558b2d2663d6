"""Rows of several videos from one array: equal to a loop over the videos, in few reads of bounded size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from catalog.store.ragged import Ragged, gather_rows

ROW_BYTES = 3 * 4


class CountedArray:
    """A Zarr array that records which rows are read."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        self._array = zarr.create_array(zarr.storage.MemoryStore(), data=values)
        self.shape, self.dtype = self._array.shape, self._array.dtype
        self.reads: list[tuple[int, int]] = []

    def __getitem__(self, rows: slice) -> Any:
        self.reads.append((rows.start, rows.stop))
        return self._array[rows]


def counted(num_rows: int) -> CountedArray:
    return CountedArray(np.arange(3 * num_rows, dtype=np.float32).reshape(num_rows, 3))


def gather(array: CountedArray, starts: list[int], counts: list[int], **sizes: int) -> NDArray[np.float32]:
    found: NDArray[np.float32] = gather_rows(
        array,  # type: ignore[arg-type]  # the part of an array's interface that is used
        np.array(starts, np.int64),
        np.array(counts, np.int64),
        **sizes,
    )
    return found


@pytest.mark.parametrize(("slab_rows", "gap_rows"), [(1, 1), (3, 1), (5, 4), (1000, 1), (1000, 1000)])
def test_gathered_rows_equal_a_loop_over_the_videos_in_bounded_reads(slab_rows: int, gap_rows: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        lengths = rng.integers(0, 5, 30)
        first = np.cumsum(lengths) - lengths
        array = counted(int(lengths.sum()))
        values = array[slice(0, array.shape[0])]
        array.reads.clear()
        videos = rng.integers(0, 30, 12)  # in any order, and some of them twice
        starts, counts = first[videos].tolist(), lengths[videos].tolist()

        got = gather(array, starts, counts, slab_bytes=slab_rows * ROW_BYTES, gap_bytes=gap_rows * ROW_BYTES)

        want = [values[start : start + count] for start, count in zip(starts, counts, strict=True)]
        np.testing.assert_array_equal(got, np.concatenate(want))
        spans = {(start, start + count) for start, count in zip(starts, counts, strict=True)}
        assert all(stop - start <= slab_rows or (start, stop) in spans for start, stop in array.reads)


def test_gathered_rows_read_over_a_gap_up_to_its_bound() -> None:
    for gap_rows, reads in ((1, [(0, 2), (4, 6)]), (2, [(0, 6)])):
        array = counted(10)
        gather(array, [4, 0], [2, 2], gap_bytes=gap_rows * ROW_BYTES)
        assert array.reads == reads


def test_gathered_rows_in_one_run_are_one_read_whatever_the_slab() -> None:
    array = counted(10)
    np.testing.assert_array_equal(gather(array, [2, 9, 4], [2, 0, 3], slab_bytes=1)[:, 0], 3 * np.arange(2, 7))
    assert array.reads == [(2, 7)]


def test_gathered_rows_of_nothing_keep_shape_and_type_and_read_nothing() -> None:
    array = counted(4)
    got = gather(array, [-1, -1], [0, 0])
    assert (got.shape, got.dtype) == ((0, 3), np.dtype(np.float32))
    assert not array.reads


def test_ragged_video_is_its_rows() -> None:
    values = np.arange(10, dtype=np.float32).reshape(5, 2)
    ragged = Ragged(
        video_ids=("a", "b", "c"),
        values=values,
        valid=np.array([True, False, True, True, False]),
        start_s=np.zeros(5),
        end_s=np.ones(5),
        offsets=np.array([0, 2, 2, 5]),
    )
    assert len(ragged) == 3
    assert [ragged.rows_of(k) for k in range(3)] == [slice(0, 2), slice(2, 2), slice(2, 5)]
    np.testing.assert_array_equal(ragged.video(2).values, values[2:])
    assert ragged.video(2).valid.tolist() == [True, True, False]
    assert len(ragged.video(1).valid) == 0
