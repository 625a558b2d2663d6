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

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from catalog.dataset import Dataset
from catalog.store.format import RecipeEntry
from catalog.store.reader import FeatureStore
from heads.data.split import Split, read_split
from heads.data.targets import has_one_label
from heads.data.vocabulary import Vocabulary, hand_over
from heads.dense.head import DenseHead
from heads.evaluation.evaluate import Evaluation, baselines, evaluate
from heads.evaluation.protocol import headline, seen_classes, unseen_labels, without_unseen_training
from heads.registry import build, configure, is_dense, read_config, spec
from heads.runs.record import Numbers, RunRecord
from heads.spec import Head, Modality
from heads.training.checkpoint import Checkpoint
from heads.training.dense_task import DenseTask
from heads.training.fit import Fitted, fit
from heads.training.segment_task import SegmentTask
from heads.training.settings import Settings

# Fields of every config that follow from something else, and whose they are.
_GIVEN = {
    "visual_width": "the features'",
    "audio_width": "the features'",
    "num_classes": "the data set's",
    "modality": "what --modality says",
}


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """All that goes into a run folder, and what to tell.

    Attributes:
        evaluations: split to the head's.
        baselines: split to baseline to its numbers.
    """

    record: RunRecord
    state: dict[str, Tensor]
    evaluations: Mapping[str, Evaluation]
    baselines: Mapping[str, Mapping[str, Numbers]]
    warnings: tuple[str, ...]


def head_config(
    name: str, entry: RecipeEntry, dataset: Dataset, *, modality: Modality, changes: Mapping[str, Any]
) -> Any:
    """The head's config for features of a store, a data set's classes, and changes of fields; reads no feature.

    Raises:
        ValueError: they do not go together, such as sound alone for a head that relates sound to picture.
    """
    has_background = has_one_label(dataset) and not is_dense(name)
    config = configure(
        name,
        visual_shape=entry.visual_shape,
        audio_shape=entry.audio_shape,
        num_classes=len(dataset.classes) + has_background,
        modality=modality,
    )
    told = dataclasses.asdict(config)
    for field, whose in _GIVEN.items():
        if field in changes and changes[field] != told.get(field):
            raise ValueError(f"{field} is {whose}, {told.get(field)}, and is not to be set; got {changes[field]!r}")
    return read_config(name, told | dict(changes))


def train_run(
    store: FeatureStore,
    dataset: Dataset,
    recipe_name: str,
    *,
    head_name: str,
    modality: Modality,
    settings: Settings,
    places: Mapping[str, Any],
    texts: Vocabulary | None = None,
    changes: Mapping[str, Any] | None = None,
    on_epoch: Callable[[Numbers], None] = lambda row: None,
    checkpoint: Checkpoint | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainedRun:
    """Read the splits, train, choose on validation, then evaluate on validation and test.

    Where the data set has unseen classes, no item of theirs is trained on, and a head of class texts is trained to
    choose among the seen ones and the background; it is evaluated on all. A head without parameters is evaluated only.

    Args:
        places: for the record: {"store": {"uri"}, "dataset": {"root", "media"} and the data set's own options}.
        texts: of the classes and the background, for a head that needs them (`heads.data.vocabulary.of_data_set`).
        changes: fields of the head's config in place of those that `configure` chose: an ablation.
        on_epoch, checkpoint, stop: as `heads.training.fit.fit` takes them.

    Raises:
        ValueError: no such head or recipe, a change that the head does not know, a split without items (test may lack
            them) or without any feature, or a checkpoint that is damaged or of other settings.
        AvelError: the loss became NaN or infinite.
        TrainingStopped: `stop` said so.
    """
    head_spec = spec(head_name)
    if head_spec.needs_texts and texts is None:
        raise ValueError(f"head {head_name} chooses among class texts and needs a vocabulary of the store")
    trains = head_spec.needs_training
    whole, dataset = dataset, without_unseen_training(dataset)
    read = {
        name: read_split(store, recipe_name, dataset, name, pool_places=head_spec.pools_places)
        for name in (("train", "val", "test") if trains else ("val", "test"))
        if (trains and name != "test") or dataset.split(name)
    }
    entry = store.recipes()[recipe_name]
    dense = is_dense(head_name)
    config = head_config(head_name, entry, dataset, modality=modality, changes=changes or {})
    seen_C = seen_classes(whole)
    head = build(head_name, config, seed=settings.seed)
    if texts is not None:
        _set_texts(head, texts, dataset, seen_C)
    if trains:
        fitted = fit(
            head,
            (DenseTask if dense else SegmentTask)(read["train"], read["val"], dataset, settings),
            settings,
            on_epoch=on_epoch,
            checkpoint=checkpoint,
            stop=stop,
        )
        head.load_state_dict(fitted.state)
    else:
        state = {name: tensor.clone() for name, tensor in head.state_dict().items()}
        fitted = Fitted(state=state, best_epoch=0, history=())
        head.to(settings.device)

    scored = {name: split for name, split in read.items() if name != "train"}
    evaluations = {name: evaluate(head, split, dataset, device=settings.device) for name, split in scored.items()}
    found = {name: baselines(split, dataset, dense=dense) for name, split in scored.items()}
    metric = headline(dataset, dense=dense)
    # Of the last split on which the number is defined: one without any event has none.
    told = [numbers for numbers in found.values() if numbers and all(metric in one for one in numbers.values())]
    record = RunRecord(
        head=head_name,
        config=dataclasses.asdict(config),
        classes=dataset.classes,
        background=dataset.background,
        num_segments=dataset.num_segments,
        recipe=entry.recipe,
        store={"uri": places["store"]["uri"], "snapshot": store.snapshot_id},
        dataset={"name": dataset.name} | places["dataset"],
        seed=settings.seed,
        training=(dataclasses.asdict(settings) if trains else {"epochs": 0, "device": settings.device})
        | {"modality": modality, "best_epoch": fitted.best_epoch, "epochs_run": len(fitted.history)}
        | {"train_items": len(read["train"].items) if trains else 0}
        | {"train_items_left_out": len(read["train"].absent) if trains else 0},
        metrics={name: evaluation.metrics for name, evaluation in evaluations.items()},
        baselines={name: numbers[metric] for name, numbers in told[-1].items()} if told else {},
        history=fitted.history,
        versions=_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        unseen=unseen_labels(whole),
        texts=None
        if texts is None
        else {"vocabulary": texts.name, "prompt": texts.prompt, "background": texts.background or ""},
    )
    return TrainedRun(
        record=record,
        state=fitted.state,
        evaluations=evaluations,
        baselines=found,
        warnings=tuple(split_warnings(dataset, read, training=True)) + _left_out(whole, dataset),
    )


def split_warnings(dataset: Dataset, read: Mapping[str, Split], *, training: bool) -> list[str]:
    """What a person should know about the splits read: items without features, a grid that is not the protocol's."""
    said = []
    for name, split in read.items():
        if split.absent:
            reasons: dict[str, int] = {}
            for why in split.absent.values():
                reasons[why] = reasons.get(why, 0) + 1
            told = ", ".join(f"{why} {count}" for why, count in sorted(reasons.items(), key=lambda r: (-r[1], r[0])))
            fate = "left out of training" if training and name == "train" else "counted as background"
            said.append(f"{name}: {len(split.absent)} of {len(split.items)} items without features, {fate} ({told})")
        said += _beyond(name, split)
    grid = next(iter(read.values())).recipe.grid
    if dataset.num_segments is not None and (grid.window_s != 1 or grid.hop_s != 1):
        said.append(
            f"{dataset.name} is scored by the second; this recipe's segments last {float(grid.window_s):g} s "
            f"every {float(grid.hop_s):g} s, so the numbers are by the segment and not comparable with published ones"
        )
    return said


def _beyond(name: str, split: Split) -> list[str]:
    """Of events that begin where a video's features have ended already: another cut of it, or half a download."""
    window_s, hop_s = split.recipe.grid.window_s, split.recipe.grid.hop_s
    late: list[tuple[str, float, float]] = []
    for n in split.present.tolist():
        ends_s = (int(split.mask_NT[n].sum()) - 1) * hop_s + window_s
        item = split.items[n]
        late += [(item.id, float(event.start_s), float(ends_s)) for event in item.events if event.start_s >= ends_s]
    if not late:
        return []
    first, starts_s, known_s = late[0]
    return [
        f"{name}: {len(late)} events of {len({row[0] for row in late})} items begin after the features of their videos "
        f"end, and nothing can find them (such as {first}: an event at {starts_s:g} s, features until {known_s:g} s); "
        "are the videos whole, and those that were annotated?"
    ]


def _set_texts(head: Head, texts: Vocabulary, dataset: Dataset, seen_C: NDArray[np.bool_]) -> None:
    if texts.classes != dataset.classes or (texts.background is None and not isinstance(head, DenseHead)):
        raise ValueError(
            f"vocabulary {texts.name} must hold the classes of {dataset.name} in its order, background last"
        )
    hand_over(head, texts, seen_C)


def _left_out(whole: Dataset, trained_on: Dataset) -> tuple[str, ...]:
    num = len(whole.items) - len(trained_on.items)
    return (f"train: {num} items of unseen classes left out of training",) if num else ()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("avel", "torch", "numpy", "safetensors"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
