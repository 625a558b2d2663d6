"""A pyramid in time whose blocks halve the rate themselves, as ActionFormer and TriDet have it.

    x_0 = blocks(x),    x_l = halving block(x_l-1),    outputs: each level behind a norm of its own

B items, T segments, C width.

Source: Zhang et al., ECCV 2022 (ActionFormer); Shi et al., CVPR 2023 (TriDet), and their published code.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from heads.dense.pyramid_input import level_masks


class HalvingPyramid(nn.Module):
    """(B, T, C) to levels (B, T / 2^l, C).

    Args:
        width: C.
        blocks: at the full rate; `(x_BTC, mask_BT) -> x_BTC` each, zero outside the mask.
        halving: one for each further level, at the mask of the level before.
    """

    def __init__(self, width: int, *, blocks: Iterable[nn.Module], halving: Iterable[nn.Module]) -> None:
        super().__init__()
        self.blocks, self.halving = nn.ModuleList(blocks), nn.ModuleList(halving)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(len(self.halving) + 1))

    def forward(self, x_BTC: Tensor, mask_BT: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The levels, zero outside their masks, and the masks, the finest first.

        Args:
            x_BTC: zero outside the mask; T a multiple of 2^(levels - 1).
            mask_BT: bool, True where real.
        """
        masks = level_masks(mask_BT, len(self.norms))
        for block in self.blocks:
            x_BTC = block(x_BTC, mask_BT)
        levels = [x_BTC]
        for mask, halve in zip(masks, self.halving, strict=False):
            levels.append(halve(levels[-1], mask))
        normed = [norm(x) * mask[..., None] for norm, x, mask in zip(self.norms, levels, masks, strict=True)]
        return normed, masks
