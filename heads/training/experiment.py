"""What is to be trained, and on what: `Experiment`, in plain values; `Materials`, what it names, opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from catalog.dataset import Dataset, load
from catalog.errors import AvelError, BadArguments
from catalog.store.format import RecipeEntry
from catalog.store.reader import FeatureStore, open_store
from heads.data.targets import has_one_label
from heads.data.vocabulary import Vocabulary, of_data_set
from heads.evaluation.protocol import without_unseen_training
from heads.registry import configure, read_config, spec
from heads.spec import HeadConfig, HeadInput, Modality, Scalar
from heads.training.settings import Settings

# Fields of every config that follow from something else, and from what.
_FIXED = {
    "visual_width": "the features",
    "audio_width": "the features",
    "num_classes": "the data set",
    "modality": "--modality",
}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A head, its features, annotations and training; plain values, so that it can be handed to another process.

    Attributes:
        store, root, media: paths (absolute) or URLs.
        snapshot: of the store; None takes the newest.
        options: the data set's own.
        changes: fields of the head's config in place of the published ones.
        vocabulary: class texts, for a head that needs them; None takes the only one that fits.
    """

    store: str
    snapshot: str | None = None
    dataset: str
    root: str
    media: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    recipe: str
    head: str
    modality: Modality = "both"
    changes: Mapping[str, Scalar] = field(default_factory=dict)
    vocabulary: str | None = None
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class Materials:
    """The store, annotations and class texts of an experiment."""

    store: FeatureStore
    dataset: Dataset
    texts: Vocabulary | None = None


def gather(experiment: Experiment) -> Materials:
    """Opens what the experiment names.

    Raises:
        StoreError, AnnotationError, ValueError: it is not there, or damaged.
        BadArguments: the store has no such recipe, or no vocabulary fits.
    """
    store = open_store(experiment.store, at=experiment.snapshot)
    held = sorted(store.recipes())
    if experiment.recipe not in held:
        at = "" if experiment.snapshot is None else f" at snapshot {experiment.snapshot}"
        raise BadArguments(
            f"recipe {experiment.recipe}: the store {experiment.store} has no such features{at}; "
            f"it has {', '.join(held) or 'none'}"
        )
    try:
        dataset = load(experiment.dataset, experiment.root, experiment.media, experiment.options)
    except AvelError:
        raise
    except ValueError as error:  # of an option of the data set's own
        raise BadArguments(f"--{error}" if str(error).startswith("unseen:") else str(error)) from error
    texts = None
    if spec(experiment.head).needs_texts:
        try:
            texts = of_data_set(store, experiment.recipe, dataset, experiment.vocabulary)
        except ValueError as error:
            raise BadArguments(f"--vocabulary: {error}") from error
    return Materials(store=store, dataset=dataset, texts=texts)


def check_head(experiment: Experiment, materials: Materials) -> None:
    """See that the head goes with the features, the classes and the changes; reads no feature.

    Raises:
        ValueError: it does not, such as audio alone for a head that relates audio to frames.
    """
    dataset, texts, head = materials.dataset, materials.texts, spec(experiment.head)
    without_unseen_training(dataset)
    if texts is not None and texts.background is None and head.scores_background:
        raise ValueError(
            f"needs the text of a background, and {dataset.name} has none: its segments may have several classes or no "
            "class; take a data set of one class a segment, such as ovavebench, or for this one the head loco_texts"
        )
    if head.one_label and not has_one_label(dataset):
        raise ValueError(
            f"names one class a segment, and the segments of {dataset.name} may have several; take a data set of one "
            "class a segment, such as ave, or another head"
        )
    head_config(experiment, materials.store.recipes()[experiment.recipe], dataset)


def head_config(experiment: Experiment, entry: RecipeEntry, dataset: Dataset) -> HeadConfig:
    """The head's config for features of a store, a data set's classes, and changes of fields; reads no feature.

    Raises:
        ValueError: they do not go together, such as audio alone for a head that relates audio to frames.
    """
    config = configure(
        experiment.head,
        HeadInput(
            visual_shape=entry.visual_shape,
            audio_shape=entry.audio_shape,
            num_classes=spec(experiment.head).num_outputs(len(dataset.classes), background=has_one_label(dataset)),
            modality=experiment.modality,
        ),
    )
    fields, changes = dataclasses.asdict(config), experiment.changes
    for name, source in _FIXED.items():
        if name in changes and changes[name] != fields.get(name):
            raise ValueError(
                f"{name} is {fields.get(name)}, fixed by {source}, and cannot be overridden; got {changes[name]!r}"
            )
    return read_config(experiment.head, fields | dict(changes))
