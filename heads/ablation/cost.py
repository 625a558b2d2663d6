"""What a head's forward pass takes: its parameters, and its FLOP as torch counts them.

FLOP are those of matrix products, convolutions and attention, 2 a multiply-add; what is element-wise counts nothing.
Papers that count a multiply-add as one print half of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from heads.features import FeatureBatch
from heads.registry import build, read_config, spec


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one item.

    Attributes:
        parameters: numbers that are learned.
        flop: of a forward pass.
        segments: T of the item.
    """

    parameters: int
    flop: int
    segments: int


def cost(head_name: str, fields: Mapping[str, Any], *, segments: int) -> Cost:
    """What a head of this config takes for an item of `segments` segments, all real, on the CPU.

    Args:
        fields: of its config, as a run's record holds them; with the widths of the features.

    Raises:
        ValueError: no such head or config, no segment, or a head that needs class texts.
    """
    if segments < 1 or spec(head_name).needs_texts:
        raise ValueError(f"needs a segment and a head without class texts, got {segments} and {head_name}")
    config = read_config(head_name, fields)
    head = build(head_name, config).eval()
    fields = dataclasses.asdict(config)
    visual, audio = (
        torch.zeros(1, segments, width) if (width := fields[f"{name}_width"]) else None for name in ("visual", "audio")
    )
    counter = FlopCounterMode(display=False)
    # Of attention's CPU kernel torch counts nothing; as products it counts all.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        head(FeatureBatch.of(visual, audio, torch.ones(1, segments, dtype=torch.bool)))
    return Cost(
        parameters=sum(parameter.numel() for parameter in head.parameters()),
        flop=int(counter.get_total_flops()),
        segments=segments,
    )
