"""A head trained on a store's features: splits read, `heads.training.fit`, the evaluations, and the record of all that.

Never looks at the test split before the checkpoint is chosen.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from torch import Tensor

from catalog.dataset import Dataset
from heads.data.split import Split, read_split
from heads.data.split_warnings import split_warnings
from heads.data.vocabulary import hand_over
from heads.evaluation.evaluate import Evaluation
from heads.evaluation.protocol import seen_classes, unseen_labels, without_unseen_training
from heads.registry import build, spec
from heads.runs.record import Numbers, RunRecord
from heads.spec import Head, HeadConfig
from heads.training.checkpoint import Checkpoint
from heads.training.experiment import Experiment, Materials, head_config
from heads.training.fit import Fitted, fit
from heads.training.task import Task, make_task


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """All that goes into a run folder, and what to print.

    Attributes:
        evaluations: split to the head's.
        baselines: split to baseline to its numbers.
    """

    record: RunRecord
    state: dict[str, Tensor]
    evaluations: Mapping[str, Evaluation]
    baselines: Mapping[str, Mapping[str, Numbers]]
    warnings: tuple[str, ...]


def train_run(
    experiment: Experiment,
    materials: Materials,
    *,
    on_epoch: Callable[[Numbers], None] = lambda row: None,
    checkpoint: Checkpoint | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainedRun:
    """Read the splits, train, choose on validation, then evaluate on validation and test.

    Where the data set has unseen classes, no item of theirs is trained on, and a head of class texts is trained to
    choose among the seen ones and the background; it is evaluated on all. A head without parameters is evaluated only.

    Args:
        materials: what the experiment names.
        on_epoch, checkpoint, stop: as `heads.training.fit.fit` takes them.

    Raises:
        ValueError: no such head or recipe, a change that the head does not know, a split without items (test may lack
            them) or without any feature, or a checkpoint that is damaged or of other settings.
        AvelError: the loss became NaN or infinite.
        TrainingStopped: `stop` said so.
    """
    head_spec, settings = spec(experiment.head), experiment.settings
    if head_spec.needs_texts and materials.texts is None:
        raise ValueError(f"head {experiment.head} chooses among class texts and needs a vocabulary of the store")
    dataset = without_unseen_training(materials.dataset)
    splits = _read_splits(experiment, materials, dataset)
    task = make_task(experiment.head, dataset, settings)
    config = head_config(experiment, materials.store.recipes()[experiment.recipe], dataset)
    head = _new_head(experiment, materials, config)
    if head_spec.needs_training:
        data = task.training_data(splits["train"], splits["val"])
        fitted = fit(head, data, settings, on_epoch=on_epoch, checkpoint=checkpoint, stop=stop)
        head.load_state_dict(fitted.state)
    else:
        fitted = Fitted(state={n: tensor.clone() for n, tensor in head.state_dict().items()}, best_epoch=0, history=())
        head.to(settings.device)

    scored = {name: split for name, split in splits.items() if name != "train"}
    evaluations = {name: task.evaluate(head, split) for name, split in scored.items()}
    baselines = {name: task.baselines(split) for name, split in scored.items()}
    record = RunRecord(
        **_inputs(experiment, materials),
        config=dataclasses.asdict(config),
        training=_training(experiment, fitted, splits.get("train")),
        metrics={name: evaluation.metrics for name, evaluation in evaluations.items()},
        baselines=_headline_of(task, baselines),
        history=fitted.history,
        versions=_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return TrainedRun(
        record=record,
        state=fitted.state,
        evaluations=evaluations,
        baselines=baselines,
        warnings=(*split_warnings(dataset, splits, training=True), *_left_out(materials.dataset, dataset)),
    )


def _read_splits(experiment: Experiment, materials: Materials, dataset: Dataset) -> dict[str, Split]:
    """Training, validation and, where the data set has it, test; of a head without parameters those that are there."""
    head_spec = spec(experiment.head)
    if head_spec.needs_training:
        names = ["train", "val", *(["test"] if dataset.split("test") else [])]
    else:
        names = [name for name in ("val", "test") if dataset.split(name)]
    return {
        name: read_split(materials.store, experiment.recipe, dataset, name, pool_places=head_spec.pools_places)
        for name in names
    }


def _new_head(experiment: Experiment, materials: Materials, config: HeadConfig) -> Head:
    """A head with fresh parameters, and its class texts where it needs them."""
    texts, dataset, background = materials.texts, materials.dataset, spec(experiment.head).scores_background
    seen_C = seen_classes(dataset)
    head = build(experiment.head, config, seed=experiment.settings.seed)
    if texts is not None:
        if texts.classes != dataset.classes or (background and texts.background is None):
            raise ValueError(
                f"vocabulary {texts.name} must hold the classes of {dataset.name} in its order, background last"
            )
        hand_over(head, texts, seen_C, background=background)
    return head


def _inputs(experiment: Experiment, materials: Materials) -> dict[str, Any]:
    """The record's fields that name what was trained on."""
    dataset, texts, entry = materials.dataset, materials.texts, materials.store.recipes()[experiment.recipe]
    named = {"name": dataset.name, "root": experiment.root, "media": experiment.media, **experiment.options}
    return {
        "head": experiment.head,
        "classes": dataset.classes,
        "background": dataset.background,
        "num_segments": dataset.num_segments,
        "recipe": entry.recipe,
        "store": {"uri": experiment.store, "snapshot": materials.store.snapshot_id},
        "dataset": named,
        "seed": experiment.settings.seed,
        "unseen": unseen_labels(dataset),
        "texts": None
        if texts is None
        else {"vocabulary": texts.name, "prompt": texts.prompt, "background": texts.background or ""},
    }


def _training(experiment: Experiment, fitted: Fitted, train: Split | None) -> dict[str, Any]:
    """The record's `training`: the settings, and what came of them."""
    settings = experiment.settings
    return (
        ({"epochs": 0, "device": settings.device} if train is None else dataclasses.asdict(settings))
        | {"modality": experiment.modality, "best_epoch": fitted.best_epoch, "epochs_run": len(fitted.history)}
        | {"train_items": 0 if train is None else len(train.items)}
        | {"train_items_left_out": 0 if train is None else len(train.absent)}
    )


def _left_out(whole: Dataset, trained_on: Dataset) -> list[str]:
    num = len(whole.items) - len(trained_on.items)
    return [f"train: {num} items of unseen classes left out of training"] if num else []


def _headline_of(task: Task, baselines: Mapping[str, Mapping[str, Numbers]]) -> Numbers:
    """Each baseline's headline number on the last split on which it is defined: one without any event has none."""
    for numbers in reversed(list(baselines.values())):
        if numbers and all(task.headline in one for one in numbers.values()):
            return {name: one[task.headline] for name, one in numbers.items()}
    return {}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("avel", "torch", "numpy", "safetensors"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
