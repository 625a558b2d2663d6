"""What every exchange format promises: an export that is imported gives the same features, outcomes and recipe."""

from __future__ import annotations

import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest

from catalog.dataset import Dataset, Item
from catalog.exchange.importing import Stated, import_features
from catalog.exchange.sidecar import formats
from catalog.store.modal import Modal
from catalog.store.reader import FeatureStore, create_store, open_store
from catalog.store.writer import open_writer
from catalog.video import Video
from tests import sample_store as sample

FORMATS = sorted(formats())
IDS = ["plain", "-dash", "a/b.mp4", "../up", "line\nbreak", ".hidden", "long%x", "猫", "x" * 300, "100%"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Read by the tests, never written."""
    return _source(tmp_path_factory.mktemp("source") / "source")


def _source(path: Path) -> FeatureStore:
    """Videos of all kinds: odd ids, sound only, picture only, rows not computed, quarantined, retried."""
    results = [sample.result(i, video=Video(id=text, uri=f"/m/{i}.mp4"), count=3 + i % 2) for i, text in enumerate(IDS)]
    results += [
        sample.quarantined(20),
        sample.result(21, status="partial", reason="no_audio", features={"tiny": sample.rows(21, 4, audio=False)}),
        sample.result(22, status="partial", reason="no_video", features={"tiny": sample.rows(22, 3, visual=False)}),
        sample.result(23, features={"tiny": sample.rows(23, 4, invalid=(0, 3))}),
    ]
    store: FeatureStore = sample.make(path, results)
    with open_writer(store) as writer:
        writer.append([sample.result(20, count=2)], ["tiny"], replace=True)
        writer.append([sample.quarantined(24)], ["tiny"])
        writer.commit("retry")
    return store


def _told(store: FeatureStore) -> list[object]:
    """All that a reader can ask of a recipe, in comparable form."""
    table, outcomes, entry = store.videos(), store.outcomes("tiny"), store.recipe("tiny")
    told: list[object] = [entry.recipe, entry.visual_shape, entry.audio_shape, dict(entry.card)]
    told += [table.ids, table.uris, table.sha256, table.bytes.tolist(), table.status, table.reason, table.detail]
    told += [table.media, table.unit.tolist(), [None if math.isnan(d) else d for d in table.duration_s]]
    told += [outcomes.status, outcomes.reason, outcomes.detail, outcomes.row_count.tolist(), outcomes.attempts.tolist()]
    for modality in ("visual", "audio"):
        ragged = store.read("tiny", modality)
        told += [ragged.values.tobytes(), ragged.valid.tolist(), ragged.start_s.tolist(), ragged.end_s.tolist()]
    return told


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("fill", [math.nan, 0.0])
def test_export_and_import_give_the_same_store(source: FeatureStore, tmp_path: Path, name: str, fill: float) -> None:
    formats()[name].export(source, "tiny", tmp_path / "out", fill=fill)
    import_features(formats()[name], tmp_path / "out", str(tmp_path / "back"))
    assert _told(open_store(tmp_path / "back")) == _told(source)


@pytest.mark.parametrize("name", FORMATS)
def test_small_slabs_change_nothing(
    source: FeatureStore, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sidecar", "importing", "formats.ave_hdf5", "formats.unav_npy", "formats.plain_zarr"):
        monkeypatch.setattr(f"catalog.exchange.{module}.SLAB_BYTES", 100)
    formats()[name].export(source, "tiny", tmp_path / "out")
    import_features(formats()[name], tmp_path / "out", str(tmp_path / "back"))
    assert _told(open_store(tmp_path / "back")) == _told(source)


@pytest.mark.parametrize("name", FORMATS)
def test_import_into_a_store_adds_a_recipe_and_changes_nothing(source: FeatureStore, tmp_path: Path, name: str) -> None:
    formats()[name].export(source, "tiny", tmp_path / "out")
    other = create_store(tmp_path / "other")
    with open_writer(other) as writer:
        writer.ensure_recipe(sample.recipe("first"), visual_shape=(6,), audio_shape=(4,), card={})
        writer.append([sample.result(21, names=("first",))], ["first"])
        writer.commit("first")
    before = other.read("first", "visual").values
    import_features(formats()[name], tmp_path / "out", str(tmp_path / "other"))
    both = open_store(tmp_path / "other")
    assert sorted(both.recipes()) == ["first", "tiny"]
    np.testing.assert_array_equal(both.read("first", "visual").values, before)
    ids = source.videos().ids
    np.testing.assert_array_equal(both.read("tiny", "audio", ids).values, source.read("tiny", "audio", ids).values)


@pytest.mark.parametrize("name", FORMATS)
def test_import_of_a_damaged_sidecar_says_what_is_wrong(source: FeatureStore, tmp_path: Path, name: str) -> None:
    formats()[name].export(source, "tiny", tmp_path / "out")
    path = tmp_path / "out" / "videos.json"
    whole = json.loads(path.read_text())

    def refuses(said: str, **changes: object) -> None:
        path.write_text(json.dumps(whole | changes))
        with pytest.raises(ValueError, match=said):
            import_features(formats()[name], tmp_path / "out", str(tmp_path / "back"))

    refuses("newer avel", avel_exchange=2)
    refuses("read as", format="other")
    refuses("recipe: field 'encoder' is missing", recipe={"name": "x"})
    refuses(r"videos\.0\.unit must be given", videos=[{k: v for k, v in whole["videos"][0].items() if k != "unit"}])
    refuses("one digit a row", videos=[whole["videos"][0] | {"rows": 999}])
    path.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        import_features(formats()[name], tmp_path / "out", str(tmp_path / "back"))


# -- AVE


def _ave(ids: list[str]) -> Dataset:
    """A stand-in for a data set: items in the order of Annotations.txt, one video for two of them."""

    return Dataset(
        name="ave",
        classes=("Bark",),
        items=tuple(
            Item(id=f"{i:05d}", video_id=v, split="train", events=(), category="Bark") for i, v in enumerate(ids)
        ),
        videos=tuple(Video(id=v, uri=f"/m/{v}") for v in dict.fromkeys(ids)),
        num_segments=3,
        background="background",
    )


def test_ave_h5_rows_are_the_items_of_the_data_set(tmp_path: Path) -> None:
    store = sample.make(
        tmp_path / "s", [sample.result(1, count=3), sample.result(2, count=4), sample.result(3, count=2)]
    )
    dataset = _ave(["v2", "absent", "v1", "v2", "v3"])
    told = formats()["ave-h5"].export(store, "tiny", tmp_path / "out", dataset=dataset)
    assert told == {"rows": 5, "segments": 3, "absent_videos": 1, "cut_videos": 1}
    with h5py.File(tmp_path / "out" / "audio_feature.h5") as file:
        assert list(file) == ["avadataset"]
        data = file["avadataset"][:]
    assert data.shape == (5, 3, 4)
    audio = {i: sample.rows(i, c).audio.values for i, c in ((1, 3), (2, 4), (3, 2))}
    np.testing.assert_array_equal(data[0], audio[2][:3])
    np.testing.assert_array_equal(data[3], audio[2][:3])
    np.testing.assert_array_equal(data[2], audio[1])
    assert np.isnan(data[1]).all()
    np.testing.assert_array_equal(data[4, :2], audio[3])
    assert np.isnan(data[4, 2]).all()


def test_ave_h5_of_others_needs_the_data_set_and_the_grid(tmp_path: Path) -> None:
    from fractions import Fraction

    from catalog.grid import GridRule

    audio = sample.features(0, 12, 4).reshape(4, 3, 4).astype("float64")
    with h5py.File(tmp_path / "audio_feature.h5", "w") as file:
        file["avadataset"] = audio
    plugin, grid = formats()["ave-h5"], GridRule(window_s=Fraction(1), hop_s=Fraction(1))
    with pytest.raises(ValueError, match="--dataset ave"):
        import_features(plugin, tmp_path, str(tmp_path / "s"), Stated(grid=grid))
    with pytest.raises(ValueError, match="--window and --hop"):
        import_features(plugin, tmp_path, str(tmp_path / "s"), Stated(dataset=_ave(["a", "b", "a", "c"])))
    with pytest.raises(ValueError, match=r"needs 3 rows, one an item; the files have \{'audio': 4\}"):
        import_features(plugin, tmp_path, str(tmp_path / "s"), Stated(dataset=_ave(["a", "b", "c"]), grid=grid))
    store = import_features(
        plugin, tmp_path, str(tmp_path / "s"), Stated(name="vggish", dataset=_ave(["a", "b", "a", "c"]), grid=grid)
    )
    assert store.videos().ids == ["a", "b", "c"]
    ragged = store.read("vggish", "audio", ["c", "a"])
    np.testing.assert_array_equal(ragged.values, np.concatenate([audio[3], audio[0]]).astype("float32"))
    assert ragged.end_s[:3].tolist() == [1, 2, 3]
    entry = store.recipe("vggish")
    assert (entry.recipe.encoder, entry.visual_shape) == ("imported", None)
    assert entry.card["imported_from"] == str(tmp_path)


def test_ave_h5_data_that_lie_elsewhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(48))
    with h5py.File(tmp_path / "audio_feature.h5", "w") as file:
        file.create_dataset("avadataset", (1, 3, 4), "float32", external=[(str(tmp_path / "secret"), 0, 48)])
    with h5py.File(tmp_path / "visual_feature.h5", "w") as file:
        file["avadataset"] = h5py.ExternalLink(str(tmp_path / "audio_feature.h5"), "/avadataset")
    for name in ("visual", "audio"):
        with pytest.raises(ValueError, match=f"{name}_feature.h5: needs one plain data set"):
            import_features(formats()["ave-h5"], tmp_path, str(tmp_path / "s"))
        (tmp_path / f"{name}_feature.h5").unlink()
    with pytest.raises(ValueError, match="neither is there"):
        import_features(formats()["ave-h5"], tmp_path, str(tmp_path / "s"))


# -- UnAV


def test_unav_npy_file_names_stay_in_the_folder_and_differ(tmp_path: Path) -> None:
    formats()["unav-npy"].export(_source(tmp_path / "source"), "tiny", tmp_path / "out")
    names = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.npy") if path.parent.name == "out"]
    assert (
        len(names)
        == len(set(names))
        == len(list(tmp_path.glob("**/*_visual.npy"))) + len(list(tmp_path.glob("**/*_audio.npy")))
    )
    assert "out/-dash_visual.npy" in names  # YouTube ids: published loaders open them by that name
    assert "out/%2E.%2Fup_visual.npy" in names
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "source"]


def test_unav_npy_i3d_is_split_into_rgb_and_flow(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s")
    recipe = sample.recipe("i3d-vggish-unav")
    visual, audio = sample.features(1, 5, 2048), sample.features(2, 5, 128)
    rows = type(sample.rows(1, 5))(
        visual=Modal(values=visual, valid=np.ones(5, bool)),
        audio=Modal(values=audio, valid=np.ones(5, bool)),
        start_s=np.arange(5.0),
        end_s=np.arange(5.0) + 1,
    )
    with open_writer(store) as writer:
        writer.ensure_recipe(recipe, visual_shape=(2048,), audio_shape=(128,), card={})
        writer.append([sample.result(1, features={recipe.name: rows})], [recipe.name])
        writer.commit("one")
    formats()["unav-npy"].export(store, recipe.name, tmp_path / "out")
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "v1_rgb.npy"), visual[:, :1024])
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "v1_flow.npy"), visual[:, 1024:])
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "v1_vggish.npy"), audio)
    back = import_features(formats()["unav-npy"], tmp_path / "out", str(tmp_path / "back"))
    np.testing.assert_array_equal(back.read(recipe.name, "visual").values, visual)


def test_unav_npy_of_others_is_cut_to_the_shorter_modality(tmp_path: Path) -> None:
    from fractions import Fraction

    from catalog.grid import GridRule

    source = tmp_path / "in"
    source.mkdir()
    visual, audio = sample.features(1, 7, 8), sample.features(2, 5, 3)
    visual[2] = np.nan
    np.save(source / "-abc_one_peace_video_finetune.npy", visual)
    np.save(source / "-abc_one_peace_audio.npy", audio)
    np.save(source / "def_one_peace_audio.npy", audio[:2])
    plugin = formats()["unav-npy"]
    with pytest.raises(ValueError, match="--window and --hop"):
        import_features(plugin, source, str(tmp_path / "s"))
    grid = GridRule(window_s=Fraction(1), hop_s=Fraction(1, 4), tail="drop")
    store = import_features(plugin, source, str(tmp_path / "s"), Stated(name="op", grid=grid))
    assert store.videos().ids == ["-abc", "def"]
    assert store.outcomes("op").status == ["extracted", "partial"]
    ragged = store.read("op", "visual")
    assert ragged.valid.tolist() == [True, True, False, True, True, False, False]
    np.testing.assert_array_equal(ragged.values[:5], visual[:5])
    assert ragged.start_s[:3].tolist() == [0, 0.25, 0.5]


def test_unav_npy_with_a_pickle_in_it_is_refused(tmp_path: Path) -> None:
    formats()["unav-npy"].export(sample.make(tmp_path / "s", [sample.result(1)]), "tiny", tmp_path / "out")
    np.save(tmp_path / "out" / "v1_visual.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"cannot be read as a plain \.npy file"):
        import_features(formats()["unav-npy"], tmp_path / "out", str(tmp_path / "back"))


def test_plain_zarr_offsets_say_whose_rows_they_are(source: FeatureStore, tmp_path: Path) -> None:
    import zarr

    formats()["zarr"].export(source, "tiny", tmp_path / "out")
    root = zarr.open_group(str(tmp_path / "out"), mode="r")
    offsets = np.asarray(root["offsets"])
    videos = json.loads((tmp_path / "out" / "videos.json").read_text())["videos"]
    k = [video["id"] for video in videos].index("v20")
    np.testing.assert_array_equal(
        np.asarray(root["visual"])[offsets[k] : offsets[k + 1]], sample.rows(20, 2).visual.values
    )
