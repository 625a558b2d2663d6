"""The reading side of a store, and what is refused. Written arrays are the oracle; damage is done with plain Zarr."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import zarr

from catalog.errors import StoreError
from catalog.store.reader import create_store, exists, open_store
from catalog.store.writer import open_writer
from tests import sample_store as sample


def _edit(path: Path, change: Callable[[zarr.Group], None]) -> None:
    """Changes a store behind its back, as only a stranger would."""
    session = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path))).writable_session("main")
    change(zarr.open_group(session.store, mode="a"))
    session.commit("edited")


def test_store_whole_read_gives_the_rows_that_were_written(tmp_path: Path) -> None:
    results = [sample.result(0), sample.quarantined(1), sample.result(2), sample.result(3)]
    sample.make(tmp_path / "s", results)
    store = open_store(tmp_path / "s")

    ragged = store.read("tiny", "visual")

    written = [r.features["tiny"].visual for r in results if r.features]
    np.testing.assert_array_equal(ragged.values, np.concatenate([v.values for v in written if v is not None]))
    assert ragged.video_ids == ("v0", "v1", "v2", "v3")
    assert ragged.offsets.tolist() == [0, 2, 2, 6, 8]
    np.testing.assert_array_equal(ragged.start_s[ragged.rows_of(2)], [0, 1, 2, 3])
    np.testing.assert_array_equal(ragged.end_s, ragged.start_s + 1)
    assert ragged.valid.all()
    assert ragged.values.dtype == np.float32


def test_store_video_table_keeps_every_column(tmp_path: Path) -> None:
    store = sample.make(tmp_path / "s", [sample.result(5), sample.quarantined(6)])
    table = store.videos()
    assert table.ids == ["v5", "v6"]
    assert table.uris == ["/media/v5.mp4", "/media/v6.mp4"]
    assert table.status == ["extracted", "quarantined"]
    assert table.reason == ["", "not_media"]
    assert table.detail == ["", "no demuxer knows it"]
    assert table.sha256[0] == f"{5:064x}"
    assert table.bytes.tolist() == [105, 106]
    assert table.unit.tolist() == [2, 3]
    assert table.attempts.tolist() == [1, 1]
    assert table.media[0] == '{"streams":["video","audio"],"t0":"0"}'
    assert table.duration_s[0] == 4.0
    assert np.isnan(table.duration_s[1])


def test_store_outcomes_are_aligned_with_videos(tmp_path: Path) -> None:
    store = sample.make(tmp_path / "s", [sample.result(0), sample.quarantined(1), sample.result(2)])
    outcomes = store.outcomes("tiny")
    assert outcomes.row_start.tolist() == [0, -1, 2]
    assert outcomes.row_count.tolist() == [2, 0, 4]
    assert outcomes.status == ["extracted", "quarantined", "extracted"]


@pytest.mark.parametrize("order", ["as stored", "reversed", "twice", "every third", "none"])
def test_store_subset_read_equals_a_loop_over_single_videos(tmp_path: Path, order: str) -> None:
    results = [sample.result(i) if i % 5 else sample.quarantined(i) for i in range(40)]
    store = sample.make(tmp_path / "s", results)
    ids = [r.video.id for r in results]
    wanted = {
        "as stored": ids,
        "reversed": ids[::-1],
        "twice": ["v7", "v3", "v7", "v0"],
        "every third": ids[::3],
        "none": [],
    }[order]
    by_id = {r.video.id: np.empty((0, 4), np.float32) for r in results}
    for made in results:
        for rows in made.features.values():
            by_id[made.video.id] = dict(rows.modalities())["audio"].values

    ragged = store.read("tiny", "audio", wanted)

    assert len(ragged) == len(wanted)
    for k, video_id in enumerate(wanted):
        np.testing.assert_array_equal(ragged.values[ragged.rows_of(k)], by_id[video_id])


def test_store_read_of_unknown_things_names_them(tmp_path: Path) -> None:
    store = sample.make(tmp_path / "s", [sample.result(0)])
    with pytest.raises(ValueError, match=r"no video 'nope' \(1 such ids of 2\)"):
        store.read("tiny", "visual", ["v0", "nope"])
    with pytest.raises(ValueError, match="no recipe 'other'; it has: tiny"):
        store.read("other", "visual")
    with pytest.raises(ValueError, match="visual or audio, got 'smell'"):
        store.read("tiny", "smell")


def test_store_recipes_tell_settings_shapes_card_and_rows(tmp_path: Path) -> None:
    store = sample.make(tmp_path / "s", [sample.result(0), sample.result(1)])
    entry = store.recipes()["tiny"]
    assert entry.recipe == sample.recipe()
    assert entry.fingerprint == sample.recipe().fingerprint()
    assert (entry.visual_shape, entry.audio_shape, entry.rows) == ((6,), (4,), 5)
    assert entry.card == {"licence": "none"}


def test_store_ids_of_any_text_come_back(tmp_path: Path) -> None:
    from catalog.video import Video

    ids = ["a/b c.mp4", "line\nbreak", "-dash", "ünïcødé 猫", "…" * 300, "\t", "%00", "."]
    results = [sample.result(i, video=Video(id=text, uri=f"/m/{text}")) for i, text in enumerate(ids)]
    store = sample.make(tmp_path / "s", results)
    assert store.videos().ids == ids
    assert store.videos().uris == [f"/m/{text}" for text in ids]
    assert len(store.read("tiny", "visual", [ids[4]]).values) == 2 + 4 % 3


def test_store_at_tag_reads_the_past_and_refuses_writing(tmp_path: Path) -> None:
    store = sample.make(tmp_path / "s", [sample.result(0)])
    first = store.tag("v1")
    with open_writer(store) as writer:
        writer.append([sample.result(1)], ["tiny"])
        second = writer.commit("more")

    old, by_id = open_store(tmp_path / "s", at="v1"), open_store(tmp_path / "s", at=first)
    assert old.videos().ids == by_id.videos().ids == ["v0"]
    assert open_store(tmp_path / "s").videos().ids == ["v0", "v1"]
    assert (old.snapshot_id, open_store(tmp_path / "s").snapshot_id) == (first, second)
    assert store.tags() == {"v1": first}
    with pytest.raises(StoreError, match="opened at v1, which is past"):
        open_writer(old)
    with pytest.raises(ValueError, match="'v1' stands at"):
        store.tag("v1")
    with pytest.raises(StoreError, match="no tag or snapshot 'v2'; its tags: v1"):
        open_store(tmp_path / "s", at="v2")


def test_store_log_tells_commits_newest_first(tmp_path: Path) -> None:
    store = sample.make(tmp_path / "s", [sample.result(0)])
    log = store.log()
    assert [commit.message for commit in log][:2] == ["sample", "Empty store"]
    assert log[0].snapshot_id == store.snapshot_id
    assert log[0].written_at >= log[1].written_at


def test_store_labels_round_trip(tmp_path: Path) -> None:
    store = sample.make(tmp_path / "s", [sample.result(0)])
    text_KD = sample.features(3, 2, 5)
    with open_writer(store) as writer:
        writer.write_labels("tiny", "ave", ["Church bell", "Frying (food)"], text_KD)
        writer.commit("labels")
    labels = open_store(tmp_path / "s").labels("tiny", "ave")
    assert labels.names == ("Church bell", "Frying (food)")
    np.testing.assert_array_equal(labels.features, text_KD)
    assert store.vocabularies("tiny") == ["ave"]
    with pytest.raises(ValueError, match="no labels 'unav'; it has: ave"):
        store.labels("tiny", "unav")


def test_open_store_where_there_is_none_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    for name, said in (
        ("absent", "nothing exists at this path"),
        ("file", "not a store but a file"),
        ("empty", "the folder is empty"),
        ("other", "no store there"),
    ):
        before = sorted(tmp_path.rglob("*"))
        assert not exists(tmp_path / name)
        with pytest.raises(StoreError, match=said):
            open_store(tmp_path / name)
        assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(ValueError, match="local path, s3:// or memory://, got 'ftp://x/y'"):
        open_store("ftp://x/y")


def test_create_store_refuses_a_place_in_use(tmp_path: Path) -> None:
    sample.make(tmp_path / "s", [sample.result(0)])
    with pytest.raises(StoreError, match="already exists; open it"):
        create_store(tmp_path / "s")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    with pytest.raises(StoreError, match=r"not empty \('notes.txt', 1 in all\)"):
        create_store(tmp_path / "other")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="a file lies there"):
        create_store(tmp_path / "file")
    assert open_store(tmp_path / "s").videos().ids == ["v0"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "other", "s"]


def test_open_store_of_a_foreign_repository_says_so(tmp_path: Path) -> None:
    icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "s")))
    assert not exists(tmp_path / "s")
    with pytest.raises(StoreError, match="not an avel store"):
        open_store(tmp_path / "s")


def _array(root: zarr.Group, path: str) -> zarr.Array[Any]:
    array = root[path]
    assert isinstance(array, zarr.Array)
    return array


def _newer(root: zarr.Group) -> None:
    root.attrs["avel_format"] = 2


def _no_column(root: zarr.Group) -> None:
    del root["videos/sha256"]


def _short_column(root: zarr.Group) -> None:
    _array(root, "videos/uri").resize((1,))


def _wrong_type(root: zarr.Group) -> None:
    del root["videos/bytes"]
    root.create_array("videos/bytes", shape=(2,), dtype="float32")


def _short_rows(root: zarr.Group) -> None:
    _array(root, "features/tiny/visual").resize((1, 6))


def _other_recipe(root: zarr.Group) -> None:
    root["features/tiny"].attrs["recipe"] = sample.recipe(revision=9).to_json()


def _no_recipe(root: zarr.Group) -> None:
    root["features/tiny"].attrs["recipe"] = "{"


def _bad_shape(root: zarr.Group) -> None:
    root["features/tiny"].attrs["visual_shape"] = [-6]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_newer, "format 2, this avel reads up to 1"),
        (_no_column, "no array videos/sha256"),
        (_short_column, "videos/uri: damaged: needs 2 entries as its neighbours, has 1"),
        (_wrong_type, "videos/bytes: damaged: needs one dimension of int64"),
        (_short_rows, "tiny/visual: damaged: needs float32"),
        (_other_recipe, "fingerprint is not that of its settings"),
        (_no_recipe, "a recipe must be JSON"),
        (_bad_shape, "numbers above 0"),
    ],
)
def test_open_store_of_a_wrong_layout_names_the_place(
    tmp_path: Path, change: Callable[[zarr.Group], None], said: str
) -> None:
    sample.make(tmp_path / "s", [sample.result(0), sample.result(1)])
    _edit(tmp_path / "s", change)
    with pytest.raises(StoreError, match=said):
        open_store(tmp_path / "s")
    assert exists(tmp_path / "s")  # nothing is to be written over it


def test_outcomes_that_reach_beyond_the_rows_are_refused(tmp_path: Path) -> None:
    sample.make(tmp_path / "s", [sample.result(0), sample.result(1)])

    def reach(root: zarr.Group) -> None:
        _array(root, "features/tiny/row_count")[1] = 1000

    _edit(tmp_path / "s", reach)
    with pytest.raises(StoreError, match="reach beyond the 5 rows"):
        open_store(tmp_path / "s").read("tiny", "visual")


def test_open_store_with_damaged_files_is_an_error_of_one_line(tmp_path: Path) -> None:
    sample.make(tmp_path / "s", [sample.result(0)])
    for snapshot in (tmp_path / "s" / "snapshots").iterdir():
        snapshot.write_bytes(b"not a snapshot")
    with pytest.raises(StoreError) as caught:
        open_store(tmp_path / "s")
    assert "\n" not in str(caught.value)


def test_read_of_a_lost_chunk_is_an_error(tmp_path: Path) -> None:
    store = sample.make(tmp_path / "s", [sample.result(i, count=200) for i in range(4)])
    for chunk in (tmp_path / "s" / "chunks").iterdir():
        chunk.unlink()
    with pytest.raises(StoreError, match=r"part of a store: chunks/.* is missing"):
        open_store(tmp_path / "s").read("tiny", "visual")
    del store


def test_read_of_a_chunk_with_a_turned_bit_is_an_error(tmp_path: Path) -> None:
    sample.make(tmp_path / "s", [sample.result(i, count=200) for i in range(4)])
    largest = max((tmp_path / "s" / "chunks").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    said = []
    for modality in ("visual", "audio"):
        try:
            open_store(tmp_path / "s").read("tiny", modality)
        except StoreError as error:
            said.append(str(error))
    assert len(said) == 1  # the chunk is of one of the two
    assert "a chunk is not what was written" in said[0]


READER = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("catalog", "pipeline", "heads", "jobs", "torch", "ray"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())

# --- as in the README: icechunk and zarr, nothing else
import icechunk, zarr

repository = icechunk.Repository.open(icechunk.local_filesystem_storage(sys.argv[1]))
root = zarr.open_group(repository.readonly_session("main").store, mode="r")
recipe = root["features/tiny"]
start, count = recipe["row_start"][:], recipe["row_count"][:]
for i, video_id in enumerate(root["videos/id"][:]):
    rows = slice(start[i], start[i] + count[i]) if start[i] >= 0 else slice(0, 0)
    print(video_id, root["videos/status"][i], recipe["visual"][rows].sum(dtype="f8"), recipe["end_s"][rows].tolist())
"""


def test_store_is_read_by_zarr_and_icechunk_alone(tmp_path: Path) -> None:
    results = [sample.result(0), sample.quarantined(1)]
    sample.make(tmp_path / "s", results)
    environment: dict[str, Any] = {"PATH": "/usr/bin:/bin", "ICECHUNK_LOG": "error"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", READER, str(tmp_path / "s")],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    visual = results[0].features["tiny"].visual
    assert visual is not None
    total = visual.values.sum(dtype="f8")
    assert done.stdout.splitlines() == [f"v0 extracted {total} [1.0, 2.0]", "v1 quarantined 0.0 []"]


def test_store_prints_nothing_on_import_or_commit(tmp_path: Path) -> None:
    """Icechunk warns on standard output of local stores, which would spoil --json."""
    code = "import sys; from catalog.store.reader import create_store; create_store(sys.argv[1]).tag('x')"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], capture_output=True, text=True, check=True)
    assert done.stdout == ""
