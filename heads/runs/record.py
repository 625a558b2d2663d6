"""What a run's `run.json` holds: JSON, format 1. One from a stranger is checked: fields, types, finite numbers."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, FiniteFloat, InstanceOf, PositiveInt

from catalog.fields import Text, check_fields
from catalog.recipe import Recipe
from heads.registry import names, spec
from heads.spec import Task

FORMAT = 1
_DATASET_KEYS = ("name", "root", "media")
# Fields of `run.json` that may be missing, and what that means.
_LATER: dict[str, Any] = {"unseen": [], "texts": None}


def _known(head: str) -> str:
    if head not in names():
        raise ValueError("a head of this version")
    return head


def _distinct(texts: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(texts)) < max(1, len(texts)):
        raise ValueError("different texts, one at least")
    return texts


def _object_of(*keys: str, more: bool = False, null: str = "") -> AfterValidator:
    def check(value: dict[str, str | None]) -> dict[str, str | None]:
        is_whole = set(keys) <= value.keys() and (more or len(value) == len(keys))
        if not is_whole or any(text is None for key, text in value.items() if key != null):
            raise ValueError(f"an object of {', '.join(keys)}")
        return value

    return AfterValidator(check)


Numbers = dict[Text, FiniteFloat]
# One item's predictions, as JSON has them.
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What `run.json` holds.

    Attributes:
        head: file name in `heads/models`.
        config: the head's config as plain fields.
        classes: the data set's classes, in the order of the outputs; background not included.
        background: name of the output after them; None where segments may have several classes or none.
        num_segments: segments an item of the data set has; None where items differ.
        recipe: what the features must have been made with.
        store: {"uri", "snapshot"} that the head was trained on.
        dataset: {"name", "root", "media"}, and the data set's own options where some were given; media may be None.
        seed: of parameters and batches.
        training: settings of the training, and what came of them.
        metrics: {split: {metric: number}}.
        baselines: {baseline: number}, on the test split (validation where there is none) by the metric that counts
            (`heads.evaluation.protocol.headline`).
        history: one row an epoch, as `heads.training.fit.Fitted` has it.
        versions: of the libraries.
        created: ISO 8601, UTC.
        unseen: classes that were not trained on, where the data set has such.
        texts: {"vocabulary", "prompt", "background"} of a head that chooses among class texts: the vocabulary's name in
            the store, what was encoded, the name whose text is the background's ("" where there is none). The texts'
            features are in the checkpoint. None elsewhere.
    """

    head: Annotated[Text, AfterValidator(_known)]
    config: dict[Text, Any]
    classes: Annotated[tuple[Text, ...], AfterValidator(_distinct)]
    background: Text | None
    num_segments: PositiveInt | None
    recipe: InstanceOf[Recipe]
    store: Annotated[dict[Text, Text], _object_of("uri", "snapshot")]
    dataset: Annotated[dict[Text, Text | None], _object_of("name", "root", "media", more=True, null="media")]
    seed: int
    training: dict[Text, Any]
    metrics: dict[Text, Numbers] = field(default_factory=dict)
    baselines: Numbers = field(default_factory=dict)
    history: tuple[Numbers, ...] = ()
    versions: dict[Text, Text] = field(default_factory=dict)
    created: Text = ""
    unseen: tuple[Text, ...] = ()
    texts: Annotated[dict[Text, Text], _object_of("vocabulary", "prompt", "background")] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        wanted = spec(self.head).num_outputs(len(self.classes), background=self.background is not None)
        got = self.config.get("num_classes")
        if got != wanted:
            raise ValueError(f"a head for {len(self.classes)} classes needs {wanted} outputs, its config says {got}")
        unexpected = sorted(set(self.unseen) - set(self.classes))
        if unexpected:
            raise ValueError(f"unseen classes are among the classes, got {unexpected[0]!r}")
        if self.texts is not None and not spec(self.head).needs_texts:
            raise ValueError(f"texts must be null for head {self.head}, which does not choose among class texts")

    @property
    def task(self) -> Task:
        """What the head predicts: classes of segments, or events."""
        return spec(self.head).task

    @property
    def dataset_options(self) -> dict[str, str]:
        """The data set's own options, as `catalog.dataset.load` takes them."""
        return {key: str(value) for key, value in self.dataset.items() if key not in _DATASET_KEYS}

    def to_json(self) -> str:
        """The record as indented JSON.

        Raises:
            ValueError: a number is not finite.
        """
        # Fields that came later are left out where they say nothing: older versions read such a record too.
        value = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in _LATER or getattr(self, f.name)
        }
        value["recipe"] = {
            "name": self.recipe.name,
            "json": self.recipe.to_json(),
            "fingerprint": self.recipe.fingerprint(),
        }
        return json.dumps({"format": FORMAT} | value, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> RunRecord:
        """The record that `to_json` wrote.

        Raises:
            ValueError: not JSON, another format, or a field that is missing, unknown or wrong; the message names it.
        """
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"not JSON: {error}") from error
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            got = value.get("format") if isinstance(value, dict) else type(value).__name__
            raise ValueError(f"format must be {FORMAT}, got {got!r}")
        del value["format"]
        value = _LATER | value
        known = [f.name for f in dataclasses.fields(cls)]
        if value.keys() != set(known):
            raise ValueError(f"fields missing or unknown: {', '.join(sorted(value.keys() ^ set(known)))}")
        lists = {name: value[name] for name in ("classes", "history", "unseen")}
        return cls(
            **value
            | {name: tuple(found) if isinstance(found, list) else found for name, found in lists.items()}
            | {"recipe": _read_recipe(value["recipe"])}
        )


def _read_recipe(value: object) -> Recipe:
    if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in ("json", "fingerprint")):
        raise ValueError(f"recipe must be an object of name, json and fingerprint, got {str(value)[:80]}")
    recipe = Recipe.from_json(value["json"])
    if recipe.fingerprint() != value["fingerprint"]:
        raise ValueError(f"recipe.fingerprint is {value['fingerprint']}, and its settings give {recipe.fingerprint()}")
    return recipe


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no finite number")
