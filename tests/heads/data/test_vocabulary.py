"""Class texts out of a store: by name in any order; what is missing is named with the command that makes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from catalog.store.reader import FeatureStore
from heads.data.vocabulary import Vocabulary, hand_over, of_data_set, of_store
from heads.features import FeatureBatch
from heads.registry import build, configure, restore
from heads.spec import HeadInput
from tests.heads import planted_texts as planted

NAMES = (*planted.CLASSES, "other")
RECIPE = planted.RECIPE.name


def store_with(place: Path, **vocabularies: tuple[str, ...]) -> FeatureStore:
    held: FeatureStore = planted.store(place / "store", planted.dataset(a_class=1), vocabularies)
    return held


def test_vocabulary_in_any_order_with_names_of_no_class_gives_the_data_sets_rows(tmp_path: Path) -> None:
    data = planted.dataset(a_class=1)
    held = store_with(tmp_path, mixed=(*reversed(NAMES), "whistling"))
    found = of_data_set(held, RECIPE, data)  # the only one there is
    assert (found.name, found.prompt, found.classes, found.background) == ("mixed", "{}", data.classes, "other")
    for label, row in zip(NAMES, found.features, strict=True):
        np.testing.assert_array_equal(row, planted.text_of(label))


def test_vocabulary_only_one_that_fits_is_taken_and_several_are_named(tmp_path: Path) -> None:
    data = planted.dataset(a_class=1)
    held = store_with(tmp_path, kitchen=("frying", "other"), mine=NAMES)
    assert of_data_set(held, RECIPE, data).name == "mine"
    held = store_with(tmp_path / "two", a=NAMES, b=NAMES)
    with pytest.raises(ValueError, match="several vocabularies have the classes of ovavebench: a, b"):
        of_data_set(held, RECIPE, data)
    assert of_data_set(held, RECIPE, data, "b").name == "b"


@pytest.mark.parametrize(
    ("names", "wanted", "told"),
    [
        (tuple(name for name in NAMES if name != "purring"), None, "vocabulary mine: class 'purring' is missing; make"),
        (("fiddling", "other"), "mine", "class 'barking' is missing and 4 more"),
        (planted.CLASSES, None, "vocabulary mine: the background's text 'other' is missing"),
        ((*NAMES, "barking"), None, "'barking' occurs 2 times"),
        (NAMES, "yours", "has no vocabulary 'yours'; it has mine"),
    ],
)
def test_vocabulary_that_does_not_fit_names_what_is_wrong_and_the_command(
    tmp_path: Path, names: tuple[str, ...], wanted: str | None, told: str
) -> None:
    held = store_with(tmp_path, mine=names)
    with pytest.raises(ValueError, match=told) as error:
        of_data_set(held, RECIPE, planted.dataset(a_class=1), wanted)
    command = f"avel labels --store {held.uri} --recipe {RECIPE} --dataset ovavebench"
    assert command in str(error.value)


def test_vocabulary_none_stored_raises(tmp_path: Path) -> None:
    held = store_with(tmp_path)
    with pytest.raises(ValueError, match="there is no vocabulary; make it with `avel labels"):
        of_data_set(held, RECIPE, planted.dataset(a_class=1))


def test_vocabulary_of_a_data_set_without_background_is_its_classes_alone(tmp_path: Path) -> None:
    data = planted.dataset(a_class=1)
    held = store_with(tmp_path, mine=NAMES)
    found, whole = of_data_set(held, RECIPE, replace(data, background=None)), of_data_set(held, RECIPE, data)
    assert found.background is None
    assert found.classes == data.classes
    np.testing.assert_array_equal(found.features, whole.features[:-1])


def test_vocabulary_background_is_called_as_the_data_set_does_or_else_other(tmp_path: Path) -> None:
    data = replace(planted.dataset(a_class=1), background="background")
    held = store_with(tmp_path, mine=NAMES)
    assert of_data_set(held, RECIPE, data).background == "other"
    held = store_with(tmp_path / "own", mine=(*NAMES, "background"))
    assert of_data_set(held, RECIPE, data).background == "background"


def test_vocabulary_class_called_other_is_not_the_background(tmp_path: Path) -> None:
    ov = planted.dataset(a_class=1)
    data = replace(ov, classes=(*ov.classes, "other"), background="background")
    with pytest.raises(ValueError, match="the background's text 'background' or 'other' is missing"):
        of_data_set(store_with(tmp_path, mine=NAMES), RECIPE, data)
    held = store_with(tmp_path / "own", mine=("background", *NAMES))
    found = of_data_set(held, RECIPE, data)
    assert (found.classes, found.background) == (data.classes, "background")
    np.testing.assert_array_equal(found.features[-1], planted.text_of("background"))
    np.testing.assert_array_equal(found.features[-2], planted.text_of("other"))


def test_whole_vocabulary_keeps_its_order_and_leaves_the_background_out_of_the_classes(tmp_path: Path) -> None:
    held = store_with(tmp_path, kitchen=("other", "frying", "boiling"), bare=("frying",), none=("other",))
    found = of_store(held, RECIPE, "kitchen", background="other")
    assert (found.classes, found.background) == (("frying", "boiling"), "other")
    np.testing.assert_array_equal(found.features[-1], planted.text_of("other"))
    bare = of_store(held, RECIPE, "bare", background="other")
    assert (bare.classes, bare.background, len(bare.features)) == (("frying",), None, 1)
    with pytest.raises(ValueError, match="vocabulary none has no class"):
        of_store(held, RECIPE, "none", background="other")
    with pytest.raises(ValueError, match="has no labels 'nosuch'; it has: bare, kitchen, none"):
        of_store(held, RECIPE, "nosuch", background="other")


def vocabulary(*names: str, background: str | None) -> Vocabulary:
    texts = [planted.text_of(name) for name in (*names, *([background] if background else []))]
    return Vocabulary(name="v", prompt="{}", classes=names, background=background, features=np.stack(texts))


def config_of(head: str) -> Any:
    width = (planted.WIDTH,)
    return configure(head, HeadInput(visual_shape=width, audio_shape=width, num_classes=3, modality="both"))


@pytest.mark.parametrize("name", ["ov_avel", "ov_avel_free"])
def test_hand_over_without_a_background_keeps_the_heads_own(name: str) -> None:
    head = build(name, config_of(name))
    hand_over(head, vocabulary("a", "b", background="other"), np.array([True, False]))
    kept = head.get_buffer("texts.texts_KD")[-1].clone()
    assert head.get_buffer("texts.trained_K").tolist() == [True, False, True]
    hand_over(head, vocabulary("c", "d", "e", background=None))
    texts = head.get_buffer("texts.texts_KD")
    assert texts.shape == (4, planted.WIDTH)
    torch.testing.assert_close(texts[-1], kept)
    assert head.get_buffer("texts.trained_K").all()


@pytest.mark.parametrize("name", ["ov_avel", "ov_avel_free"])
def test_restore_checkpoint_of_another_number_of_texts_gives_equal_logits(name: str) -> None:
    head = build(name, config_of(name))
    hand_over(head, vocabulary("a", "b", "c", "d", background="other"))
    again = restore(name, config_of(name), head.state_dict())  # a config of three, a checkpoint of five
    rows = [torch.from_numpy(planted.text_of(label)) for label in ("a", "other", "d")]
    visual = audio = torch.stack(rows)[None]
    batch = FeatureBatch.of(visual, audio, torch.ones(1, 3, dtype=torch.bool))
    logits = again(batch)
    assert logits.shape == (1, 3, 5)
    torch.testing.assert_close(logits, head.eval()(batch))
    assert again.config.num_classes == 5  # type: ignore[union-attr]  # a head's config
    damaged = head.state_dict() | {"texts.trained_K": torch.ones(3, dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"texts.trained_K needs \(5,\)"):
        restore(name, config_of(name), damaged)
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 0"):
        restore(name, config_of(name), head.state_dict() | {"texts.texts_KD": torch.zeros(0, planted.WIDTH)})
