"""The options of training a head: one spelling for every verb that trains.

`--epochs --lr --weight-decay --batch --optimiser --schedule --warmup-epochs --crop-share --max-segments --clip-norm`
`--precision --ema --keep --patience --threads --device`, and `--set FIELD=VALUE` for fields of a head's config.
"""

from __future__ import annotations

import argparse

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
        "--optimiser",
        choices=("adam", "adamw", "adamw-weights"),
        help="adamw-weights decays matrices only, not biases or norms (adamw)",
    )
    how.add_argument(
        "--schedule",
        metavar="NAME",
        help="of the learning rate: constant, cosine, one-cycle, warmup-cosine, or steps such as 0.5@10,20: halved "
        "after epochs 10 and 20 (constant)",
    )
    how.add_argument("--warmup-epochs", type=int, metavar="N", help="of warmup-cosine, with no other schedule (0)")
    how.add_argument(
        "--crop-share", type=float, metavar="S", help="dense heads: least share of a video in a random crop (1)"
    )
    how.add_argument(
        "--max-segments",
        type=_count_or_none,
        metavar="N",
        help="dense heads: most segments of a video in a step; none: all (none)",
    )
    how.add_argument(
        "--clip-norm",
        type=_number_or_none,
        metavar="N",
        help="clip the gradient to this norm; none: do not clip (none)",
    )
    how.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        help="of training; validation is float32 (float32)",
    )
    how.add_argument(
        "--ema",
        type=_number_or_none,
        metavar="DECAY",
        help="keep the parameters' moving average, such as 0.99 a step; none: the parameters themselves (none)",
    )
    _add_run_options(how)


def _add_run_options(how: argparse._ArgumentGroup) -> None:
    """When a training ends, which epoch is kept, and what it runs on."""
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
        help="torch's CPU threads; more seldom help, since heads are small (default: %(default)s)",
    )
    how.add_argument("--device", default="cpu", help="torch's name, such as cuda (default: %(default)s)")


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
