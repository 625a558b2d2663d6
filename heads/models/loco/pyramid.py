"""A temporal pyramid of one stream or of two that ask each other: each level has half the points of the one before.

    level 0: blocks at the full rate;  level l: greatest of three points around every second one, then blocks
    output of a level: its streams, joined along the channels and normalised

Both streams of a level ask what the other was before the level's blocks. A single stream asks itself: that is the
ablation with one modality; and so do both where `cross` is "off", in windows that do not move: the base of the paper's
tables, whose modalities meet in the decoder alone.

No code was ever published. Readings of what the paper leaves open: the pyramid halves by pooling, without weights, as
the residual streams do in the code base that the paper builds on; the finest level is at the full rate; each level has
a norm, as pyramids have there.

B batch, T points of the finest level, S streams, C width of a stream.

Source: the LoCo paper (locality-aware cross-modal correspondence learning for dense audio-visual events localization),
section 3.2, figure 2; Geng et al., CVPR 2023 (UnAV).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, cat, nn

from heads.blocks.temporal_conv import pooled, strided
from heads.models.loco.cdp import DynamicPerception

# What a stream attends to of the other one, or that it attends to itself alone.
CrossOrOff = Literal["cdp", "fixed", "global", "off"]


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level of a pyramid.

    Attributes:
        x_BTF: float, F = S C channels; 0 outside the mask.
        mask_BT: bool, True where real.
    """

    x_BTF: Tensor
    mask_BT: Tensor


class PerceptionPyramid(nn.Module):
    """Streams (B, T, C) to levels (B, T / 2^l, S C).

    Args:
        width: C.
        streams: S, 1 or 2.
        levels: of the pyramid.
        num_heads, window, cross, dropout, drop_path: of each `DynamicPerception`; the window is in points of a level.

    Raises:
        ValueError: a size is out of range.
    """

    def __init__(
        self,
        width: int,
        *,
        streams: int,
        levels: int,
        num_heads: int,
        window: int,
        cross: CrossOrOff = "cdp",
        dropout: float = 0.0,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        if levels < 1 or streams not in (1, 2):
            raise ValueError(f"a pyramid needs a level and 1 or 2 streams, got {levels} and {streams}")

        self.apart = cross == "off"

        def block() -> DynamicPerception:
            return DynamicPerception(
                width,
                num_heads=num_heads,
                window=window,
                cross="fixed" if cross == "off" else cross,
                dropout=dropout,
                drop_path=drop_path,
            )

        self.blocks = nn.ModuleList(nn.ModuleList(block() for _ in range(streams)) for _ in range(levels))
        self.norms = nn.ModuleList(nn.LayerNorm(streams * width) for _ in range(levels))

    def forward(self, streams: Sequence[Tensor], mask_BT: Tensor) -> list[Level]:
        """The levels, finest first.

        Args:
            streams: S of (B, T, C), 0 outside the mask; T a multiple of 2^(levels - 1).
            mask_BT: bool, True where real.
        """
        levels: list[Level] = []
        for number, (blocks, norm) in enumerate(zip(self.blocks, self.norms, strict=True)):
            if number:
                streams = [pooled(x_BTC, 2) for x_BTC in streams]
                mask_BT = strided(mask_BT, 2)  # the blocks put 0 where the pooling reached beyond it
            asked = streams if self.apart else streams[::-1]  # of one stream: itself
            assert isinstance(blocks, nn.ModuleList)
            streams = [
                block(x_BTC, other_BTC, mask_BT) for block, x_BTC, other_BTC in zip(blocks, streams, asked, strict=True)
            ]
            levels.append(Level(x_BTF=norm(cat(list(streams), dim=-1)) * mask_BT[..., None], mask_BT=mask_BT))
        return levels
