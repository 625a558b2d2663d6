"""The class texts of an open-vocabulary head, out of a store's labels: found by name, whatever their order there.

K texts with that of the background as the last one, C classes (background not included), D width of the shared space.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.dataset import Dataset
from catalog.store.reader import FeatureStore
from catalog.store.rows import Labels
from heads.spec import TEXTS, Head

# What `avel labels` adds at a vocabulary's end, for segments without an event.
OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Class names and their text features.

    Attributes:
        name: of the vocabulary in its store.
        prompt: the text that was encoded, `{}` standing for the name.
        classes: C names.
        background: the name whose text stands for the background; None where there is no such text.
        features: float32 (C, D), or (C + 1, D) with the background's last.
    """

    name: str
    prompt: str
    classes: tuple[str, ...]
    background: str | None
    features: NDArray[np.float32]

    def __post_init__(self) -> None:
        wanted = len(self.classes) + (self.background is not None)
        if self.features.ndim != 2 or len(self.features) != wanted:
            raise ValueError(f"{self.name}: {wanted} texts need as many features, got {self.features.shape}")


def of_data_set(store: FeatureStore, recipe_name: str, dataset: Dataset, name: str | None = None) -> Vocabulary:
    """The texts of all classes of `dataset`, in its order, and of its background, where it has one.

    The background's text is the one that is called as the data set calls it, else `other`. Names of no class are left
    out.

    Args:
        name: of the vocabulary; None takes the store's only one that has every class.

    Raises:
        ValueError: there is no such vocabulary, none or several fit, or a class is missing or occurs twice; the
            message names it and the command that makes what is missing.
    """
    held = store.vocabularies(recipe_name)
    make = f"make it with `avel labels --store {store.uri} --recipe {recipe_name} --dataset {dataset.name} --root DIR`"
    if name is not None and name not in held:
        raise ValueError(
            f"{store.uri}: recipe {recipe_name} has no vocabulary {name!r}; it has {', '.join(held) or 'none'}; {make}"
        )
    found, wrong = {}, {}
    for candidate in [name] if name is not None else held:
        labels = store.labels(recipe_name, candidate)
        problem = _problem(labels, dataset)
        if problem:
            wrong[candidate] = problem
        else:
            found[candidate] = labels
    if len(found) > 1:
        raise ValueError(f"{store.uri}: several vocabularies have the classes of {dataset.name}: {', '.join(found)}")
    if not found:
        problems = "; ".join(f"vocabulary {held_name}: {problem}" for held_name, problem in wrong.items())
        raise ValueError(f"{store.uri}: recipe {recipe_name}: {problems or 'there is no vocabulary'}; {make}")
    ((chosen, labels),) = found.items()
    background = None if dataset.background is None else _background(labels, dataset.background, dataset.classes)
    return _selected(chosen, labels, dataset.classes, background)


def of_store(store: FeatureStore, recipe_name: str, name: str, *, background: str) -> Vocabulary:
    """A whole vocabulary, in its own order, for classes that no data set need have.

    Args:
        background: what the head calls its background's text; that name, or else `other`, is no class.

    Raises:
        ValueError: no such vocabulary, a name twice, or no class in it.
    """
    labels = store.labels(recipe_name, name)
    twice = _twice(labels.names)
    if twice:
        raise ValueError(f"{store.uri}: vocabulary {name}: {twice}")
    text = _background(labels, background)
    classes = tuple(label for label in labels.names if label != text)
    if not classes:
        raise ValueError(f"{store.uri}: vocabulary {name} has no class")
    return _selected(name, labels, classes, text)


def hand_over(
    head: Head, vocabulary: Vocabulary, trained_C: NDArray[np.bool_] | None = None, *, background: bool = True
) -> None:
    """Give a head its texts.

    Args:
        trained_C: the classes that the training loss chooses among (and the background); None means all.
        background: does the head want the background's text (`HeadSpec.scores_background`)? It becomes the last one:
            the vocabulary's or, where it has none, the one that the head holds.

    Raises:
        ValueError: the features are not of the head's width, not finite or zero.
    """
    texts = torch.from_numpy(vocabulary.features)
    if not background:
        texts = texts[: len(vocabulary.classes)]
    elif vocabulary.background is None:
        texts = torch.cat([texts, head.get_buffer(TEXTS)[-1:].to(texts)])
    if trained_C is not None and background:
        trained_C = np.append(trained_C, True)
    head.set_texts(texts, None if trained_C is None else torch.from_numpy(trained_C))


def _problem(labels: Labels, dataset: Dataset) -> str:
    twice = _twice(labels.names)
    if twice:
        return twice
    missing = [label for label in dataset.classes if label not in set(labels.names)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return f"class {missing[0]!r} is missing{more}"
    if dataset.background is not None and _background(labels, dataset.background, dataset.classes) is None:
        names = " or ".join(dict.fromkeys(repr(name) for name in (dataset.background, OTHER)))
        return f"the background's text {names} is missing (no --no-other)"
    return ""


def _twice(names: Sequence[str]) -> str:
    return next((f"{label!r} occurs {count} times" for label, count in Counter(names).items() if count > 1), "")


def _background(labels: Labels, called: str, classes: Sequence[str] = ()) -> str | None:
    return next((name for name in (called, OTHER) if name in labels.names and name not in classes), None)


def _selected(name: str, labels: Labels, classes: tuple[str, ...], background: str | None) -> Vocabulary:
    index = {label: i for i, label in enumerate(labels.names)}
    wanted = [*classes, *([background] if background is not None else [])]
    return Vocabulary(
        name=name,
        prompt=labels.prompt,
        classes=classes,
        background=background,
        features=labels.features[[index[label] for label in wanted]],
    )
