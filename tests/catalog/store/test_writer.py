"""Writing: order, backfill, retries, and that what is not committed does not exist. Processes are killed for real."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import zarr

from catalog.errors import RecipeMismatch, StoreBusy, StoreError
from catalog.grid import GridRule
from catalog.store.format import ChunkSizes
from catalog.store.reader import FeatureStore, create_store, open_store
from catalog.store.writer import open_writer
from catalog.video import EXTRACTED
from tests import sample_store as sample

PROJECT = Path(__file__).resolve().parents[3]
SHAPES: dict[str, Any] = {"visual_shape": (6,), "audio_shape": (4,), "card": {}}


def _all_arrays(path: Path) -> dict[str, str]:
    """Every array of a store, read by plain Zarr: path to type, shape and a digest of its values."""
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path)))
    root = zarr.open_group(repository.readonly_session("main").store, mode="r")
    told = {}
    for name, member in root.members(max_depth=None):
        if isinstance(member, zarr.Array):
            values = np.asarray(member[...])
            raw = json.dumps(values.tolist()).encode() if values.dtype.kind == "T" else values.tobytes()
            told[name] = f"{values.dtype} {values.shape} {hashlib.sha256(raw).hexdigest()}"
    return told


def _write(path: Path, parts: list[list[int]]) -> FeatureStore:
    store = create_store(path)
    with open_writer(store) as writer:
        writer.ensure_recipe(sample.recipe(), **SHAPES)
        for part in parts:
            writer.append([sample.result(i) if i % 4 else sample.quarantined(i) for i in part], ["tiny"])
            writer.commit(f"{len(part)} videos")
    return store


def test_writer_many_commits_equal_one_commit(tmp_path: Path) -> None:
    _write(tmp_path / "one", [list(range(12))])
    _write(tmp_path / "many", [[0], [1, 2, 3], list(range(4, 11)), [11]])
    assert _all_arrays(tmp_path / "one") == _all_arrays(tmp_path / "many")
    assert len(_all_arrays(tmp_path / "one")) == 11 + 12


def test_writer_small_chunks_and_early_flushes_change_no_array(tmp_path: Path) -> None:
    _write(tmp_path / "plain", [list(range(12))])
    # Some 5 rows a chunk and a flush at every append: all the borders that a large store has.
    chunks = ChunkSizes(feature_bytes=5 * 6 * 4, videos=5, rows=7)
    store = create_store(tmp_path / "cut", chunks=chunks)
    with open_writer(store, held_bytes=1, chunks=chunks) as writer:
        writer.ensure_recipe(sample.recipe(), **SHAPES)
        for i in range(12):
            writer.append([sample.result(i) if i % 4 else sample.quarantined(i)], ["tiny"])
        writer.commit("all")
    assert _all_arrays(tmp_path / "plain") == _all_arrays(tmp_path / "cut")


def test_writer_uncommitted_work_is_lost_and_nothing_else(tmp_path: Path) -> None:
    store = _write(tmp_path / "s", [[1, 2]])
    before = _all_arrays(tmp_path / "s")
    with open_writer(store) as writer:
        writer.append([sample.result(3)], ["tiny"])
    assert _all_arrays(tmp_path / "s") == before
    assert open_store(tmp_path / "s").videos().ids == ["v1", "v2"]


def test_writer_without_news_makes_no_commit(tmp_path: Path) -> None:
    store = _write(tmp_path / "s", [[1]])
    log = store.log()
    with open_writer(store) as writer:
        writer.ensure_recipe(sample.recipe(), **SHAPES)
        assert writer.commit("nothing") == log[0].snapshot_id
    assert open_store(tmp_path / "s").log() == log


def test_writer_backfill_changes_no_existing_value(tmp_path: Path) -> None:
    store = _write(tmp_path / "s", [[1, 2, 3, 4]])
    before = _all_arrays(tmp_path / "s")
    later = sample.recipe("later", revision=2)
    results = [
        sample.result(i, names=("later",), sha256="other") if i != 4 else sample.quarantined(4) for i in (3, 1, 4)
    ]
    with open_writer(store) as writer:
        writer.ensure_recipe(later, **SHAPES)
        writer.append(results, ["later"])
        writer.commit("backfill")
    after = _all_arrays(tmp_path / "s")
    assert {name: after[name] for name in before} == before
    outcomes = store.outcomes("later")
    assert outcomes.row_start.tolist() == [2, -1, 0, -1]
    assert outcomes.status == ["extracted", "pending", "extracted", "quarantined"]
    wanted = results[0].features["later"].visual
    assert wanted is not None
    np.testing.assert_array_equal(store.read("later", "visual", ["v3"]).values, wanted.values)


def test_writer_videos_added_later_are_pending_for_other_recipes(tmp_path: Path) -> None:
    store = _write(tmp_path / "s", [[1, 2]])
    with open_writer(store) as writer:
        writer.ensure_recipe(sample.recipe("later"), **SHAPES)
        writer.append([sample.result(5, names=("later",))], ["later"])
        writer.commit("later only")
    assert store.outcomes("tiny").status == ["extracted", "extracted", "pending"]
    assert store.outcomes("later").status == ["pending", "pending", "extracted"]
    assert len(store.read("tiny", "audio", ["v5"]).values) == 0


def test_writer_retry_replaces_the_row_and_appends_the_features(tmp_path: Path) -> None:
    store = _write(tmp_path / "s", [[3, 4, 5]])
    kept = store.read("tiny", "visual", ["v3", "v5"]).values
    again = sample.result(4, attempts=2, unit=9)
    with open_writer(store) as writer:
        with pytest.raises(ValueError, match=r"v4: the store has this video's outcome under tiny.*replace=True"):
            writer.append([again], ["tiny"])
        writer.append([again], ["tiny"], replace=True)
        writer.commit("retry")
    table, outcomes = store.videos(), store.outcomes("tiny")
    assert table.ids == ["v3", "v4", "v5"]
    assert table.status == outcomes.status == ["extracted"] * 3
    assert table.reason == ["", "", ""]
    assert table.attempts.tolist() == outcomes.attempts.tolist() == [1, 2, 1]
    assert table.unit.tolist() == [1, 9, 2]
    assert outcomes.row_start.tolist() == [0, 6, 2]
    np.testing.assert_array_equal(store.read("tiny", "visual", ["v3", "v5"]).values, kept)
    whole = store.read("tiny", "visual")
    np.testing.assert_array_equal(
        whole.values[whole.rows_of(1)], dict(again.features["tiny"].modalities())["visual"].values
    )


def test_writer_partial_video_has_nan_rows_for_what_is_missing(tmp_path: Path) -> None:
    partial = sample.result(2, status="partial", reason="no_audio", features={"tiny": sample.rows(2, 4, audio=False)})
    store = sample.make(tmp_path / "s", [sample.result(1), partial, sample.result(3, count=3)])
    audio = store.read("tiny", "audio")
    assert audio.valid.tolist() == [True] * 3 + [False] * 4 + [True] * 3
    np.testing.assert_array_equal(np.isnan(audio.values).all(axis=1), ~audio.valid)
    assert store.read("tiny", "visual").valid.all()
    assert store.outcomes("tiny").reason == ["", "no_audio", ""]


def test_writer_recipe_may_fare_otherwise_than_its_video(tmp_path: Path) -> None:
    from dataclasses import replace

    fine = replace(sample.rows(1, 3, audio=False), outcome=EXTRACTED)
    result = sample.result(1, status="partial", reason="no_audio", features={"tiny": fine})
    store = sample.make(tmp_path / "s", [result])
    assert (store.videos().status, store.outcomes("tiny").status) == (["partial"], ["extracted"])


def test_ensure_recipe_with_other_settings_names_each_difference(tmp_path: Path) -> None:
    store = _write(tmp_path / "s", [[1]])
    other = sample.recipe(grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1, 2)), revision=2)
    with open_writer(store) as writer:
        with pytest.raises(RecipeMismatch, match=r"grid.hop_s: stored 1, wanted 1/2.*--as NAME") as caught:
            writer.ensure_recipe(other, **SHAPES)
        with pytest.raises(RecipeMismatch, match=r"visual_shape: stored \(6,\), wanted \(7,\)"):
            writer.ensure_recipe(sample.recipe(), visual_shape=(7,), audio_shape=(4,), card={})
    assert caught.value.differences == [("grid.hop_s", "1", "1/2"), ("revision", 1, 2)]


def test_append_refuses_what_would_damage_the_store(tmp_path: Path) -> None:
    store = _write(tmp_path / "s", [[1]])
    inf = sample.rows(2, 4)
    inf.visual.values[1, 1] = np.inf
    wide = sample.rows(2, 4)
    wide = replace(wide, visual=replace(wide.visual, values=np.zeros((4, 7), np.float32)))
    with open_writer(store) as writer:
        for features, said in (
            ({}, "v2: extracted without rows for recipe tiny"),
            ({"tiny": inf}, "v2: tiny visual: row 1 is valid and not finite in float32"),
            ({"tiny": wide}, r"v2: tiny visual: needs floats \(4, 6\), got float32 \(4, 7\)"),
            ({"else": sample.rows(2, 4)}, "v2: features of 'else'"),
        ):
            with pytest.raises(ValueError, match=said):
                writer.append([sample.result(2, features=features)], ["tiny"])
        with pytest.raises(ValueError, match="v2: duplicate video id"):
            writer.append([sample.result(2), sample.result(2)], ["tiny"])
        with pytest.raises(ValueError, match="no recipe 'other' yet"):
            writer.append([sample.result(2)], ["other"])
        assert writer.commit("nothing") == store.snapshot_id
    with pytest.raises(StoreError, match="the writer is closed"):
        writer.append([sample.result(2)], ["tiny"])


def test_append_of_values_too_large_for_float16_is_refused(tmp_path: Path) -> None:
    large = sample.rows(2, 4)
    large.audio.values[0, 0] = 1e5
    with pytest.raises(ValueError, match=r"not finite in float16; .*--set storage=float32"):
        sample.make(
            tmp_path / "s", [sample.result(2, features={"tiny": large})], recipe_=sample.recipe(storage="float16")
        )


def test_details_with_undecodable_text_are_kept_escaped(tmp_path: Path) -> None:
    store = sample.make(tmp_path / "s", [sample.result(1, status="quarantined", detail="bad \udcff name", features={})])
    assert store.videos().detail == [r"bad \udcff name"]


# -- one writer at a time

HOLDER = """
import runpy, sys
from pathlib import Path
from types import SimpleNamespace
from catalog.store.reader import open_store
from catalog.store.writer import open_writer
sample = SimpleNamespace(**runpy.run_path(sys.argv[2]))
with open_writer(open_store(sys.argv[1])) as writer:
    writer.append([sample.result(7)], ["tiny"])
    writer.commit("by the holder")
    writer.append([sample.result(9)], ["tiny"])
    writer._flush()  # written, and not committed
    print("holding", flush=True)
    sys.stdin.read()
"""


def _holder(store: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store), str(PROJECT / "tests" / "sample_store.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"
    return process


def test_second_writer_in_another_process_is_told_who_holds_the_store(tmp_path: Path) -> None:
    store = _write(tmp_path / "s", [[1]])
    with _holder(tmp_path / "s") as process:
        with pytest.raises(StoreBusy, match=rf"process {process.pid} on .* since 20.*--wait"), open_writer(store):
            raise AssertionError("two writers")
        assert open_store(tmp_path / "s").videos().ids == ["v1", "v7"]  # readers are not held up
        process.communicate("")
    with open_writer(store) as writer:
        writer.append([sample.result(9)], ["tiny"])
        writer.commit("after")
    assert store.videos().ids == ["v1", "v7", "v9"]


def test_store_of_a_writer_killed_between_commits_is_whole_and_free(tmp_path: Path) -> None:
    store = _write(tmp_path / "s", [[1]])
    with _holder(tmp_path / "s") as process:
        process.send_signal(signal.SIGKILL)
    with open_writer(store) as writer:
        writer.append([sample.result(9)], ["tiny"])
        writer.commit("again")
    _write(tmp_path / "whole", [[1], [7], [9]])
    assert _all_arrays(tmp_path / "s") == _all_arrays(tmp_path / "whole")


def test_second_writer_in_a_thread_waits_for_the_first(tmp_path: Path) -> None:
    store = _write(tmp_path / "s", [[1]])
    order = []

    def second() -> None:
        with open_writer(open_store(tmp_path / "s"), wait_s=900) as writer:
            order.append("second")
            writer.append([sample.result(3)], ["tiny"])
            writer.commit("second")

    with open_writer(store) as writer:
        with pytest.raises(StoreBusy, match=f"process {os.getpid()}"), open_writer(open_store(tmp_path / "s")):
            raise AssertionError("two writers")
        thread = threading.Thread(target=second)
        thread.start()
        writer.append([sample.result(2)], ["tiny"])
        writer.commit("first")
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert open_store(tmp_path / "s").videos().ids == ["v1", "v2", "v3"]
