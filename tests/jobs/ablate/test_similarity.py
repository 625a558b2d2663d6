"""The mean of std of a run: measured once, kept beside it, and drawn."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.dataset import Dataset, load
from catalog.datasets import synthetic, unav100
from catalog.store.reader import open_store
from heads.ablation.cross_similarity import mean_of_std
from heads.data.split import Split, read_split
from heads.registry import build, configure
from heads.runs.folder import read_run, write_run
from heads.runs.record import RunRecord
from heads.spec import HeadInput
from jobs.ablate.similarity import FILE, draw_similarity, measure_similarity, read_similarity
from jobs.cli.main import main

RECIPE = "planted-unav100"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Split]:
    folder = tmp_path_factory.mktemp("similarity")
    plan = synthetic.plan(synthetic.Settings(layout="unav100", videos=30, seed=1), folder)
    unav100.write(plan.dataset, folder)
    words = ["synth-features", "unav100", "--root", str(folder), "--store", str(folder / "store"), "--points", "24"]
    assert main(words) == 0
    dataset = load("unav100", folder)
    return dataset, read_split(open_store(folder / "store"), RECIPE, dataset, "test")


def run(folder: Path, data: tuple[Dataset, Split], head: str = "loco", **changes: Any) -> Path:
    """A run of a head as it begins."""
    dataset, split = data
    config = configure(
        head,
        HeadInput(
            visual_shape=(24,),
            audio_shape=(24,),
            num_classes=len(dataset.classes),
            modality=changes.get("modality", "both"),
        ),
    )
    config = dataclasses.replace(config, **changes)
    record = RunRecord(
        head=head,
        config=dataclasses.asdict(config),
        classes=dataset.classes,
        background=None,
        num_segments=None,
        recipe=split.recipe,
        store={"uri": "store", "snapshot": "s"},
        dataset={"name": "unav100", "root": "unav", "media": None},
        seed=0,
        training={},
    )
    state = {name: tensor.clone() for name, tensor in build(head, config).state_dict().items()}
    write_run(folder, record, state, {})
    return folder


def test_similarity_is_measured_once_and_read_as_a_metric(tmp_path: Path, data: tuple[Dataset, Split]) -> None:
    folder = run(tmp_path / "run", data, width=16, levels=2)
    with pytest.raises(ValueError, match="is missing: `avel ablate` measures it"):
        read_similarity(folder)
    measure_similarity(folder, data[1])
    expected = mean_of_std(read_run(folder).head, data[1])
    assert read_similarity(folder) == {"mean_of_std": expected.mean}
    assert json.loads((folder / FILE).read_text())["std_by_item"] == expected.std_by_item
    assert len(expected.std_by_item) == len(data[1].items)
    (folder / FILE).write_text('{"mean_of_std": 0.5}')
    measure_similarity(folder, data[1])
    assert read_similarity(folder) == {"mean_of_std": 0.5}
    for wrong in ("{", "{}", "[]", '{"mean_of_std": null}'):
        (folder / FILE).write_text(wrong)
        with pytest.raises(ValueError, match=r"needs a number mean_of_std .* remove it, the run is kept"):
            read_similarity(folder)


def test_similarity_of_a_head_without_encoders_of_both_is_refused(tmp_path: Path, data: tuple[Dataset, Split]) -> None:
    for name, head, changes in (("audio", "loco", {"modality": "audio", "width": 16}), ("linear", "linear", {})):
        folder = run(tmp_path / name, data, head, **changes)
        with pytest.raises(ValueError, match="needs a head with encoders of audio and frames"):
            measure_similarity(folder, data[1])
        assert not (folder / FILE).exists()


def test_similarity_is_drawn_for_each_run_and_space(tmp_path: Path, data: tuple[Dataset, Split]) -> None:
    from matplotlib.image import imread

    folders = {
        "without $LCC$": run(tmp_path / "off", data, width=16, levels=2, lcc="off"),
        "with": run(tmp_path / "on", data, width=16, levels=2),
    }
    draw_similarity(folders, data[1], tmp_path / "both.png", title="all")
    draw_similarity({"without": folders["without $LCC$"]}, data[1], tmp_path / "one.png", title="one")
    both, one = (np.asarray(imread(tmp_path / f"{name}.png")) for name in ("both", "one"))
    # As stored, without, with, in LCC's space: four panels a line; two.
    assert both.shape[0] == one.shape[0]
    assert both.shape[1] > 1.7 * one.shape[1]
