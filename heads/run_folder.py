"""The run folder: what training leaves and what evaluating, predicting and reporting read.

    RUN/run.json                   the record (below), JSON, format 1
    RUN/model.safetensors          the head's parameters and buffers
    RUN/predictions_{split}.json   one object an item of the split, in the data set's order
    RUN/tensorboard/               the history as scalars, where they were asked for

`metrics` is `{split: {metric: number}}`; `baselines` is `{baseline: number}`, on the test split (validation where there
is none) by the metric that counts (`heads.protocol.headline`).
Nothing is pickled. A folder from a stranger is checked: types, finite numbers, shapes against the config.
A folder appears whole or not at all; later changes replace one file at a time, each in one step.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from catalog.recipe import Recipe
from heads.model import names, plugin, read_config, restore

FORMAT = 1
_DATASET_KEYS = ("name", "root", "media")
# Fields of `run.json` that may be missing, and what that means.
_LATER: dict[str, Any] = {"unseen": [], "texts": None}
# What a run leaves behind or a report adds: only these are removed when a run is overwritten.
_OWN_FILES = re.compile(r"run\.json|model\.safetensors|predictions_[a-z]+\.json|tensorboard|.*\.(html|png|svg)")

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
        metrics, baselines: see the module.
        history: one row an epoch.
        versions: of the libraries.
        created: ISO 8601, UTC.
        unseen: classes that were not trained on, where the data set has such.
        texts: {"vocabulary", "prompt", "background"} of a head that chooses among class texts: the vocabulary's name in
            the store, what was encoded, the name whose text is the background's. The texts' features are in the
            checkpoint. None elsewhere.
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
        wanted = len(self.classes) + (self.background is not None)
        got = self.config.get("num_classes")
        if got != wanted:
            raise ValueError(f"a head for {len(self.classes)} classes needs {wanted} outputs, its config says {got}")
        strange = sorted(set(self.unseen) - set(self.classes))
        if strange:
            raise ValueError(f"unseen classes are among the classes, got {strange[0]!r}")
        if self.texts is not None and not getattr(plugin(self.head), "NEEDS_TEXTS", False):
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


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder that has been read: its record and its head, in evaluation mode."""

    folder: Path
    record: RunRecord
    head: nn.Module


def check_free(folder: Path, *, overwrite: bool) -> None:
    """See that a run may be written to `folder`: nothing there, an empty folder, or a run to overwrite.

    Raises:
        ValueError: something else is there, or a run and not `overwrite`.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; choose another place for the run")
    held = sorted(path.name for path in folder.iterdir())
    if not held:
        return
    if not overwrite:
        raise ValueError(f"{folder} exists; choose another folder or pass --overwrite")
    strange = [name for name in held if not _OWN_FILES.fullmatch(name)]
    if strange or "run.json" not in held:
        raise ValueError(f"{folder} is not overwritten: it holds {strange[0] if strange else 'no run.json'}")


def write_run(
    folder: Path,
    record: RunRecord,
    state: Mapping[str, Tensor],
    predictions: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    overwrite: bool = False,
    scalars: Path | None = None,
) -> None:
    """Write a whole run folder: made beside its place and moved there in one step.

    Args:
        predictions: split to its rows, as `heads.evaluate.Evaluation.rows` has them.
        scalars: a folder of TensorBoard's, copied to `tensorboard`.

    Raises:
        ValueError: the place is taken (see `check_free`), or a number is not finite.
    """
    check_free(folder, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        making.chmod(0o777 & ~_umask())
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        safetensors.torch.save_file(tensors, making / "model.safetensors")
        for split, rows in predictions.items():
            (making / f"predictions_{split}.json").write_text(_rows_json(rows), encoding="utf-8")
        if scalars is not None:
            shutil.copytree(scalars, making / "tensorboard")
        (making / "run.json").write_text(record.to_json(), encoding="utf-8")
        if folder.is_dir() and any(folder.iterdir()):
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            folder.rename(old)
            making.rename(folder)
            shutil.rmtree(old)
        else:
            making.rename(folder)
    except BaseException:  # also on an interrupt: leave nothing half made beside the user's folder
        shutil.rmtree(making, ignore_errors=True)
        raise


def update_run(
    folder: Path, record: RunRecord, predictions: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
) -> None:
    """Replace the record of a run, and the predictions of the splits given."""
    for split, rows in (predictions or {}).items():
        write_whole(folder / f"predictions_{split}.json", _rows_json(rows))
    write_whole(folder / "run.json", record.to_json())


def read_record(folder: Path) -> RunRecord:
    """The record alone, without the head.

    Raises:
        ValueError: there is no run, or its record is wrong; the message names the file and the field.
    """
    path = folder / "run.json"
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{folder} is not a run: it has no run.json; `avel train --out {folder}` makes one") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from error
    try:
        return RunRecord.from_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_run(folder: Path) -> Run:
    """The record and the trained head.

    Raises:
        ValueError: the record or the checkpoint is missing or wrong; the message names the file.
    """
    record = read_record(folder)
    path = folder / "model.safetensors"
    try:
        config = read_config(record.head, record.config)
    except ValueError as error:
        raise ValueError(f"{folder / 'run.json'}: {error}") from error
    try:
        state = safetensors.torch.load_file(path)
        head = restore(record.head, config, state)
        _check_texts(head, record)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return Run(folder=folder, record=record, head=head)


def write_whole(path: Path, text: str) -> None:
    """Write a UTF-8 file such that whoever reads it finds the old text or the new one, never a part."""
    handle, making = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(making, 0o666 & ~_umask())
        os.replace(making, path)
    except BaseException:  # also on an interrupt
        Path(making).unlink(missing_ok=True)
        raise


def _check_texts(head: nn.Module, record: RunRecord) -> None:
    """Class texts are replaced as a whole, so a checkpoint may hold another number of them than its record says."""
    got = getattr(getattr(head, "config", None), "num_classes", None)
    if got != record.config["num_classes"]:
        raise ValueError(f"holds {got} class texts, run.json has {record.config['num_classes']} classes and background")


def _rows_json(rows: Sequence[Mapping[str, Any]]) -> str:
    # One item a line: whole-file indentation would be ten times the size, one line none could read.
    return "[\n" + ",\n".join(json.dumps(row, allow_nan=False) for row in rows) + "\n]\n"


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


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
