"""A head trained on a store's features: splits read, `heads.fit`, the evaluations, and the record of all that.

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
from catalog.store import FeatureStore
from heads.evaluate import Evaluation, baselines, evaluate, headline
from heads.fit import Settings, fit
from heads.model import Modality, build, plugin
from heads.read import Split, read_split
from heads.run_folder import Numbers, RunRecord
from heads.targets import has_one_label, truth


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


def train_run(
    store: FeatureStore,
    dataset: Dataset,
    recipe_name: str,
    *,
    head_name: str,
    modality: Modality,
    settings: Settings,
    places: Mapping[str, Any],
    on_epoch: Callable[[Numbers], None] = lambda row: None,
) -> TrainedRun:
    """Read the splits, train, choose on validation, then evaluate on validation and test.

    Args:
        places: for the record: {"store": {"uri"}, "dataset": {"root", "media"}}.
        on_epoch: called with each row of the history.

    Raises:
        ValueError: no such head or recipe, or a split without items (test may lack them) or without any feature.
        AvelError: the loss became NaN or infinite.
    """
    head_plugin = plugin(head_name)
    if getattr(head_plugin, "NEEDS_TEXTS", False):
        raise ValueError(
            f"head {head_name} chooses among class texts, which `avel train` does not hand to a head yet; "
            "use it from Python: head.set_texts(store.labels(recipe, vocabulary).features)"
        )
    read = {
        name: read_split(store, recipe_name, dataset, name, pool_places=head_plugin.POOLS_PLACES)
        for name in ("train", "val", "test")
        if name != "test" or dataset.split("test")
    }
    entry = store.recipes()[recipe_name]
    one_label = has_one_label(dataset)
    config = head_plugin.configure(
        visual_shape=entry.visual_shape,
        audio_shape=entry.audio_shape,
        num_classes=len(dataset.classes) + one_label,
        modality=modality,
    )
    true = {
        name: truth(dataset, read[name].items, entry.recipe.grid, read[name].num_segments) for name in ("train", "val")
    }
    head = build(head_name, config, seed=settings.seed)
    fitted = fit(
        head,
        read["train"],
        true["train"],
        read["val"],
        true["val"],
        settings,
        background=len(dataset.classes) if one_label else None,
        on_epoch=on_epoch,
    )
    head.load_state_dict(fitted.state)

    scored = {name: split for name, split in read.items() if name != "train"}
    evaluations = {name: evaluate(head, split, dataset, device=settings.device) for name, split in scored.items()}
    found = {name: baselines(split, dataset) for name, split in scored.items()}
    last, metric = list(found)[-1], headline(dataset)
    record = RunRecord(
        head=head_name,
        config=dataclasses.asdict(config),
        classes=dataset.classes,
        background=dataset.background,
        num_segments=dataset.num_segments,
        recipe=entry.recipe,
        store={"uri": places["store"]["uri"], "snapshot": store.snapshot_id},
        dataset={"name": dataset.name, "root": places["dataset"]["root"], "media": places["dataset"]["media"]},
        seed=settings.seed,
        training=dataclasses.asdict(settings)
        | {"modality": modality, "best_epoch": fitted.best_epoch, "epochs_run": len(fitted.history)}
        | {"train_items": len(read["train"].items), "train_items_left_out": len(read["train"].absent)},
        metrics={name: evaluation.metrics for name, evaluation in evaluations.items()},
        baselines={name: numbers[metric] for name, numbers in found[last].items()},
        history=fitted.history,
        versions=_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return TrainedRun(
        record=record,
        state=fitted.state,
        evaluations=evaluations,
        baselines=found,
        warnings=tuple(split_warnings(dataset, read, training=True)),
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
    grid = next(iter(read.values())).recipe.grid
    if dataset.num_segments is not None and (grid.window_s != 1 or grid.hop_s != 1):
        said.append(
            f"{dataset.name} is scored by the second; this recipe's segments last {float(grid.window_s):g} s "
            f"every {float(grid.hop_s):g} s, so the numbers are by the segment and not comparable with published ones"
        )
    return said


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("avel", "torch", "numpy", "safetensors"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
