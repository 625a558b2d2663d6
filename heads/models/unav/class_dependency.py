"""What events of several classes say of each other: over time within a class, and over the classes at each point.

    e = relu(conv(x)) as K vectors of D a point
    y = conv(block over time(e) + block over classes(e))

Both blocks are UnAV's, with one attention head and an inner width of D; that over classes convolves neighbouring class
numbers, too, as the published code does. The same block is used at every level.

The two convolutions are three quarters of all arithmetic here; the blocks would need twenty times the memory of e for
their gradients. So they work on some rows at a time and are computed again in the backward pass.

Where we differ: padding is left out of both blocks. The published code masks the items of a batch crosswise in the
block over time, which is the same only where all are equally long.

B items, P points of all levels (G with the gaps between levels), T points of a level, C channels, K classes, D width
of a class, R rows.

Source: Geng et al., CVPR 2023 (UnAV), section 3.4 and its published code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from heads.blocks.conv_transformer import ConvTransformerBlock
from heads.blocks.real_segments import of_real
from heads.blocks.temporal_conv import MaskedConv
from heads.dense.level_sequence import LevelSequence

# Vectors a block sees at once: 16 MB of each intermediate result at a width of 128.
_VECTORS = 32768


class ClassDependency(nn.Module):
    """A pyramid's features to features of the same shapes.

    Args:
        width: C.
        num_classes: K.
        class_width: D.
        drop_path: see `AffineDropPath`; of each row of a block.
    """

    def __init__(self, width: int, num_classes: int, *, class_width: int = 128, drop_path: float = 0.1) -> None:
        super().__init__()
        self.num_classes, self.class_width = num_classes, class_width
        # Their weights lie in memory as the products below take them; a state has the usual shape all the same.
        self.expand = MaskedConv(width, num_classes * class_width, bias=False)
        self.over_time, self.over_classes = (
            ConvTransformerBlock(class_width, num_heads=1, hidden=class_width, drop_path=drop_path, cross=True)
            for _ in range(2)
        )
        self.squeeze = MaskedConv(num_classes * class_width, width, bias=False)
        self.expand.conv.weight.data = self.expand.conv.weight.data.transpose(1, 2).contiguous().transpose(1, 2)
        self.squeeze.conv.weight.data = self.squeeze.conv.weight.data.permute(2, 0, 1).contiguous().permute(1, 2, 0)

    def forward(self, levels: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
        """The features of each level, zero outside the mask.

        Args:
            levels: (B, T, C) of each level, the finest first, zero outside the mask.
            masks: (B, T) bool of each level.
        """
        lay = LevelSequence([x.shape[1] for x in levels], gap=1, device=levels[0].device)
        x_BGC, mask_BG = lay.joined(levels), lay.joined(masks)
        e_BGE = _expanded(x_BGC, self.expand.conv.weight, mask_BG) * mask_BG[..., None]
        timed = [self._over_time(e_BTE, mask) for e_BTE, mask in zip(lay.split(e_BGE), masks, strict=True)]
        sum_BGE = self._over_classes(e_BGE, mask_BG) + lay.joined(timed)
        return lay.split(_squeezed(sum_BGE, self.squeeze.conv.weight, mask_BG) * mask_BG[..., None])

    def _over_time(self, e_BTE: Tensor, mask_BT: Tensor) -> Tensor:
        count = e_BTE.shape[1]
        classes, width = self.num_classes, self.class_width

        def block(part_BTE: Tensor, part_BT: Tensor) -> Tensor:
            rows_BKTD = part_BTE.reshape(-1, count, classes, width).transpose(1, 2)
            mask_RT = part_BT.repeat_interleave(classes, dim=0)
            out_RTD: Tensor = self.over_time(rows_BKTD.reshape(-1, count, width), mask_RT)
            return out_RTD.reshape(-1, classes, count, width).transpose(1, 2).reshape(-1, count, classes * width)

        items = max(1, _VECTORS // (classes * count))
        parts = zip(torch.split(e_BTE, items), torch.split(mask_BT, items), strict=True)
        return torch.cat([_again(block, part_BTE, part_BT) for part_BTE, part_BT in parts])

    def _over_classes(self, e_BGE: Tensor, mask_BG: Tensor) -> Tensor:
        """Of the real points alone: what is left out costs nothing."""
        batch, count, wide = e_BGE.shape
        real_N = mask_BG.flatten().nonzero().squeeze(1)
        e_NE = e_BGE.reshape(batch * count, wide).index_select(0, real_N)

        def block(part_NE: Tensor) -> Tensor:
            rows_NKD = part_NE.reshape(-1, self.num_classes, self.class_width)
            every_NK = torch.ones(rows_NKD.shape[:2], dtype=torch.bool, device=rows_NKD.device)
            out_NKD: Tensor = self.over_classes(rows_NKD, every_NK)
            return out_NKD.reshape(part_NE.shape)

        points = max(1, _VECTORS // self.num_classes)
        out_NE = torch.cat([_again(block, part_NE) for part_NE in torch.split(e_NE, points)])
        none_RE = torch.zeros(batch * count, wide, dtype=out_NE.dtype, device=out_NE.device)
        return none_RE.index_copy(0, real_N, out_NE).reshape(batch, count, wide)


# A convolution from or to 12,800 channels is a matrix product of the narrow side's neighbours laid side by side. On a
# CPU that is a third faster than as a convolution, whose weights are rearranged each time.


def _expanded(x_BGC: Tensor, weight_EC3: Tensor, mask_BG: Tensor) -> Tensor:
    """Convolved and rectified."""
    before_BGC, behind_BGC = F.pad(x_BGC, (0, 0, 1, 0))[:, :-1], F.pad(x_BGC, (0, 0, 0, 1))[:, 1:]
    near_BGC = torch.cat((before_BGC, x_BGC, behind_BGC), dim=-1)
    weight_EC = weight_EC3.transpose(1, 2).flatten(1)
    return of_real(lambda near: F.relu(F.linear(near, weight_EC)), near_BGC, mask_BG)


def _squeezed(x_BGE: Tensor, weight_CE3: Tensor, mask_BG: Tensor) -> Tensor:
    weight_CE = weight_CE3.permute(2, 0, 1).flatten(0, 1)
    all_BGC = of_real(lambda x: F.linear(x, weight_CE), x_BGE, mask_BG)
    before_BGC, here_BGC, behind_BGC = all_BGC.chunk(3, dim=-1)
    return here_BGC + F.pad(before_BGC, (0, 0, 1, 0))[:, :-1] + F.pad(behind_BGC, (0, 0, 0, 1))[:, 1:]


def _again(block: Callable[..., Tensor], *parts: Tensor) -> Tensor:
    """The block's output, computed anew when its gradient is wanted."""
    if not torch.is_grad_enabled():
        return block(*parts)
    out: Tensor = checkpoint(block, *parts, use_reentrant=False)
    return out
