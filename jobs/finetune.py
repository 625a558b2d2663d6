"""`avel finetune`: an encoder's towers trained further on a data set's own pairs of pictures and sounds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cli.recipe_options import add_set, add_weights
from jobs.cli.signals import stoppable

if TYPE_CHECKING:
    from catalog.dataset import Dataset
    from catalog.recipe import Recipe
    from pipeline.finetune.loop import Finetuned, Settings

HELP = "train an encoder further on pictures and sounds that belong together; gives a checkpoint for `avel extract`"
EXAMPLES = """\
examples:
  avel finetune audioclip --dataset ave --root AVE_Dataset --out runs/audioclip-ave
  avel finetune audioclip --dataset ave --root AVE_Dataset --out runs/big --precision bfloat16 --batch 512 --piece 64
                                             a large batch in pieces: its exact gradient in the memory of one piece
  avel finetune audioclip --dataset ave --root AVE_Dataset --out runs/sound --augment --freeze audio.fbsp. visual.
                                             few videos: changed a little in every epoch; only the sound's tower learns
  avel finetune audioclip --dataset ave --root AVE_Dataset --out runs/audioclip-ave --dry-run
  avel extract --dataset ave --root AVE_Dataset --recipe audioclip-1s --as audioclip-ave-1s \\
      --weights runs/audioclip-ave/weights.safetensors --store features
The same command again goes on after a kill, from the last whole epoch, and ends as the undisturbed run would. Over a
finished run it says so; with other settings it is refused, and OUT stays as it is. Videos are decoded once, into
OUT/pairs. TensorBoard: tensorboard --logdir OUT/tensorboard.
Exit status: 0 trained; 1 failed; 2 bad arguments; 130/143 stopped by SIGINT/SIGTERM after the epoch in hand.
"""

RUN = "run.json"  # written last: a folder that holds it holds a finished run
# Frames kept of each second for the pairs; a step takes one of them by chance.
FRAMES = 2
# AudioCLIP's learnt time-frequency transform. Its splines' order m divides their argument, so that near the initial
# m = 0 its gradient is up to 3e10 where all others' together is 1e2 (measured on a fresh small tower): clipped
# together with it, the rest of the network learns nothing.
FROZEN = ("audio.fbsp.",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("encoder", help="one that can be fine-tuned: audioclip")
    data = parser.add_argument_group("what")
    data.add_argument("--dataset", required=True, metavar="NAME", help="ave, ovavebench, unav100, synthetic")
    data.add_argument("--root", required=True, metavar="DIR", help="where its official files are")
    data.add_argument("--media", metavar="DIR", help="where its videos are (default: in DIR/videos)")
    data.add_argument("--out", required=True, type=Path, metavar="RUN", help="folder of this run; made if absent")
    how = parser.add_argument_group("how")
    how.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    how.add_argument("--batch", type=int, default=64, help="positive pairs a step (default: %(default)s)")
    how.add_argument(
        "--piece", type=int, default=32, help="rows that go through the network at once (default: %(default)s)"
    )
    how.add_argument("--queue", type=int, default=0, help="features of earlier steps kept as negatives (default: 0)")
    how.add_argument(
        "--background", type=float, default=0.25, help="background seconds a pair, as negatives (default: %(default)s)"
    )
    how.add_argument("--lr", type=float, default=1e-5, help="AdamW's learning rate (default: %(default)s)")
    how.add_argument("--weight-decay", type=float, default=1e-2, help="default: %(default)s")
    how.add_argument(
        "--batch-norm", choices=("frozen", "train"), default="frozen", help="statistics (default: %(default)s)"
    )
    how.add_argument(
        "--augment", action="store_true", help="change pictures and sounds a little by chance; for small data sets"
    )
    how.add_argument(
        "--freeze",
        nargs="*",
        default=list(FROZEN),
        metavar="START",
        help="parameters that stay as they are, by the start of their names; bare: none (default: "
        f"{' '.join(FROZEN)}, the sound's time-frequency transform)",
    )
    how.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="default: %(default)s")
    how.add_argument("--frames", type=int, default=FRAMES, help="kept of each second (default: %(default)s)")
    how.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    how.add_argument("--workers", type=int, default=2, help="decoders, for the pairs (default: %(default)s)")
    add_set(how)
    add_weights(how)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from filelock import FileLock, Timeout

    from catalog import dataset
    from catalog.errors import BadArguments
    from jobs.cli.chosen_recipes import device as device_of
    from jobs.cli.chosen_recipes import with_weights
    from pipeline.finetune.loop import Settings

    recipe = _recipe(args)
    if args.dataset not in dataset.names():
        raise BadArguments(f"no data set is called {args.dataset!r}; there are {', '.join(dataset.names())}")
    found = dataset.load(args.dataset, args.root, media=args.media)
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
        return _tell_plan(found, recipe, settings, args)
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(args.out / ".lock", timeout=0):
            return _run(found, recipe, weights[recipe.name], settings, args)
    except Timeout as error:
        raise BadArguments(
            f"--out {args.out}: another `avel finetune` is at work there; take another folder"
        ) from error


def _run(
    dataset: Dataset, recipe: Recipe, weights: dict[str, Path], settings: Settings, args: argparse.Namespace
) -> int:
    from jobs.cli.console import Progress, note
    from pipeline.encoder import encoder_module
    from pipeline.finetune.loop import finetune, num_steps
    from pipeline.finetune.pairs import decode_pairs

    if (finished := _finished(dataset, recipe, settings, args)) is not None:
        note(f"avel finetune: {args.out} is finished; nothing to do")
        return _tell(dataset, finished, args)
    with stoppable("avel finetune", "after the epoch in hand") as (stop, received):
        with Progress("decode", len(dataset.videos), "videos", quiet=args.json) as progress:
            pairs = decode_pairs(
                dataset, recipe, args.out / "pairs", workers=args.workers, on_video=lambda: progress.advance(1)
            )
        for video_id, why in list(pairs.absent.items())[:5]:
            note(f"avel finetune: {video_id} has no pairs ({why})")
        if len(pairs.absent) > 5:
            note(f"avel finetune: and {len(pairs.absent) - 5} more of {len(dataset.videos)} videos")
        towers = encoder_module(recipe.encoder).towers(weights, settings.device, recipe)  # type: ignore[attr-defined]  # `_recipe` has checked that it is there
        with Progress("train", num_steps(pairs, settings), "steps", quiet=args.json) as progress:
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
    """What a finished run in this folder told; None where there is none.

    Raises:
        BadArguments: it is another run's folder; its weights would be lost.
    """
    import dataclasses
    import json

    from catalog.errors import BadArguments
    from pipeline.finetune.folder import WEIGHTS
    from pipeline.weights.folder import sha256_of

    path = args.out / RUN
    if not path.exists():
        return None
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        weights = args.out / WEIGHTS
        is_whole = weights.is_file() and sha256_of(weights) == told["weights_sha256"]
        # Where and in what pieces it runs decides nothing.
        wanted = {"recipe": json.loads(recipe.to_json()), "dataset": dataset.name}
        there = {"recipe": told["recipe"], "dataset": told["dataset"]["name"]}
        for name, value in json.loads(json.dumps(dataclasses.asdict(settings))).items():
            if name not in ("device", "piece_size"):
                wanted[name], there[name] = value, told["settings"][name]
    except (ValueError, KeyError, TypeError) as error:
        raise BadArguments(f"{path}: not what `avel finetune` writes ({error!r}); take another --out") from error
    other = [name for name in wanted if wanted[name] != there[name]]
    if other:
        raise BadArguments(
            f"--out {args.out}: a finished run with another {', '.join(other)} lies there; take another folder"
        )
    return told if is_whole else None


def _recipe(args: argparse.Namespace) -> Recipe:
    """The encoder's first preset with few frames a second, and what --set changes."""
    from catalog.errors import BadArguments
    from jobs.cli.chosen_recipes import chosen_recipe
    from jobs.cli.recipe_options import changes
    from pipeline.encoder import encoder_module, encoder_names, encoder_presets

    able = [name for name in encoder_names() if hasattr(encoder_module(name), "towers")]
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


def _tell_plan(dataset: Dataset, recipe: Recipe, settings: Settings, args: argparse.Namespace) -> int:
    from jobs.cli.console import print_json, say

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
    """Writes run.json, tells the outcome and removes the checkpoint."""
    import dataclasses
    import json
    from importlib.metadata import version

    from pipeline.finetune.folder import CHECKPOINT, WEIGHTS
    from pipeline.finetune.retrieval import chance
    from pipeline.weights.folder import sha256_of

    made = sha256_of(args.out / WEIGHTS)
    val_items = _num_val_items(dataset, absent)
    told: dict[str, Any] = {
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
    part = args.out / f"{RUN}.part"
    part.write_text(json.dumps(told, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(args.out / RUN)
    (args.out / CHECKPOINT).unlink(missing_ok=True)
    return _tell(dataset, told, args)


def _tell(dataset: Dataset, told: dict[str, Any], args: argparse.Namespace) -> int:
    from jobs.cli.console import print_json, say, table
    from pipeline.finetune.folder import WEIGHTS

    val_items = _num_val_items(dataset, told["absent"])
    if args.json:
        print_json(told)
        return 0
    rows = [
        [
            way.replace("_", " "),
            f"R@{k}",
            *(f"{100 * numbers[f'{way}_r{k}']:.1f}" for numbers in (told["before"], told["after"])),
            f"{100 * told['chance'][f'r{k}']:.1f}",
        ]
        for way in ("image_to_audio", "audio_to_image")
        for k in (1, 5, 10)
    ]
    table(f"Retrieval on {val_items} validation items", ["way", "", "before %", "after %", "chance %"], rows)
    say(f"{args.out / WEIGHTS}: epoch {told['best_epoch']} of {len(told['history'])}, SHA-256 {told['weights_sha256']}")
    name, encoder = told["recipe"]["name"], told["encoder"]
    say(f"next: avel extract ... --recipe {name} --as {encoder}-tuned --weights {args.out / WEIGHTS}")
    return 0


def _num_val_items(dataset: Dataset, absent: dict[str, str]) -> int:
    return sum(1 for item in dataset.split("val") if item.events and item.video_id not in absent)
