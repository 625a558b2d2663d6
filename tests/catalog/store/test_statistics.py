"""Statistics of stored features against numpy over the whole array at once."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from catalog.store.format import ChunkSizes
from catalog.store.modal import Modal
from catalog.store.reader import create_store
from catalog.store.statistics import all_statistics, feature_statistics
from catalog.store.writer import open_writer
from tests import sample_store as sample


@pytest.mark.parametrize("block_bytes", [1, 200, 2**25])
def test_statistics_equal_numpy_over_all_rows(tmp_path: Path, block_bytes: int) -> None:
    results = [sample.result(i, features={"tiny": sample.rows(i, 2 + i % 3, invalid=(0,))}) for i in range(30)]
    store = sample.make(tmp_path / "s", results, chunks=ChunkSizes(feature_bytes=6 * 4 * 3))
    rows = store.read("tiny", "visual").values.astype(np.float64)
    norms = np.linalg.norm(rows[~np.isnan(rows).any(axis=1)], axis=1)

    told = feature_statistics(store, "tiny", "visual", block_bytes=block_bytes)

    assert (told.rows, told.valid_rows) == (len(rows), len(norms))
    # float64 sums in another order than numpy's: some 1e-15 of relative difference.
    assert told.nan_share == pytest.approx(np.isnan(rows).mean(), rel=1e-12)
    assert told.mean == pytest.approx(np.nanmean(rows), rel=1e-12)
    assert told.std == pytest.approx(np.nanstd(rows), rel=1e-12)
    assert told.norm_mean == pytest.approx(norms.mean(), rel=1e-12)
    assert told.norm_std == pytest.approx(norms.std(), rel=1e-12)
    assert (told.minimum, told.maximum) == (np.nanmin(rows), np.nanmax(rows))


def test_statistics_of_a_small_spread_around_a_large_mean_keep_their_digits(tmp_path: Path) -> None:
    rows = sample.rows(1, 64)
    rows.visual.values[:] = 4096 + rows.visual.values * 0.01
    store = sample.make(tmp_path / "s", [sample.result(1, features={"tiny": rows})])
    exact = rows.visual.values.astype(np.float64).std()
    assert feature_statistics(store, "tiny", "visual").std == pytest.approx(exact, rel=1e-9)


def test_statistics_without_values_are_none(tmp_path: Path) -> None:
    store = sample.make(tmp_path / "s", [sample.quarantined(1)])
    told = all_statistics(store)["tiny"]["audio"]
    assert (told.rows, told.mean, told.std, told.norm_mean, told.minimum, told.nan_share) == (
        0,
        None,
        None,
        None,
        None,
        0,
    )


def test_statistics_hold_blocks_and_not_the_store(tmp_path: Path) -> None:
    """64 MB of features with blocks of 1 MB: what Python holds stays under a quarter of the features."""
    store = create_store(tmp_path / "s")
    rows = sample.rows(1, 1)
    visual = np.random.default_rng(0).standard_normal((16384, 1024), dtype=np.float32)
    big = type(rows)(
        visual=Modal(values=visual, valid=np.ones(len(visual), bool)),
        audio=None,
        start_s=np.arange(float(len(visual))),
        end_s=np.arange(float(len(visual))) + 1,
    )
    with open_writer(store) as writer:
        writer.ensure_recipe(sample.recipe(), visual_shape=(1024,), audio_shape=None, card={})
        writer.append([sample.result(1, features={"tiny": big})], ["tiny"])
        writer.commit("big")
    size = visual.nbytes
    del visual, big, rows
    tracemalloc.start()
    try:
        feature_statistics(store, "tiny", "visual", block_bytes=2**20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size / 4
