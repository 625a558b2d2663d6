"""The folder of a fine-tuning run: where training stands after its last whole epoch, and the best weights so far."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from catalog.whole_file import replacing
from pipeline.finetune.contrastive import FeatureQueue

Numbers = dict[str, float]

WEIGHTS, CHECKPOINT = "weights.safetensors", "checkpoint.pt"


@dataclass(kw_only=True)
class FinetuneProgress:
    """State of a fine-tuning run between epochs.

    Attributes:
        before: validation's numbers of the weights given.
        best: of the best epoch so far.
        best_epoch: 0 for the weights given.
        history: one row an epoch.
    """

    before: Numbers
    best: Numbers
    best_epoch: int = 0
    history: list[Numbers] = field(default_factory=list)


def save_weights(state: Mapping[str, Tensor], folder: Path) -> None:
    """Replaces the run's weights, whole or not at all."""
    from safetensors.torch import save_file

    with replacing(folder / WEIGHTS, draft=folder / f"{WEIGHTS}.part") as part:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, part)


def save(
    folder: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    queue: FeatureQueue,
    settings: Mapping[str, Any],
    done: FinetuneProgress,
) -> None:
    """Replaces the checkpoint.

    Args:
        settings: those that decide the numbers, as plain values.
    """
    held = {
        "settings": dict(settings),
        "module": module.state_dict(),
        "optimiser": optimiser.state_dict(),
        "queue": queue.state(),
        "before": done.before,
        "best": done.best,
        "best_epoch": done.best_epoch,
        "history": done.history,
    }
    with replacing(folder / CHECKPOINT, draft=folder / f"{CHECKPOINT}.part") as part:
        torch.save(held, part)


def resume(
    folder: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    queue: FeatureQueue,
    settings: Mapping[str, Any],
    device: str,
) -> FinetuneProgress | None:
    """Where the folder's checkpoint stands, everything restored; None without one.

    Raises:
        ValueError: it is damaged, of another network or of other settings (told).
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        held = _read(path, device)
        if held["settings"] != dict(settings):
            raise ValueError(
                f"{path}: was made with other settings ({_difference(held['settings'], settings)}); "
                "give the same ones to go on, or another --out"
            )
        module.load_state_dict(held["module"])
        optimiser.load_state_dict(held["optimiser"])
        queue.restore(held["queue"])
        return FinetuneProgress(
            before=held["before"], best=held["best"], best_epoch=held["best_epoch"], history=list(held["history"])
        )
    except (RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged or of another network ({error}); remove it to begin anew") from error


def _read(path: Path, device: str) -> dict[str, Any]:
    try:
        held = torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # what torch raises on damage differs from byte to byte
        raise ValueError(f"{path}: damaged ({error}); remove it to begin anew") from error
    if not isinstance(held, dict):
        raise TypeError(f"needs a dictionary, got {type(held).__name__}")
    return held


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}: {there.get(name)}, now {value}" for name, value in here.items() if there.get(name) != value
    )


@contextlib.contextmanager
def scalars(folder: Path) -> Iterator[Any]:
    """TensorBoard's writer."""
    from torch.utils.tensorboard import SummaryWriter

    with contextlib.closing(SummaryWriter(str(folder / "tensorboard"))) as writer:
        yield writer
