"""What an experiment names is opened or refused; a head's config follows from features, classes and changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from catalog.dataset import Dataset
from catalog.datasets import ave
from catalog.errors import AvelError, BadArguments
from heads.training.experiment import Experiment, Materials, check_head, gather, head_config
from heads.training.settings import Settings


@pytest.fixture(scope="module")
def place(planted: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiment")
    data: Dataset = planted.dataset(items_a_class=4)
    ave.write(data, folder / "ave")
    planted.store(folder / "store", data)
    return folder


def experiment(place: Path, **changes: Any) -> Experiment:
    fields: dict[str, Any] = {
        "store": str(place / "store"),
        "dataset": "ave",
        "root": str(place / "ave"),
        "recipe": "descriptors-1s",
        "head": "linear",
        "settings": Settings(),
    }
    return Experiment(**(fields | changes))


def test_gather_opens_what_is_named(place: Path) -> None:
    found = gather(experiment(place))
    assert list(found.store.recipes()) == ["descriptors-1s"]
    assert found.dataset.name == "ave"
    assert found.texts is None


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"store": "/nowhere"}, AvelError, "/nowhere"),
        ({"root": "/nowhere"}, AvelError, "/nowhere"),
        ({"recipe": "other"}, BadArguments, r"recipe other: the store .* it has descriptors-1s"),
        ({"head": "ov_avel"}, BadArguments, "--vocabulary: .*avel labels"),
    ],
)
def test_gather_names_what_is_not_there(
    place: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        gather(experiment(place, **changes))


def test_head_config_is_the_published_one_with_changes(place: Path) -> None:
    one = experiment(place, head="psp", modality="both", changes={"dropout": 0.25})
    held = gather(one)
    config = head_config(one, held.store.recipes()["descriptors-1s"], held.dataset)
    plain = head_config(replace(one, changes={}), held.store.recipes()["descriptors-1s"], held.dataset)
    assert (config.num_classes, config.modality) == (4, "both")
    assert {name: value for name, value in vars(config).items() if vars(plain)[name] != value} == {"dropout": 0.25}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"changes": {"num_classes": 9}}, "num_classes is 4, fixed by the data set, and cannot be overridden; got 9"),
        ({"changes": {"audio_width": 1}}, "audio_width is 5, fixed by the features"),
        ({"modality": "audio", "changes": {"modality": "both"}}, "modality is audio, fixed by --modality"),
        ({"changes": {"colour": 1}}, "unknown field 'colour'"),
        ({"head": "psp", "modality": "audio"}, "both"),
    ],
)
def test_check_head_says_what_does_not_go_together(place: Path, changes: dict[str, Any], message: str) -> None:
    one = experiment(place, **changes)
    with pytest.raises(ValueError, match=message):
        check_head(one, gather(one))


def test_check_head_given_the_fixed_values_is_content(place: Path) -> None:
    one = experiment(place, changes={"num_classes": 4, "visual_width": 6, "modality": "both"})
    check_head(one, gather(one))


def test_check_head_of_one_label_refuses_a_data_set_of_several(place: Path) -> None:
    one = experiment(place, head="cmbs")
    held = gather(one)
    several = replace(held.dataset, background=None, num_segments=None)
    with pytest.raises(ValueError, match="names one class a segment, and the segments of ave may have several"):
        check_head(one, Materials(store=held.store, dataset=several))
