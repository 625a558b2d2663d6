"""`avel finetune` at work: decode the pairs, train the towers, write and print the record of the run."""

from __future__ import annotations

import argparse
import dataclasses
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from catalog.dataset import Dataset
from catalog.errors import BadArguments
from catalog.lock import Locked, hold_lock
from catalog.recipe import Recipe
from catalog.whole_file import write_atomically
from jobs.cli.chosen_dataset import load_dataset
from jobs.cli.chosen_recipes import chosen_recipe, with_weights
from jobs.cli.chosen_recipes import device as device_of
from jobs.cli.console import Progress, note, print_json, say, table
from jobs.cli.recipe_options import changes
from jobs.cli.signals import stoppable
from pipeline.encoder import encoder_module, encoder_names, encoder_presets, encoder_spec
from pipeline.finetune.folder import CHECKPOINT, WEIGHTS
from pipeline.finetune.loop import Finetuned, Settings, finetune, num_steps
from pipeline.finetune.pairs import decode_pairs
from pipeline.finetune.retrieval import chance
from pipeline.weights.folder import sha256_of

RUN = "run.json"  # written last: a folder that holds it holds a finished run


def run(args: argparse.Namespace) -> int:
    recipe = _recipe(args)
    dataset = load_dataset(args.dataset, args.root, args.media)
    (recipe,), weights = with_weights([recipe], args.weights)
    device, _ = device_of(args.device, [recipe])
    if args.workers < 1:
        raise BadArguments(f"--workers must be at least 1, got {args.workers}")
    try:
        settings = Settings(
            epochs=args.epochs,
            batch_size=args.batch,
            piece_size=args.piece,
            queue_size=args.queue,
            background_share=args.background,
            learning_rate=args.lr,
            weight_decay=args.weight_decay,
            batch_norm=args.batch_norm,
            augment=args.augment,
            frozen=tuple(args.freeze),
            precision=args.precision,
            seed=args.seed,
            device=device,
        )
    except ValueError as error:
        raise BadArguments(str(error)) from error
    if args.dry_run:
        return _print_plan(dataset, recipe, settings, args)
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        with hold_lock(args.out / ".lock"):
            return _train(dataset, recipe, weights[recipe.name], settings, args)
    except Locked as error:
        raise BadArguments(
            f"--out {args.out}: another `avel finetune` is at work there; take another folder"
        ) from error


def _train(
    dataset: Dataset, recipe: Recipe, weights: dict[str, Path], settings: Settings, args: argparse.Namespace
) -> int:
    if (finished := _finished(dataset, recipe, settings, args)) is not None:
        note(f"avel finetune: {args.out} is finished; nothing to do")
        return _print_run(dataset, finished, args)
    with stoppable("avel finetune", "after the epoch in hand") as (stop, received):
        with Progress("decode", len(dataset.videos), "videos") as progress:
            pairs = decode_pairs(
                dataset, recipe, args.out / "pairs", workers=args.workers, on_video=lambda: progress.advance(1)
            )
        for video_id, why in list(pairs.absent.items())[:5]:
            note(f"avel finetune: {video_id} has no pairs ({why})")
        if len(pairs.absent) > 5:
            note(f"avel finetune: and {len(pairs.absent) - 5} more of {len(dataset.videos)} videos")
        towers = encoder_module(recipe.encoder).load_trainable(weights, settings.device, recipe)  # type: ignore[attr-defined]  # `_recipe` has checked that it is there
        with Progress("train", num_steps(pairs, settings), "steps") as progress:
            result = finetune(
                towers,
                pairs,
                args.out,
                settings,
                origin={
                    "weights": recipe.weights_sha256 or "",
                    "recipe": recipe.fingerprint(),
                    "dataset": dataset.name,
                    "pairs": str(len(pairs.frames_RPHWC)),
                },
                on_epoch=lambda row: note(_line(row)),
                on_step=lambda done: progress.advance(done - progress.done),
                stop=stop.is_set,
            )
    if result.stopped:
        left = settings.epochs - len(result.history)
        note(f"avel finetune: stopped; {left} of {settings.epochs} epochs are left: the same command goes on")
        return 128 + received[0]
    return _finish(dataset, recipe, settings, result, pairs.absent, args)


def _finished(dataset: Dataset, recipe: Recipe, settings: Settings, args: argparse.Namespace) -> dict[str, Any] | None:
    """The record of the finished run in this folder; None where there is none.

    Raises:
        BadArguments: it is another run's folder; its weights would be lost.
    """
    path = args.out / RUN
    if not path.exists():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        weights = args.out / WEIGHTS
        is_whole = weights.is_file() and sha256_of(weights) == record["weights_sha256"]
        # Where and in what pieces it runs decides nothing.
        wanted = {"recipe": json.loads(recipe.to_json()), "dataset": dataset.name}
        there = {"recipe": record["recipe"], "dataset": record["dataset"]["name"]}
        for name, value in json.loads(json.dumps(dataclasses.asdict(settings))).items():
            if name not in ("device", "piece_size"):
                wanted[name], there[name] = value, record["settings"][name]
    except (ValueError, KeyError, TypeError) as error:
        raise BadArguments(f"{path}: not what `avel finetune` writes ({error!r}); take another --out") from error
    other = [name for name in wanted if wanted[name] != there[name]]
    if other:
        raise BadArguments(
            f"--out {args.out}: already holds a finished run with another {', '.join(other)}; take another folder"
        )
    return record if is_whole else None


def _recipe(args: argparse.Namespace) -> Recipe:
    """The encoder's first preset with few frames a second, and what --set changes."""
    able = [name for name in encoder_names() if encoder_spec(name).trainable]
    if args.encoder not in able:
        raise BadArguments(f"{args.encoder!r} cannot be fine-tuned; {', '.join(able) or 'no encoder'} can")
    preset = encoder_presets(args.encoder)[0]
    return chosen_recipe(preset.name, {"video.frames_per_segment": str(args.frames)} | changes(args.set))


def _line(row: dict[str, float]) -> str:
    recalls = ", ".join(f"R@{k} {100 * row[f'val_image_to_audio_r{k}']:.1f}" for k in (1, 5, 10))
    return (
        f"epoch {row['epoch']}: loss {row['train_loss']:.3f}, val {row['val_loss']:.3f}, image to audio {recalls}, "
        f"1/tau {row['inverse_temperature']:.1f}, {row['seconds']:.1f} s"
    )


def _print_plan(dataset: Dataset, recipe: Recipe, settings: Settings, args: argparse.Namespace) -> int:
    assert recipe.video is not None
    assert recipe.audio is not None
    seconds = sum(dataset.num_segments or 30 for _ in dataset.videos)
    frame_bytes = recipe.video.segment_bytes
    pair_bytes = frame_bytes + 2 * int(recipe.audio.rate_hz * recipe.grid.window_s)
    plan: dict[str, Any] = {
        "train_items": len(dataset.split("train")),
        "val_items": len(dataset.split("val")),
        "videos": len(dataset.videos),
        "pairs_gb": round(seconds * pair_bytes / 1e9, 2),
        "epochs": settings.epochs,
        "batch": settings.batch_size,
        "device": settings.device,
        "weights_sha256": recipe.weights_sha256,
        "out": str(args.out),
    }
    if args.json:
        print_json(plan)
    else:
        say(
            f"would decode {plan['videos']} videos into {args.out}/pairs (about {plan['pairs_gb']} GB), then train on "
            f"{plan['train_items']} items for {settings.epochs} epochs of batches of {settings.batch_size} "
            f"on {settings.device}, and validate on {plan['val_items']}"
        )
    return 0


def _finish(
    dataset: Dataset,
    recipe: Recipe,
    settings: Settings,
    result: Finetuned,
    absent: dict[str, str],
    args: argparse.Namespace,
) -> int:
    """Writes run.json, removes the checkpoint and prints the result."""
    made = sha256_of(args.out / WEIGHTS)
    val_items = _num_val_items(dataset, absent)
    record: dict[str, Any] = {
        "encoder": recipe.encoder,
        "recipe": json.loads(recipe.to_json()),
        "from_weights_sha256": recipe.weights_sha256,
        "weights": str(args.out / WEIGHTS),
        "weights_sha256": made,
        "dataset": {"name": dataset.name, "root": str(args.root), "media": args.media},
        "settings": dataclasses.asdict(settings),
        "before": result.before,
        "after": result.after,
        "best_epoch": result.best_epoch,
        "chance": chance(max(1, val_items)),
        "history": list(result.history),
        "absent": absent,
        "versions": {name: version(name) for name in ("avel", "torch", "numpy")},
    }
    write_atomically(args.out / RUN, json.dumps(record, indent=1, allow_nan=False) + "\n")
    (args.out / CHECKPOINT).unlink(missing_ok=True)
    return _print_run(dataset, record, args)


def _print_run(dataset: Dataset, record: dict[str, Any], args: argparse.Namespace) -> int:
    val_items = _num_val_items(dataset, record["absent"])
    if args.json:
        print_json(record)
        return 0
    rows = [
        [
            way.replace("_", " "),
            f"R@{k}",
            *(f"{100 * numbers[f'{way}_r{k}']:.1f}" for numbers in (record["before"], record["after"])),
            f"{100 * record['chance'][f'r{k}']:.1f}",
        ]
        for way in ("image_to_audio", "audio_to_image")
        for k in (1, 5, 10)
    ]
    table(f"Retrieval on {val_items} validation items", ["way", "", "before %", "after %", "chance %"], rows)
    epochs = f"epoch {record['best_epoch']} of {len(record['history'])}"
    say(f"{args.out / WEIGHTS}: {epochs}, SHA-256 {record['weights_sha256']}")
    name, encoder = record["recipe"]["name"], record["encoder"]
    say(f"next: avel extract ... --recipe {name} --as {encoder}-tuned --weights {args.out / WEIGHTS}")
    return 0


def _num_val_items(dataset: Dataset, absent: dict[str, str]) -> int:
    return sum(1 for item in dataset.split("val") if item.events and item.video_id not in absent)
