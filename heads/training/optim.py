"""Optimisers, schedules and averaged weights: what training settings name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

Optimiser = Literal["adam", "adamw", "adamw-weights"]
Schedule = Literal["constant", "cosine", "one-cycle", "psp", "cmbs", "warmup-cosine"]
OPTIMISERS: tuple[Optimiser, ...] = ("adam", "adamw", "adamw-weights")
SCHEDULES: tuple[Schedule, ...] = ("constant", "cosine", "one-cycle", "psp", "cmbs", "warmup-cosine")

# Published steps: the factor, and the epochs after which it applies.
_STEPS: dict[Schedule, tuple[float, tuple[int, ...]]] = {"psp": (0.8, (60, 120)), "cmbs": (0.5, (10, 20, 30))}

# A cosine ends at this share of the peak; the first tenth of the steps warms up (for one-cycle: three tenths).
_FLOOR = 0.01

# UnAV's rate ends at 1e-8 of a published 1e-4.
_WARMUP_FLOOR = 1e-4

# What multiplies: the matrices of these modules decay under "adamw-weights".
_WEIGHED = (nn.Linear, nn.Bilinear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention, nn.RNNBase)


def optimiser(name: Optimiser, head: nn.Module, *, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Adam or AdamW of what requires a gradient.

    "adamw" decays every parameter, as torch does by default. "adamw-weights" decays only the weights of linear maps,
    convolutions, attention's projections and recurrent layers; biases, norms, learned scales and embeddings stay as
    the loss has them (UnAV, ActionFormer).
    """
    parameters: Iterable[nn.Parameter] = [p for p in head.parameters() if p.requires_grad]
    if name == "adam":
        return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    weighed = {
        id(parameter)
        for module in head.modules()
        if isinstance(module, _WEIGHED)
        for parameter_name, parameter in module.named_parameters(recurse=False)
        if "weight" in parameter_name
    }
    decayed = [p for p in parameters if id(p) in weighed]
    others = [p for p in parameters if id(p) not in weighed]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate)


def rate_share(schedule: Schedule, *, step: int, total: int, epoch: int, warmup_steps: int = 0) -> float:
    """The share of the learning rate at a step.

    Args:
        step: from 0; `total` steps in all, the warm-up's included.
        epoch: from 1.
        warmup_steps: of "warmup-cosine"; the others have none or their own.

    "psp" is the published schedule of PSP: x 0.8 after epochs 60 and 120 (its code's guard ends there). "cmbs" is that
    of CMBS: x 0.5 after epochs 10, 20 and 30. "warmup-cosine" is that of UnAV: from 0 in a straight line to 1 at the
    last warm-up step (so the first step changes nothing), then a cosine to 1e-4 of it.
    """
    if schedule == "constant":
        return 1.0
    if schedule in _STEPS:
        factor, marks = _STEPS[schedule]
        return float(factor ** sum(epoch > mark for mark in marks))
    if schedule == "warmup-cosine":
        if step < warmup_steps:
            return step / max(1, warmup_steps - 1)
        return _cosine(step - warmup_steps, total - warmup_steps, floor=_WARMUP_FLOOR)
    warm = max(1, round(total * (0.3 if schedule == "one-cycle" else 0.1)))
    if step < warm:
        return (step + 1) / warm
    return _cosine(step - warm, total - warm, floor=_FLOOR)


def _cosine(step: int, total: int, *, floor: float) -> float:
    """From 1 to `floor` in `total` steps; there it stays."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(step / max(1, total), 1.0)))


class AveragedWeights:
    """An exponential moving average of a head's parameters; buffers are taken as they are."""

    def __init__(self, head: nn.Module, decay: float) -> None:
        """Begins with the head's own parameters."""
        self._head, self._decay = head, decay
        self._mean = {name: p.detach().clone() for name, p in head.named_parameters()}

    def update(self) -> None:
        """After a step."""
        with torch.no_grad():
            for name, parameter in self._head.named_parameters():
                self._mean[name].lerp_(parameter, 1 - self._decay)

    def state(self) -> dict[str, Tensor]:
        """The head's state with averaged parameters."""
        state = {name: tensor.detach().clone() for name, tensor in self._head.state_dict().items()}
        return state | {name: tensor.clone() for name, tensor in self._mean.items()}

    def mean(self) -> dict[str, Tensor]:
        """The averaged parameters by name, for a checkpoint."""
        return self._mean

    def restore(self, mean: Mapping[str, Tensor]) -> None:
        """Goes on from a checkpoint's.

        Raises:
            ValueError: a parameter is missing, not wanted or of another shape.
        """
        if {name: p.shape for name, p in self._mean.items()} != {name: p.shape for name, p in mean.items()}:
            raise ValueError("averaged parameters are not those of the head")
        for name, held in self._mean.items():
            held.copy_(mean[name])

    def swapped(self) -> _Swapped:
        """A context in which the head has the averaged parameters."""
        return _Swapped(self._head, self._mean)


class _Swapped:
    def __init__(self, head: nn.Module, mean: dict[str, Tensor]) -> None:
        self._head, self._mean = head, mean

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()

    def _swap(self) -> None:
        with torch.no_grad():
            for name, parameter in self._head.named_parameters():
                held = parameter.detach().clone()
                parameter.copy_(self._mean[name])
                self._mean[name].copy_(held)
