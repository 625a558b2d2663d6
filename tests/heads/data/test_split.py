"""Splits out of real stores: every item in its place, and none lost."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import icechunk
import numpy as np
import pytest
import zarr

from catalog.dataset import Dataset, Item
from catalog.errors import RecipeMismatch
from catalog.event import Event
from catalog.store.writer import open_writer
from catalog.video import Video
from heads.data import split as read
from heads.data.split import find_recipe, read_split


def test_read_split_every_item_has_its_videos_features(tmp_path: Path, planted: ModuleType) -> None:
    data = planted.dataset(items_a_class=4)
    store = planted.store(tmp_path / "store", data)
    split = read_split(store, "descriptors-1s", data, "train")
    batch = split.batch(slice(None))
    assert [item.id for item in split.items] == [item.id for item in data.items if item.split == "train"]
    assert batch.visual is not None
    assert batch.audio is not None
    assert batch.visual.dtype == np.float32
    for n, item in enumerate(split.items):
        wanted = planted.rows_of(item, planted.recipe())
        np.testing.assert_array_equal(batch.visual[n], wanted.visual.values)
        np.testing.assert_array_equal(batch.audio[n], wanted.audio.values)
    assert batch.mask_BT.all()
    assert batch.visual_valid_BT.all()
    assert split.counted_NT.shape == (6, 10)


def test_read_split_two_items_of_one_video_share_rows(tmp_path: Path, planted: ModuleType) -> None:
    data = planted.dataset(items_a_class=4)
    first, second = (item for item in data.items if item.split == "train" and item.category == "Bark")
    doubled = replace(data, items=(first, replace(second, video_id=first.video_id), *data.items[4:]))
    store = planted.store(tmp_path / "store", data)
    split = read_split(store, "descriptors-1s", doubled, "train")
    np.testing.assert_array_equal(split.rows_NT[0], split.rows_NT[1])
    assert split.visual is not None
    assert len(split.visual.values) == 5 * 10


def test_read_split_absent_and_quarantined_videos_stay_as_items_without_segments(
    tmp_path: Path, planted: ModuleType
) -> None:
    data = planted.dataset(items_a_class=8)
    store = planted.store(tmp_path / "store", data, quarantined=["video-003"], missing=["video-007"])
    split = read_split(store, "descriptors-1s", data, "test")
    assert len(split.items) == 6
    assert split.absent == {"00003": "quarantined: empty_file", "00007": "not in the store"}
    assert split.counted_NT.all()
    batch = split.batch(slice(None))
    assert batch.mask_BT.sum(axis=1).tolist() == [0, 0, 10, 10, 10, 10]
    assert batch.visual is not None
    assert not batch.visual[:2].any()
    assert split.present.tolist() == [2, 3, 4, 5]


def test_read_split_nothing_extracted_gives_empty_features(tmp_path: Path, planted: ModuleType) -> None:
    data = planted.dataset(items_a_class=4)
    store = planted.store(tmp_path / "store", data, quarantined=[video.id for video in data.videos])
    batch = read_split(store, "descriptors-1s", data, "test").batch(slice(None))
    assert batch.audio is not None
    assert batch.audio.shape == (3, 10, 5)
    assert not batch.mask_BT.any()
    assert not batch.audio_valid_BT.any()


def test_read_split_short_and_long_videos_are_padded_and_cut(tmp_path: Path, planted: ModuleType) -> None:
    data = planted.dataset(items_a_class=4)
    rows = {
        item.video_id: planted.rows_of(item, planted.recipe(), seconds=seconds)
        for item, seconds in zip((item for item in data.items if item.split == "test"), (7, 10, 12), strict=True)
    }
    store = planted.store(tmp_path / "store", data, rows=rows)
    split = read_split(store, "descriptors-1s", data, "test")
    assert split.mask_NT.sum(axis=1).tolist() == [7, 10, 10]
    assert split.counted_NT.sum(axis=1).tolist() == [10, 10, 10]
    batch = split.batch(slice(None))
    np.testing.assert_array_equal(batch.visual_valid_BT, split.mask_NT)
    np.testing.assert_array_equal(batch.audio_valid_BT, split.mask_NT)
    batch = split.batch(np.array([2]))
    assert batch.audio is not None
    np.testing.assert_array_equal(batch.audio[0], rows[split.items[2].video_id].audio.values[:10])
    assert read_split(store, "descriptors-1s", data, "test", num_segments=4).rows_NT.shape == (3, 4)


def test_read_split_invalid_features_are_zero_and_known(tmp_path: Path, planted: ModuleType) -> None:
    data = planted.dataset(items_a_class=4)
    item = data.split("val")[0]
    lost = np.arange(10) < 3
    rows = {item.video_id: planted.without(planted.rows_of(item, planted.recipe()), audio=lost)}
    store = planted.store(tmp_path / "store", data, rows=rows)
    batch = read_split(store, "descriptors-1s", data, "val").batch(slice(0, 1))
    assert batch.audio_valid_BT[0].tolist() == (~lost).tolist()
    assert batch.visual_valid_BT.all()
    assert batch.audio is not None
    assert not batch.audio[0, :3].any()
    assert np.isfinite(batch.audio).all()


def test_read_split_not_finite_though_called_valid_is_not_valid(tmp_path: Path, planted: ModuleType) -> None:
    data = planted.dataset(items_a_class=4)
    store = planted.store(tmp_path / "store", data)
    first = int(store.outcomes("descriptors-1s").row_start[store.videos().ids.index(data.split("val")[0].video_id)])
    # Ours refuses to write such rows; the format is open, and another's writer may not.
    storage = icechunk.local_filesystem_storage(str(tmp_path / "store"))
    session = icechunk.Repository.open(storage).writable_session("main")
    visual = zarr.open_group(session.store)["features/descriptors-1s/visual"]
    assert isinstance(visual, zarr.Array)
    visual[first + 2, 1], visual[first + 5, 0] = np.nan, np.inf
    session.commit("by another writer")
    store.refresh()
    batch = read_split(store, "descriptors-1s", data, "val").batch(slice(0, 1))
    assert batch.visual is not None
    assert np.flatnonzero(~batch.visual_valid_BT[0]).tolist() == [2, 5]
    assert not batch.visual[0, [2, 5]].any()
    assert np.isfinite(batch.visual).all()


def test_read_split_maps_pooled_in_slices_equal_mean_over_places(
    tmp_path: Path, planted: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = planted.dataset(items_a_class=4)
    store = planted.store(tmp_path / "store", data, visual_shape=(2, 3, 4))
    whole = read_split(store, "descriptors-1s", data, "train").batch(slice(None))
    monkeypatch.setattr(read, "_BLOCK_BYTES", 1500)  # a video or two a slice
    pooled = read_split(store, "descriptors-1s", data, "train", pool_places=True).batch(slice(None))
    assert whole.visual is not None
    assert pooled.visual is not None
    assert whole.visual.shape == (6, 10, 2, 3, 4)
    np.testing.assert_allclose(pooled.visual, whole.visual.mean(axis=(2, 3)), rtol=1e-5, atol=1e-6)  # order of sums


def test_read_split_in_slices_and_mapped_is_the_same(
    tmp_path: Path, planted: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = planted.dataset(items_a_class=8)
    store = planted.store(tmp_path / "store", data, quarantined=["video-003"])
    whole = read_split(store, "descriptors-1s", data, "train")
    monkeypatch.setattr("heads.data.split._BLOCK_BYTES", 700)
    monkeypatch.setattr("heads.data.split.MAPPED_BYTES", 100)
    mapped = read_split(store, "descriptors-1s", data, "train")
    assert whole.visual is not None and whole.audio is not None  # noqa: PT018  # for the type checker
    assert mapped.visual is not None and mapped.audio is not None  # noqa: PT018  # for the type checker
    for one, other in ((whole.visual, mapped.visual), (whole.audio, mapped.audio)):
        assert isinstance(other.values, np.memmap)
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.valid, other.valid)
    np.testing.assert_array_equal(whole.rows_NT, mapped.rows_NT)


def test_read_split_items_of_any_length_count_features_or_events(tmp_path: Path, planted: ModuleType) -> None:
    def row(video_id: str, end_s: int) -> Item:
        event = Event(start_s=Fraction(0), end_s=Fraction(end_s), label="Bark")
        return Item(id=video_id, video_id=video_id, split="test", events=(event,))

    videos = tuple(Video(id=i, uri=f"{i}.mp4", duration_s=Fraction(6) if i == "gone" else None) for i in "abc")
    videos += (Video(id="gone", uri="gone.mp4", duration_s=Fraction(6)),)
    items = (row("a", 2), row("b", 3), row("c", 8), row("gone", 2))
    data = Dataset(
        name="dense", classes=planted.CLASSES, items=items, videos=videos, num_segments=None, background=None
    )
    lengths_s = (4, 3, 5)
    rows = {
        item.id: planted.rows_of(item, planted.recipe(), seconds=seconds)
        for item, seconds in zip(items[:3], lengths_s, strict=True)
    }
    store = planted.store(tmp_path / "store", data, rows=rows, missing=["gone"])
    split = read_split(store, "descriptors-1s", data, "test")
    assert split.mask_NT.sum(axis=1).tolist() == [4, 3, 5, 0]
    assert split.counted_NT.sum(axis=1).tolist() == [4, 3, 8, 6]  # c: truncated, its event reaches 8 s


def test_read_split_too_long_for_memory_names_the_longest(tmp_path: Path, planted: ModuleType) -> None:
    data = planted.dataset(items_a_class=4)
    event = Event(start_s=Fraction(0), end_s=Fraction(10**12), label=data.classes[0])
    store = planted.store(tmp_path / "store", data)
    first, *rest = data.split("test")
    data = replace(data, items=(replace(first, events=(event,)), *rest), num_segments=None)
    with pytest.raises(ValueError, match=rf"up to 1,000,000,000,000 segments .*; the longest is {first.id}"):
        read_split(store, "descriptors-1s", data, "test")


def test_read_split_half_second_grid_has_twenty_segments(tmp_path: Path, planted: ModuleType) -> None:
    data = planted.dataset(items_a_class=4)
    half = planted.recipe("half", window_s="1/2", hop_s="1/2")
    store = planted.store(tmp_path / "store", data, half)
    assert read_split(store, "half", data, "test").mask_NT.sum(axis=1).tolist() == [20, 20, 20]


def test_read_split_unknown_recipe_or_empty_split_raises(tmp_path: Path, planted: ModuleType) -> None:
    data = planted.dataset(items_a_class=4)
    store = planted.store(tmp_path / "store", data)
    with pytest.raises(ValueError, match="no recipe 'other'; it has descriptors-1s"):
        read_split(store, "other", data, "test")
    with pytest.raises(ValueError, match="no item in split 'val'"):
        read_split(store, "descriptors-1s", replace(data, items=data.split("train")), "val")


def test_find_recipe_same_settings_under_another_name_is_found(tmp_path: Path, planted: ModuleType) -> None:
    store = planted.store(tmp_path / "store", planted.dataset(items_a_class=4), planted.recipe("mine"))
    assert find_recipe(store, planted.recipe()) == "mine"


def test_find_recipe_held_under_two_names_takes_its_own(tmp_path: Path, planted: ModuleType) -> None:
    store = planted.store(tmp_path / "store", planted.dataset(items_a_class=4), planted.recipe("a-copy"))
    with open_writer(store) as writer:
        writer.ensure_recipe(planted.recipe(), visual_shape=(6,), audio_shape=(5,), card={})
        writer.commit("a second name")
    store.refresh()
    assert set(store.recipes()) == {"a-copy", "descriptors-1s"}
    assert find_recipe(store, planted.recipe()) == "descriptors-1s"
    assert find_recipe(store, planted.recipe("third")) == "a-copy"


def test_find_recipe_other_settings_names_both_and_the_difference(tmp_path: Path, planted: ModuleType) -> None:
    held, wanted = planted.recipe(hop_s="1/2"), planted.recipe()
    store = planted.store(tmp_path / "store", planted.dataset(items_a_class=4), held)
    with pytest.raises(RecipeMismatch, match=r"grid.hop_s: needs 1, store has 1/2") as caught:
        find_recipe(store, wanted)
    assert held.fingerprint()[:12] in str(caught.value)
    assert wanted.fingerprint()[:12] in str(caught.value)
    assert caught.value.differences == [("grid.hop_s", "1/2", "1")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "videos/{}.mp4",
            r"looked for 'video-\d+', 'video-\d+' and 4 more; it has 'videos/video-\d+.mp4', .* extracted as a folder, "
            r".* `avel extract --dataset NAME --root DIR --media FOLDER`",
        ),
        ("other-{}", r"it has 'other-video-\d+', .* and 22 more; give the store of this data set"),
    ],
)
def test_read_split_of_a_store_with_other_ids_says_which_it_looked_for_and_which_there_are(
    tmp_path: Path, planted: ModuleType, name: str, said: str
) -> None:
    data = planted.dataset(items_a_class=8)
    renamed = {video.id: name.format(video.id) for video in data.videos}
    items = tuple(replace(item, video_id=renamed[item.video_id]) for item in data.items)
    videos = tuple(replace(video, id=renamed[video.id]) for video in data.videos)
    store = planted.store(tmp_path / "store", replace(data, items=items, videos=videos))
    split = read_split(store, "descriptors-1s", data, "test")
    (why,) = set(split.absent.values())
    assert len(split.absent) == 6
    assert re.search(said, why), why
