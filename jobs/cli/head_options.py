"""The options that say how a head is trained: one spelling for every verb that trains.

`--epochs --lr --weight-decay --batch --optimiser --schedule --warmup-epochs --crop-share --max-segments --clip-norm`
`--precision --ema --keep --patience --threads --device`, and `--set FIELD=VALUE` for fields of a head's config.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heads.registry import Scalar
    from heads.training.settings import Settings


# Beyond, a process may be refused the threads, and torch then ends it without a word.
MAX_THREADS = 256
# Switches off what a head was published with.
NONE = "none"


def add_how(parser: argparse.ArgumentParser) -> None:
    """All but `--set`."""
    how = parser.add_argument_group(
        "how", "Defaults are those that the head was published with; of linear: in brackets."
    )
    how.add_argument("--epochs", type=int, help="at most (100)")
    how.add_argument("--lr", type=float, help="learning rate (3e-3)")
    how.add_argument("--weight-decay", type=float, help="(1e-2)")
    how.add_argument("--batch", type=int, help="items a step (16)")
    how.add_argument(
        "--optimiser", choices=("adam", "adamw", "adamw-weights"), help="the last decays what multiplies only (adamw)"
    )
    how.add_argument(
        "--schedule",
        choices=("constant", "cosine", "one-cycle", "psp", "cmbs", "warmup-cosine"),
        help="of the rate (constant)",
    )
    how.add_argument("--warmup-epochs", type=int, metavar="N", help="of warmup-cosine, with no other schedule (0)")
    how.add_argument(
        "--crop-share", type=float, metavar="S", help="dense heads: least share of a video shown at a step (1)"
    )
    how.add_argument(
        "--max-segments",
        type=_count_or_none,
        metavar="N",
        help="dense heads: most segments of a video shown at a step; none: all (none)",
    )
    how.add_argument(
        "--clip-norm", type=_number_or_none, metavar="N", help="hold the gradient's norm below this; none: not (none)"
    )
    how.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        help="of the head while it is trained; validation is float32 (float32)",
    )
    how.add_argument(
        "--ema",
        type=_number_or_none,
        metavar="DECAY",
        help="keep the parameters' moving average, such as 0.99 a step; none: the parameters themselves (none)",
    )
    how.add_argument(
        "--keep",
        choices=("best", "last"),
        help="the epoch to keep: the best on validation, or the last of a fixed number (best)",
    )
    how.add_argument(
        "--patience",
        type=int,
        default=15,
        help="stop after so many epochs without a better validation; 0: never (default: %(default)s)",
    )
    how.add_argument(
        "--threads",
        type=int,
        default=1,
        help="torch's CPU threads; heads are small, and more of them wait for one another (default: %(default)s)",
    )
    how.add_argument("--device", default="cpu", help="torch's name, such as cuda (default: %(default)s)")


def settings_of(args: argparse.Namespace, head: str, *, seed: int) -> Settings:
    """How `head` is trained: as published, but for what the options say.

    A schedule without a warm-up of its own length leaves out the published number of its epochs.

    Raises:
        BadArguments: a setting that cannot be.
    """
    from catalog.errors import BadArguments
    from heads.training.settings import published_settings

    if args.threads < 1:
        raise BadArguments(f"--threads must be at least 1, got {args.threads}")
    if args.threads > MAX_THREADS:
        raise BadArguments(f"--threads must be at most {MAX_THREADS}, got {args.threads}")
    check_device(args.device)
    # None says nothing, and a head may have been published with a number.
    limits = {name: getattr(args, name) for name in ("clip_norm", "ema", "max_segments")}
    switched_off: dict[str, Any] = {name: None for name, value in limits.items() if value == NONE}
    limits |= switched_off
    warmup_epochs = args.warmup_epochs
    if warmup_epochs is None and args.schedule not in (None, "warmup-cosine"):
        warmup_epochs = 0
    try:
        settings = published_settings(
            head,
            epochs=args.epochs,
            learning_rate=args.lr,
            weight_decay=args.weight_decay,
            batch_size=args.batch,
            patience=args.patience,
            seed=seed,
            device=args.device,
            optimiser=args.optimiser,
            schedule=args.schedule,
            precision=args.precision,
            keep=args.keep,
            warmup_epochs=warmup_epochs,
            crop_share=args.crop_share,
            **limits,
        )
        return dataclasses.replace(settings, **switched_off)
    except ValueError as error:
        raise BadArguments(str(error)) from error


def _number_or_none(text: str) -> float | str:
    try:
        return NONE if text.lower() == NONE else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"needs a number or none, got {text!r}") from None


def _count_or_none(text: str) -> int | str:
    try:
        return NONE if text.lower() == NONE else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"needs a whole number or none, got {text!r}") from None


def check_device(name: str) -> None:
    """See that torch can compute on the device of that name, here and now.

    Raises:
        BadArguments: no such device, or none here.
    """
    import torch

    from catalog.errors import BadArguments

    try:
        device = torch.device(name)
        if device.type == "meta":
            raise ValueError("meta tensors hold no numbers")
        torch.ones(1, device=device).sum().item()
    # torch was built without the device (AssertionError, NotImplementedError, ImportError), or has none of that name
    except (RuntimeError, AssertionError, ImportError, ValueError) as error:
        raise BadArguments(f"--device: torch cannot compute on {name!r} here: {str(error).splitlines()[0]}") from error


def config_changes(head: str, texts: Sequence[str]) -> dict[str, Scalar]:
    """The fields of the head's config that `--set` changes.

    Raises:
        BadArguments: not FIELD=VALUE, no such field, or a value of another kind.
    """
    from catalog.errors import BadArguments
    from heads.registry import parse_field

    found: dict[str, Scalar] = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals or not field:
            raise BadArguments(f"--set needs FIELD=VALUE, got {text!r}")
        try:
            found[field] = parse_field(head, field, value)
        except ValueError as error:
            raise BadArguments(f"--set: {error}") from error
    return found
