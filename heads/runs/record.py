"""What a run's `run.json` holds: JSON, format 1. One from a stranger is checked: fields, types, finite numbers."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveInt,
    ValidationError,
)

from catalog.fields import Text
from catalog.recipe import Recipe
from heads.registry import names, spec
from heads.spec import Task

FORMAT = 1
_DATASET_KEYS = ("name", "root", "media")
# Fields of `run.json` that may be missing, and what that means.
_LATER: dict[str, Any] = {"unseen": [], "texts": None}

Numbers = dict[str, float]
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

    head: str
    config: dict[str, Any]
    classes: tuple[str, ...]
    background: str | None
    num_segments: int | None
    recipe: Recipe
    store: dict[str, str]
    dataset: dict[str, str | None]
    seed: int
    training: dict[str, Any]
    metrics: dict[str, Numbers] = field(default_factory=dict)
    baselines: Numbers = field(default_factory=dict)
    history: tuple[Numbers, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    unseen: tuple[str, ...] = ()
    texts: dict[str, str] | None = None

    def __post_init__(self) -> None:
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
        try:
            _Json.model_validate(value)
        except ValidationError as error:
            name = str(error.errors(include_url=False)[0]["loc"][0])
            wanted = _Json.model_fields[name].description
            raise ValueError(f"{name} must be {wanted}, got {str(value[name])[:80]}") from error
        recipe = Recipe.from_json(value["recipe"]["json"])
        if recipe.fingerprint() != value["recipe"]["fingerprint"]:
            raise ValueError(
                f"recipe.fingerprint is {value['recipe']['fingerprint']}, and its settings give {recipe.fingerprint()}"
            )
        value |= {"recipe": recipe} | {name: tuple(value[name]) for name in ("classes", "history", "unseen")}
        return cls(**value)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no finite number")


_Numbers = dict[Text, int | FiniteFloat]


def _distinct(texts: list[str]) -> list[str]:
    if len(set(texts)) < len(texts):
        raise ValueError("a text occurs twice")
    return texts


def _known(head: str) -> str:
    if head not in names():
        raise ValueError("unknown")
    return head


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Recipe(_Strict):
    name: Text
    json_: Text = Field(alias="json")
    fingerprint: Text


class _Store(_Strict):
    uri: Text
    snapshot: Text


class _Dataset(_Strict, extra="allow"):
    __pydantic_extra__: dict[str, Text]
    name: Text
    root: Text
    media: Text | None


class _Texts(_Strict):
    vocabulary: Text
    prompt: Text
    background: Text


class _Json(_Strict):
    """The fields of `run.json`; a description is what a field must be."""

    head: Annotated[Text, AfterValidator(_known)] = Field(description="a head of this version")
    config: dict[Text, Any] = Field(description="an object")
    classes: Annotated[list[Text], AfterValidator(_distinct)] = Field(
        min_length=1, description="a list of different texts"
    )
    background: Text | None = Field(description="a text or null")
    num_segments: PositiveInt | None = Field(description="null or a whole number above 0")
    recipe: _Recipe = Field(description="an object of name, json and fingerprint")
    store: _Store = Field(description="an object of uri and snapshot")
    dataset: _Dataset = Field(description="an object of name, root and media")
    seed: int = Field(description="a whole number")
    training: dict[Text, Any] = Field(description="an object")
    metrics: dict[Text, _Numbers] = Field(description="an object of objects of finite numbers")
    baselines: _Numbers = Field(description="an object of finite numbers")
    history: list[_Numbers] = Field(description="a list of objects of finite numbers")
    versions: dict[Text, Text] = Field(description="an object of texts")
    created: Text = Field(description="a text")
    unseen: list[Text] = Field(description="a list of texts")
    texts: _Texts | None = Field(description="null or an object of vocabulary, prompt and background")
