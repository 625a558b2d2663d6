"""Convolutions over a pyramid against a slow loop over its levels, and their laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heads.dense.decoder import DenseDecoder


def pyramid(counts: tuple[int, ...], width: int) -> tuple[list[Tensor], list[Tensor]]:
    """Features of two items, the second of which ends after 5 segments of the finest level."""
    masks = [torch.arange(count) * 2**level < torch.tensor([[10**6], [5]]) for level, count in enumerate(counts)]
    return [torch.randn(2, mask.shape[1], width) * mask[..., None] for mask in masks], masks


def seeded(**settings: Any) -> DenseDecoder:
    torch.manual_seed(0)
    decoder = DenseDecoder(8, 3, levels=3, hidden=6, **settings)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return decoder


def slow(convs: Any, x_BTC: Tensor, mask_BT: Tensor) -> Tensor:
    """In (B, C, T), as papers draw it."""
    x_BCT, real_B1T = x_BTC.transpose(1, 2), mask_BT[:, None]
    for conv, norm in zip(convs.stack.convs, convs.stack.norms, strict=True):
        x_BCT = F.conv1d(x_BCT, conv.conv.weight, padding=1)
        mean, variance = x_BCT.mean(dim=1, keepdim=True), x_BCT.var(dim=1, keepdim=True, correction=0)
        x_BCT = (x_BCT - mean) / (variance + 1e-5).sqrt() * norm.weight[:, None] + norm.bias[:, None]
        x_BCT = x_BCT.relu() * real_B1T
    return (F.conv1d(x_BCT, convs.out.conv.weight, convs.out.conv.bias, padding=1) * real_B1T).transpose(1, 2)


@pytest.mark.parametrize("class_aware", [True, False])
@pytest.mark.parametrize("counts", [(8, 4, 2), (4, 2, 1)])
def test_decoder_all_levels_at_once_equal_level_by_level(class_aware: bool, counts: tuple[int, ...]) -> None:
    decoder = seeded(class_aware=class_aware)
    levels, masks = pyramid(counts, 8)
    with torch.no_grad():
        got = decoder(levels, masks)
        logits = [slow(decoder.classify, x, mask) for x, mask in zip(levels, masks, strict=True)]
        offsets = [
            (slow(decoder.regress, x, mask) * decoder.scale_L[level]).relu()
            for level, (x, mask) in enumerate(zip(levels, masks, strict=True))
        ]
    assert got.counts == counts
    torch.testing.assert_close(got.logits_BPK, torch.cat(logits, dim=1), rtol=1e-5, atol=1e-5)
    want_BPO = torch.cat(offsets, dim=1)
    pairs = (3 if class_aware else 1, 2)
    torch.testing.assert_close(got.offsets_BPC2, want_BPO.reshape(2, -1, *pairs), rtol=1e-5, atol=1e-5)
    assert torch.equal(got.mask_BP, torch.cat(masks, dim=1))
    assert not got.offsets_BPC2[~got.mask_BP].any()


def test_decoder_starts_at_the_prior() -> None:
    torch.manual_seed(1)
    decoder = DenseDecoder(8, 3, levels=2)
    bias = decoder.classify.out.conv.bias
    assert bias is not None
    assert bias.sigmoid().tolist() == pytest.approx([0.01] * 3)
    assert decoder.scale_L.tolist() == [1, 1]


def test_decoder_other_number_of_levels_is_refused() -> None:
    levels, masks = pyramid((8, 4), 8)
    with pytest.raises(ValueError, match="needs 3 levels, got 2"):
        seeded()(levels, masks)
