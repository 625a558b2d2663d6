"""`avel synth-features` through the command line: written, read by heads, trained on, refused, replaced."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog import dataset as registry
from catalog.datasets import synthetic
from catalog.store.reader import create_store, open_store
from catalog.store.writer import open_writer
from catalog.synthetic import planting
from heads.data.split import read_split
from jobs.cli.main import main, verbs

VERB = next(verb.words[0] for verb in verbs() if verb.module == "jobs.synth_features.verb")
LAYOUTS = ("ave", "ovavebench", "unav100")


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Official annotation files of 30 made-up videos in each layout."""
    found = {}
    for layout in LAYOUTS:
        found[layout] = tmp_path_factory.mktemp(layout)
        plan = synthetic.plan(synthetic.Settings(layout=layout, videos=30, seed=1), found[layout])
        registry.plugin(layout).write(plan.dataset, found[layout])
    return found


def words(roots: dict[str, Path], layout: str, store: Path, *more: str) -> list[str]:
    return [VERB, layout, "--root", str(roots[layout]), "--store", str(store), *more]


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_store_is_sound_and_read_by_heads_as_the_world_has_it(
    roots: dict[str, Path], tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(roots, layout, tmp_path / "s", "--seed", "7", "--json")) == 0
    summary = told(capsys)
    dataset = registry.load(layout, roots[layout])
    store = open_store(tmp_path / "s")
    assert (summary["videos"], summary["snapshot"]) == (30, store.snapshot_id)
    name = summary["recipe"]
    assert name == f"planted-{layout}"
    entry = store.recipe(name)
    assert entry.fingerprint == summary["fingerprint"]
    assert entry.recipe.encoder == "planted"
    assert entry.recipe.settings["seed"] == entry.recipe.settings["noise_seed"] == 7
    assert entry.card["planted"] == layout

    benchmark = planting.plugin(layout)
    world = benchmark.World(dataset, planting.settings_from(benchmark, {"seed": "7", "noise_seed": "7"}))
    rows = 0
    for split_name in ("train", "val", "test"):
        split = read_split(store, name, dataset, split_name)
        assert not split.absent
        batch = split.batch(slice(None))
        assert batch.visual is not None
        assert batch.audio is not None
        np.testing.assert_array_equal(batch.visual_valid_BT, batch.mask_BT)
        for i, item in enumerate(split.items):
            visual, audio = world.features(item.video_id)
            np.testing.assert_array_equal(batch.visual[i, : len(visual)], visual)
            np.testing.assert_array_equal(batch.audio[i, : len(audio)], audio)
            assert batch.mask_BT[i].sum() == len(visual)
            rows += len(visual)
    assert summary["rows"] == entry.rows == rows

    arguments = [str(tmp_path / "s"), "--json"]
    assert main(["store", "inspect", *arguments]) == 0
    assert main(["store", "verify", *arguments, "--dataset", layout, "--root", str(roots[layout])]) == 0


def test_ovavebench_stores_texts_as_labels_with_other_last(roots: dict[str, Path], tmp_path: Path) -> None:
    assert main(words(roots, "ovavebench", tmp_path / "s")) == 0
    store, dataset = open_store(tmp_path / "s"), registry.load("ovavebench", roots["ovavebench"])
    assert store.vocabularies("planted-ovavebench") == ["ovavebench"]
    labels = store.labels("planted-ovavebench", "ovavebench")
    assert labels.names == (*dataset.classes, "other")
    assert labels.features.shape == (len(labels.names), 96)
    np.testing.assert_allclose(np.linalg.norm(labels.features, axis=1), 1, atol=1e-6)


def test_ave_stores_maps_and_a_head_learns_from_them(
    roots: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(roots, "ave", tmp_path / "s", "--places", "9", "--scale-to", "64")) == 0
    entry = open_store(tmp_path / "s").recipe("planted-ave")
    assert (entry.visual_shape, entry.audio_shape) == ((9, 64), (64,))
    capsys.readouterr()
    places = ["--store", str(tmp_path / "s"), "--dataset", "ave", "--root", str(roots["ave"])]
    how = ["--recipe", "planted-ave", "--epochs", "20", "--lr", "1e-2", "--json"]
    assert main(["train", *places, *how, "--out", str(tmp_path / "run")]) == 0
    metrics = told(capsys)["metrics"]
    # Twenty videos are enough to do better than chance over seven classes.
    assert metrics["test"]["accuracy"] > 0.25


def test_same_command_twice_gives_the_same_arrays_whatever_the_batches(
    roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(words(roots, "ave", tmp_path / "a")) == 0
    monkeypatch.setattr("jobs.synth_features.run._BATCH_BYTES", 1)
    assert main(words(roots, "ave", tmp_path / "b")) == 0
    one, two = open_store(tmp_path / "a"), open_store(tmp_path / "b")
    assert one.video_ids() == two.video_ids()
    for modality in ("visual", "audio"):
        np.testing.assert_array_equal(
            one.read("planted-ave", modality).values, two.read("planted-ave", modality).values
        )


def test_dry_run_tells_the_settings_and_writes_nothing(
    roots: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["--dry-run", "--set", "glitch_test=0.15", "--noise-seed", "3"]
    assert main(words(roots, "ave", tmp_path / "s", *how, "--json")) == 0
    summary = told(capsys)
    assert summary["settings"]["glitch_test"] == 0.15
    assert (summary["settings"]["seed"], summary["settings"]["noise_seed"]) == (0, 3)
    assert summary["bytes"] == 30 * 10 * (4 + 1) * 32 * 4
    assert main(words(roots, "ave", tmp_path / "s", *how)) == 0
    assert "glitch_test=0.15" in capsys.readouterr().out
    assert not (tmp_path / "s").exists()


def test_reduced_writes_annotations_that_fit_the_features(
    roots: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short"
    assert main(words(roots, "unav100", tmp_path / "s", "--reduced", str(short), "--points", "48")) == 0
    dataset = registry.load("unav100", short)
    split = read_split(open_store(tmp_path / "s"), "planted-unav100", dataset, "train")
    assert split.num_segments == 48
    assert split.mask_NT.all()
    assert f"--root {short}" in capsys.readouterr().out
    # Again into the same folder; not over other annotations, and the real ones above all.
    assert main(words(roots, "unav100", tmp_path / "s2", "--reduced", str(short), "--points", "48")) == 0
    for folder, points in ((short, "96"), (roots["unav100"], "48")):
        assert main(words(roots, "unav100", tmp_path / "s3", "--reduced", str(folder), "--points", points)) == 2
        assert "holds something else; give an empty or a new folder" in capsys.readouterr().err
    assert not (tmp_path / "s3").exists()


def test_reduced_to_some_videos_writes_those_alone(roots: dict[str, Path], tmp_path: Path) -> None:
    how = ["--reduced", str(tmp_path / "short"), "--videos", "train=5,test=2", "--points", "48", "--classes", "2"]
    assert main(words(roots, "unav100", tmp_path / "s", *how)) == 0
    labels = open_store(tmp_path / "s").labels("planted-unav100", "unav100")
    assert labels.names == ("class 0", "class 1", "other")
    dataset = registry.load("unav100", tmp_path / "short")
    whole = registry.load("unav100", roots["unav100"])
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [5, len(whole.split("val")), 2]
    assert len(open_store(tmp_path / "s")) == len(dataset.videos)


@pytest.mark.parametrize(
    ("layout", "more", "message"),
    [
        (
            "ave",
            ["--dataset", "unav100"],
            "plants its signal in the annotations of data set ave, got --dataset unav100",
        ),
        ("ave", ["--set", "glitch_test=2"], "glitch_test must lie in [0, 1], got 2.0"),
        ("ave", ["--set", "glitch=1"], "no setting 'glitch'; there are seed, noise_seed, width"),
        ("ave", ["--set", "width=4"], "--set width: give it as --width"),
        ("ave", ["--set", "width"], "--set needs FIELD=VALUE, got 'width'"),
        ("ave", ["--seed", "-1"], "seed and noise_seed must be 0 or more, got -1"),
        ("ave", ["--scale-to", "8"], "scale_to must be at least the width 32, got 8"),
        ("ave", ["--points", "8"], "--points: ave has no such setting; it has seed"),
        ("ovavebench", ["--places", "4"], "--places: ovavebench has no such setting; it has seed"),
        ("ave", ["--reduced", "x"], "--reduced: ave has no smaller data set"),
        ("ave", ["--as", "no name"], "--as: a recipe's name needs letters"),
        ("unav100", ["--reduced", "x", "--points", "70"], "--reduced: points must divide 60 s into decimals"),
        ("unav100", ["--videos", "train=4"], "--videos goes with --reduced DIR"),
        ("unav100", ["--classes", "4"], "--classes goes with --reduced DIR"),
        ("unav100", ["--reduced", "x", "--classes", "0"], "--reduced: needs a class at least, got 0"),
        ("unav100", ["--reduced", "x", "--videos", "train=400"], "--reduced: videos: train has"),
        ("unav100", ["--reduced", "x", "--videos", "training=4"], "--videos needs SPLIT=N,... with train, val, test"),
        ("unav100", ["--reduced", "x", "--videos", "train=4,train=5"], "--videos needs SPLIT=N,..."),
        ("unav100", ["--reduced", "x", "--videos", "train=-4"], "--videos needs SPLIT=N,..."),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(
    roots: dict[str, Path],
    tmp_path: Path,
    layout: str,
    more: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words(roots, layout, tmp_path / "s", *more)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_unknown_protocol_and_missing_annotations_are_refused(
    roots: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([VERB, "kinetics", "--root", str(tmp_path), "--store", str(tmp_path / "s")]) == 2
    assert "no planted benchmark 'kinetics'; there are ave, ovavebench, unav100" in capsys.readouterr().err
    # Another data set's files under this one's name.
    assert main([VERB, "ave", "--root", str(roots["unav100"]), "--store", str(tmp_path / "s")]) == 1
    assert "AVE's annotations missing" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_existing_recipe_is_refused_kept_beside_another_and_replaced_on_demand(
    roots: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "s"
    assert main(words(roots, "ave", store)) == 0
    before = open_store(store).read("planted-ave", "audio").values
    assert main(words(roots, "ave", store, "--seed", "1")) == 2
    assert "holds recipe 'planted-ave' already; give another name with --as" in capsys.readouterr().err

    assert main(words(roots, "ave", store, "--seed", "1", "--overwrite")) == 0
    after = open_store(store)
    assert after.recipe("planted-ave").recipe.settings["seed"] == 1
    assert np.abs(after.read("planted-ave", "audio").values - before).max() > 0.1
    assert [path.name for path in tmp_path.iterdir()] == ["s"]

    assert main(words(roots, "ave", store, "--as", "seed-0")) == 0
    both = open_store(store)
    np.testing.assert_array_equal(both.read("seed-0", "audio").values, before)
    np.testing.assert_array_equal(both.read("planted-ave", "audio").values, after.read("planted-ave", "audio").values)
    assert len(both) == 30
    assert main(words(roots, "ave", store, "--overwrite")) == 2
    assert "is left as it is: it also holds seed-0" in capsys.readouterr().err


def test_overwrite_leaves_tags_and_features_of_others_alone(
    roots: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(roots, "ave", tmp_path / "s")) == 0
    open_store(tmp_path / "s").tag("v1")
    assert main(words(roots, "ave", tmp_path / "s", "--overwrite")) == 2
    assert "it has the tags v1" in capsys.readouterr().err

    recipe = open_store(tmp_path / "s").recipe("planted-ave").recipe

    other = create_store(tmp_path / "other")
    with open_writer(other) as writer:
        writer.ensure_recipe(replace(recipe, encoder="imported"), visual_shape=(3,), audio_shape=(3,), card={})
        writer.commit("features that cost something")
    assert main(words(roots, "ave", tmp_path / "other", "--overwrite")) == 2
    assert "its planted-ave was made with encoder imported" in capsys.readouterr().err


def test_overwrite_that_fails_leaves_the_old_store(
    roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s"
    assert main(words(roots, "ave", store)) == 0
    snapshot = open_store(store).snapshot_id

    def broken(*args: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("jobs.synth_features.run._fill", broken)
    assert main(words(roots, "ave", store, "--overwrite")) == 1
    assert open_store(store).snapshot_id == snapshot
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_float16_holds_the_same_numbers_rounded(
    roots: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = []
    for name, more in (("whole", ()), ("half", ("--storage", "float16"))):
        assert main(words(roots, "unav100", tmp_path / name, *more, "--json")) == 0
        sizes.append(told(capsys)["bytes"])
    assert sizes[1] == sizes[0] / 2
    ids = registry.load("unav100", roots["unav100"]).by_id
    whole, half = (
        open_store(tmp_path / name).read("planted-unav100", "audio", list(ids)).values for name in ("whole", "half")
    )
    assert [str(values.dtype) for values in (whole, half)] == ["float32", "float16"]
    np.testing.assert_array_equal(half, whole.astype(np.float16))


def test_reduced_annotations_without_an_event_are_refused(
    roots: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--points", "1", "--reduced", str(tmp_path / "r"), "--videos", "train=1,val=1,test=1"]
    assert main(words(roots, "unav100", tmp_path / "s", *more)) == 2
    told = capsys.readouterr().err
    assert "--reduced: unav100: an event of at least 2 segments of 60 s each is needed" in told
    assert "more points" in told
    assert not list(tmp_path.iterdir())
