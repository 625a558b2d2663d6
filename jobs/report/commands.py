"""The command lines that make a run and its report again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from catalog.recipe import Recipe
from heads.runs.record import RunRecord
from jobs.cli.console import visible
from jobs.report.reported_run import ReportedRun
from pipeline.recipes import presets


def commands(
    run: ReportedRun, *, out: Path, num_videos: int, compared: Sequence[ReportedRun], smooth: int | None = None
) -> str:
    """The command lines that make this run and this report again, one a line."""
    record = run.record
    training = record.training
    media = ["--media", record.dataset["media"]] if record.dataset["media"] else []
    annotations = ["--dataset", record.dataset["name"], "--root", record.dataset["root"], *media]
    chosen: dict[str, object] = {"--head": record.head, "--vocabulary": (record.texts or {}).get("vocabulary")}
    chosen |= {"--modality": training.get("modality"), "--epochs": training.get("epochs") or None}
    chosen |= {"--lr": training.get("learning_rate"), "--weight-decay": training.get("weight_decay")}
    chosen |= {"--batch": training.get("batch_size"), "--patience": training.get("patience"), "--seed": record.seed}
    chosen |= {"--seeds": len(run.seeds) or None}
    chosen |= {"--unseen": record.dataset_options.get("unseen")}
    chosen |= {"--optimiser": training.get("optimiser"), "--schedule": training.get("schedule")}
    chosen |= {"--warmup-epochs": training.get("warmup_epochs") or None, "--keep": training.get("keep")}
    chosen |= {"--crop-share": training.get("crop_share")}
    # Left out, a head's published value would be taken for them.
    for field in ("max_segments", "clip_norm", "ema"):
        if field in training:
            chosen["--" + field.replace("_", "-")] = "none" if training[field] is None else training[field]
    chosen |= {"--precision": training.get("precision"), "--threads": training.get("threads")}
    settings = [word for option, value in chosen.items() if value is not None for word in (option, value)]
    settings += [word for change in _changes(training.get("changes")) for word in ("--set", change)]
    share = record.dataset_options.get("train_list", "")
    settings += ["--train-share", f"{100 * float(share):g}"] if share in ("0.25", "0.5", "0.75") else []
    others = ["--smooth", smooth] if smooth is not None else []
    others += ["--compare", *(other.folder for other in compared)] if compared else []
    store, recipe = ["--store", record.store["uri"]], ["--recipe", record.recipe.name]
    lines: list[list[object]] = [
        ["avel", "extract", *annotations, *store, *_recipe_words(record.recipe)],
        *_labels_line(record),
        ["avel", "train", *store, *annotations, *recipe, *settings, "--out", run.folder],
        ["avel", "report", run.folder, "--out", out, "--videos", num_videos, *others],
    ]
    return "\n".join(visible(shlex.join(map(str, line))) for line in lines)


def _changes(recorded: object) -> list[str]:
    """FIELD=VALUE of each changed field of the head's config; a stranger's record may hold anything."""
    try:
        changes = json.loads(recorded) if isinstance(recorded, str) else {}
    except (json.JSONDecodeError, RecursionError):
        return []
    if not isinstance(changes, dict):
        return []
    words = {None: "none", True: "true", False: "false"}
    return [f"{key}={words[v] if v is None or isinstance(v, bool) else v}" for key, v in changes.items()]


def _labels_line(record: RunRecord) -> list[list[object]]:
    """`avel labels`, where the head chooses among class texts."""
    if record.texts is None:
        return []
    data_set = ["--dataset", record.dataset["name"], "--root", record.dataset["root"]]
    store = ["--store", record.store["uri"], "--recipe", record.recipe.name]
    return [
        ["avel", "labels", *store, *data_set, "--name", record.texts["vocabulary"], "--prompt", record.texts["prompt"]]
    ]


def _recipe_words(recipe: Recipe) -> list[object]:
    """Arguments of `avel extract` for `recipe`: the nearest preset and each setting that differs from it."""

    near = [preset for preset in presets().values() if preset.encoder == recipe.encoder]
    if not near:
        return ["--recipe", recipe.name]
    base = min(near, key=lambda preset: (len(preset.differences(recipe)), preset.name != recipe.name))
    words: list[object] = ["--recipe", base.name]
    for path, _, wanted in base.differences(recipe):
        # The encoder's author and the checkpoint file decide these; they are no settings.
        if path not in ("revision", "weights_sha256"):
            words += ["--set", f"{path}={wanted if isinstance(wanted, str) else json.dumps(wanted)}"]
    return words if base.name == recipe.name else [*words, "--as", recipe.name]
