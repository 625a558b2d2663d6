"""What a run's `run.json` holds: JSON, format 1. One from a stranger is checked: fields, types, finite numbers."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from catalog.recipe import Recipe
from heads.registry import is_dense, names, spec

FORMAT = 1
_DATASET_KEYS = ("name", "root", "media")
# Fields of `run.json` that may be missing, and what that means.
_LATER: dict[str, Any] = {"unseen": [], "texts": None}

Numbers = dict[str, float]


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
        wanted = len(self.classes) + (self.background is not None and not is_dense(self.head))
        got = self.config.get("num_classes")
        if got != wanted:
            raise ValueError(f"a head for {len(self.classes)} classes needs {wanted} outputs, its config says {got}")
        strange = sorted(set(self.unseen) - set(self.classes))
        if strange:
            raise ValueError(f"unseen classes are among the classes, got {strange[0]!r}")
        if self.texts is not None and not spec(self.head).needs_texts:
            raise ValueError(f"texts must be null for head {self.head}, which does not choose among class texts")

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
        for name, check, wanted in _CHECKS:
            if not check(value[name]):
                raise ValueError(f"{name} must be {wanted}, got {str(value[name])[:80]}")
        recipe = Recipe.from_json(value["recipe"]["json"])
        if recipe.fingerprint() != value["recipe"]["fingerprint"]:
            raise ValueError(
                f"recipe.fingerprint is {value['recipe']['fingerprint']}, and its settings give {recipe.fingerprint()}"
            )
        value |= {"recipe": recipe} | {name: tuple(value[name]) for name in ("classes", "history", "unseen")}
        return cls(**value)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no finite number")


def _is_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        for number in value.values()
    )


def _is_texts(value: object, keys: Collection[str], *, optional: Sequence[str] = ()) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == set(keys)
        and all(isinstance(value[key], str) or (key in optional and value[key] is None) for key in keys)
    )


_CHECKS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("head", lambda v: v in names(), "a head of this version"),
    ("config", lambda v: isinstance(v, dict), "an object"),
    (
        "classes",
        lambda v: isinstance(v, list) and len(v) > 0 and all(isinstance(c, str) for c in v) and len(set(v)) == len(v),
        "a list of different texts",
    ),
    ("background", lambda v: v is None or isinstance(v, str), "a text or null"),
    (
        "num_segments",
        lambda v: v is None or (isinstance(v, int) and not isinstance(v, bool) and v > 0),
        "null or a whole number above 0",
    ),
    ("recipe", lambda v: _is_texts(v, ("name", "json", "fingerprint")), "an object of name, json and fingerprint"),
    ("store", lambda v: _is_texts(v, ("uri", "snapshot")), "an object of uri and snapshot"),
    (
        "dataset",
        lambda v: isinstance(v, dict) and _is_texts(v, {*v, *_DATASET_KEYS}, optional=("media",)),
        "an object of name, root and media",
    ),
    ("seed", lambda v: isinstance(v, int) and not isinstance(v, bool), "a whole number"),
    ("training", lambda v: isinstance(v, dict), "an object"),
    (
        "metrics",
        lambda v: isinstance(v, dict) and all(map(_is_numbers, v.values())),
        "an object of objects of finite numbers",
    ),
    ("baselines", _is_numbers, "an object of finite numbers"),
    ("history", lambda v: isinstance(v, list) and all(map(_is_numbers, v)), "a list of objects of finite numbers"),
    ("versions", lambda v: isinstance(v, dict) and all(isinstance(t, str) for t in v.values()), "an object of texts"),
    ("created", lambda v: isinstance(v, str), "a text"),
    ("unseen", lambda v: isinstance(v, list) and all(isinstance(c, str) for c in v), "a list of texts"),
    (
        "texts",
        lambda v: v is None or _is_texts(v, ("vocabulary", "prompt", "background")),
        "null or an object of vocabulary, prompt and background",
    ),
)
