"""Optimisers, learning rate schedules and averaged weights, by their names in the training settings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Optimiser = Literal["adam", "adamw", "adamw-weights"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate over a training, as shares of its peak: a warm-up, then steps or a cosine.

    Attributes:
        factor, steps: the rate is multiplied by `factor` after each of the epochs `steps`.
        floor: a cosine falls from 1 to this share at the last step; None has no cosine.
        warmup_share: of all steps; in them the rate rises in a straight line and reaches 1 with the last.
        from_zero: the first of the warm-up's steps, whose number is a setting, has the rate 0.
    """

    factor: float = 1.0
    steps: tuple[int, ...] = ()
    floor: float | None = None
    warmup_share: float = 0.0
    from_zero: bool = False

    def share(self, *, step: int, total: int, epoch: int, warmup_steps: int = 0) -> float:
        """The share of the learning rate at a step.

        Args:
            step: from 0; `total` steps in all, the warm-up's included.
            epoch: from 1.
            warmup_steps: the warm-up's steps, for a schedule that begins at zero; the others have a share or none.
        """
        if self.floor is None:
            return float(self.factor ** sum(epoch > mark for mark in self.steps))
        warm = warmup_steps if self.from_zero else max(1, round(total * self.warmup_share))
        if step < warm:
            return step / max(1, warm - 1) if self.from_zero else (step + 1) / warm
        passed = min((step - warm) / max(1, total - warm), 1.0)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * passed))


SCHEDULES: dict[str, Schedule] = {
    "constant": Schedule(),
    "cosine": Schedule(floor=0.01, warmup_share=0.1),
    "one-cycle": Schedule(floor=0.01, warmup_share=0.3),
    # UnAV: its rate ends at 1e-8 of a published 1e-4.
    "warmup-cosine": Schedule(floor=1e-4, from_zero=True),
}

# Names that settings and saved runs of earlier versions have for published steps. PSP's code steps no further than 120.
_EARLIER_NAMES = {"psp": "0.8@60,120", "cmbs": "0.5@10,20,30"}
_STEPS = re.compile(r"(0?\.[0-9]+)@([0-9]+(?:,[0-9]+)*)")


def canonical_schedule(text: str) -> str:
    """The spelling of a schedule in this version; what is no schedule is returned as it is."""
    return _EARLIER_NAMES.get(text, text)


def schedule(text: str) -> Schedule:
    """A schedule by its name in `SCHEDULES`, or steps such as "0.8@60,120": x 0.8 after epochs 60 and 120.

    Raises:
        ValueError: it is neither.
    """
    text = canonical_schedule(text)
    if text in SCHEDULES:
        return SCHEDULES[text]
    steps = _STEPS.fullmatch(text)
    if steps is None:
        raise ValueError(
            f"schedule must be one of {', '.join(SCHEDULES)}, or steps such as 0.5@10,20 (x 0.5 after epochs 10 and "
            f"20), got {text!r}"
        )
    return Schedule(factor=float(steps[1]), steps=tuple(map(int, steps[2].split(","))))


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


def averaged(head: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the head's parameters, which begins with them; buffers follow the head's.

    Call `update_parameters(head)` after each step. `module` is a head with the averaged parameters.
    """
    model = AveragedModel(head, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]  # torch's
    model.update_parameters(head)  # the first call copies, all later ones average
    return model
