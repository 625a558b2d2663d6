"""The training settings that the options of `head_options.py` ask for."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from catalog.errors import BadArguments
from heads.registry import parse_field
from heads.spec import Scalar
from heads.training.settings import Settings, published_settings
from jobs.cli.head_options import NONE
from jobs.cli.recipe_options import changes

# More threads than this may be refused by the system, and torch then aborts without a message.
MAX_THREADS = 256


def settings_of(args: argparse.Namespace, head: str, *, seed: int) -> Settings:
    """The settings to train `head` with: the published ones, overridden by the options.

    A schedule without a warm-up of its own length leaves out the published number of its epochs.

    Raises:
        BadArguments: an invalid setting.
    """
    if args.threads < 1:
        raise BadArguments(f"--threads must be at least 1, got {args.threads}")
    if args.threads > MAX_THREADS:
        raise BadArguments(f"--threads must be at most {MAX_THREADS}, got {args.threads}")
    check_device(args.device)
    # An option that is not given is None, so that switching off a published number needs a value of its own.
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


def check_device(name: str) -> None:
    """See that torch can compute on the device of that name, here and now.

    Raises:
        BadArguments: no such device, or none here.
    """
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
    found: dict[str, Scalar] = {}
    for field, value in changes(texts).items():
        try:
            found[field] = parse_field(head, field, value)
        except ValueError as error:
            raise BadArguments(f"--set: {error}") from error
    return found
