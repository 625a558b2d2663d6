"""The checkpoint of an unfinished training: one file, replaced whole, from which a later call goes on bit for bit.

    FOLDER/checkpoint.safetensors   `head/NAME` parameters and buffers, `best/NAME` those of the best epoch,
                                    `mean/NAME` averaged parameters, `optimiser/I/KEY`, `generator/NAME`; and, as
                                    metadata, JSON: format, identity, history, best_epoch, scaler

Nothing is pickled. A training killed at any moment finds the old file or the new one, never a part.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from catalog.whole_file import replacing
from heads.runs.record import Numbers
from heads.spec import Head
from heads.training.optim import canonical_schedule

FORMAT = 1
FILE = "checkpoint.safetensors"
# Saving may cost this share of the time. Epochs of a small head last 50 ms and are saved one by one; a large head's
# file takes a second to write, and is written when twenty seconds have gone into the training.
SHARE = 0.05


@dataclass(kw_only=True)
class Progress:
    """How far a training is.

    Attributes:
        history: one row an epoch.
        best_epoch: counted from 1; 0 before the first.
        best_state: its parameters and buffers, on the CPU.
    """

    history: list[Numbers] = field(default_factory=list)
    best_epoch: int = 0
    best_state: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Moving:
    """All that a step of the training changes.

    Attributes:
        order: draws the order of items.
        device: torch's name; dropout draws from the global generator of it, which belongs to the training meanwhile.
    """

    head: Head
    stepper: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averaged: AveragedModel | None
    order: torch.Generator
    device: str

    def tensors(self) -> dict[str, Tensor]:
        """Everything but the scaler's numbers, named as in the file."""
        found = {f"head/{name}": tensor for name, tensor in self.head.state_dict().items()}
        if self.averaged is not None:
            found |= {f"mean/{name}": tensor for name, tensor in self.averaged.module.named_parameters()}
        for index, entries in self.stepper.state_dict()["state"].items():
            found |= {f"optimiser/{index}/{key}": tensor for key, tensor in entries.items()}
        found |= {"generator/order": self.order.get_state(), "generator/cpu": torch.get_rng_state()}
        if torch.device(self.device).type == "cuda":
            found["generator/cuda"] = torch.cuda.get_rng_state(self.device)
        return found

    def restore(self, tensors: Mapping[str, Tensor], scaler: Mapping[str, Any]) -> None:
        """Goes back to what `tensors` held.

        Raises:
            KeyError, RuntimeError, ValueError: they are of another training.
        """
        self.head.load_state_dict(_under("head/", tensors))
        if self.averaged is not None:
            held, mean = dict(self.averaged.module.named_parameters()), _under("mean/", tensors)
            if {name: p.shape for name, p in held.items()} != {name: p.shape for name, p in mean.items()}:
                raise ValueError("averaged parameters are not those of the head")
            with torch.no_grad():
                for name, parameter in held.items():
                    parameter.copy_(mean[name])
        state: dict[int, dict[str, Tensor]] = {}
        parameters = [p for group in self.stepper.param_groups for p in group["params"]]
        for name, tensor in _under("optimiser/", tensors).items():
            index, key = name.split("/")
            if tensor.ndim and tensor.shape != parameters[int(index)].shape:
                raise ValueError(f"{name} has the shape {tuple(tensor.shape)}")
            state.setdefault(int(index), {})[key] = tensor
        self.stepper.load_state_dict({"state": state, "param_groups": self.stepper.state_dict()["param_groups"]})
        if scaler:
            self.scaler.load_state_dict(dict(scaler))
        self.order.set_state(tensors["generator/order"])
        torch.set_rng_state(tensors["generator/cpu"])
        if torch.device(self.device).type == "cuda":
            torch.cuda.set_rng_state(tensors["generator/cuda"], self.device)


class OtherTraining(ValueError):
    """A checkpoint is of another identity; the message names the fields."""


class Checkpoint:
    """The file of one training.

    Args:
        folder: must exist.
        identity: whatever decides the numbers, as plain values; a file of another identity is refused.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str | int | float | bool | None]) -> None:
        self._path, self._identity = folder / FILE, dict(identity)
        self._saved_s, self._cost_s = time.perf_counter(), 0.0

    def due(self) -> bool:
        """May it be written again without costing more than `SHARE` of the time?"""
        return time.perf_counter() - self._saved_s >= self._cost_s / SHARE

    def write(self, moving: Moving, done: Progress) -> None:
        """Replaces the file."""
        began_s = time.perf_counter()
        metadata = {
            "format": FORMAT,
            "identity": self._identity,
            "history": done.history,
            "best_epoch": done.best_epoch,
            "scaler": moving.scaler.state_dict(),
        }
        # Cloned: safetensors refuses tensors that share memory, as the weights of an LSTM may.
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in moving.tensors().items()}
        tensors |= {f"best/{name}": tensor.clone() for name, tensor in done.best_state.items()}
        with replacing(self._path, draft=self._path.with_name(f"{FILE}.part")) as part:
            save_file(
                {name: tensor.contiguous() for name, tensor in tensors.items()}, part, {"told": json.dumps(metadata)}
            )
        self._saved_s = time.perf_counter()
        self._cost_s = self._saved_s - began_s

    def resume(self, moving: Moving) -> Progress:
        """The progress that the file holds, with everything that moves restored; the beginning where there is no file.

        Raises:
            OtherTraining: the file is of another identity (the message names the fields).
            ValueError: it is damaged.
        """
        if not self._path.exists():
            return Progress()
        try:
            with safetensors.safe_open(self._path, framework="pt") as file:
                metadata = json.loads(file.metadata()["told"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
            if metadata["format"] != FORMAT:
                raise ValueError(f"format {metadata['format']}, this version reads {FORMAT}")
            differing = differences(metadata["identity"], self._identity)
            if not differing:
                moving.restore(tensors, metadata["scaler"])
                return Progress(
                    history=list(metadata["history"]),
                    best_epoch=metadata["best_epoch"],
                    best_state=_under("best/", tensors),
                )
        except (safetensors.SafetensorError, RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{self._path}: damaged ({error}); begin anew: --restart, or remove {self._path.parent}"
            ) from error
        raise OtherTraining(
            f"{self._path.parent} holds an interrupted training of other settings ({'; '.join(differing)}); "
            f"give the same ones to go on, or begin anew: --restart, or remove {self._path.parent}"
        )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Each field that is not the same, as "name: there, now here"."""
    if "schedule" in there:
        there = {**there, "schedule": canonical_schedule(str(there["schedule"]))}
    names = [*here, *(name for name in there if name not in here)]
    return [f"{n}: {there.get(n)}, now {here.get(n)}" for n in names if there.get(n) != here.get(n)]


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
