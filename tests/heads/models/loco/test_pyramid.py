"""The pyramid against its levels made by hand, and its laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from heads.models.loco.pyramid import PerceptionPyramid


def made(streams: int = 2, **fields: Any) -> PerceptionPyramid:
    torch.manual_seed(0)
    given: dict[str, Any] = {"width": 8, "streams": streams, "levels": 3, "num_heads": 2, "window": 4} | fields
    pyramid = PerceptionPyramid(**given).eval()
    with torch.no_grad():
        for parameter in pyramid.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return pyramid


def random_input(streams: int = 2, count: int = 12) -> tuple[list[Tensor], Tensor]:
    rng = torch.Generator().manual_seed(1)
    mask = torch.arange(count) < torch.tensor([count, count - 5, 1])[:, None]
    return [torch.randn(3, count, 8, generator=rng) * mask[..., None] for _ in range(streams)], mask


def slow_pooled(x: Tensor, length: int) -> Tensor:
    """One item: the greatest of the points 2i - 1, 2i and 2i + 1 that there are; zeros stand behind the real ones."""
    rows = []
    for i in range(0, len(x), 2):
        near = [x[s] for s in (i - 1, i, i + 1) if 0 <= s < len(x)]
        rows.append(torch.stack(near).amax(dim=0) if i < length else torch.zeros_like(x[i]))
    return torch.stack(rows)


def test_streams_apart_are_two_pyramids_of_one() -> None:
    """Whatever the other stream is, a stream's half of a level (before the norm of both) is the same."""
    pyramid = made(cross="off")
    (one, other), mask = random_input()
    firsts = []
    for norm in pyramid.norms:
        norm.register_forward_pre_hook(lambda _, given: firsts.append(given[0][..., :8]))
    with torch.no_grad():
        pyramid([one, other], mask)
        pyramid([one, -3 * other], mask)
    assert len(firsts) == 6
    for with_one, with_another in zip(firsts[:3], firsts[3:], strict=True):
        torch.testing.assert_close(with_one, with_another)
    asking = made(cross="fixed")
    firsts.clear()
    for norm in asking.norms:
        norm.register_forward_pre_hook(lambda _, given: firsts.append(given[0][..., :8]))
    with torch.no_grad():
        asking([one, other], mask)
        asking([one, -3 * other], mask)
    assert not torch.allclose(firsts[0], firsts[3])


@pytest.mark.parametrize("streams", [1, 2])
def test_levels_equal_those_made_one_after_the_other(streams: int) -> None:
    pyramid: Any = made(streams)
    xs, mask = random_input(streams)
    with torch.no_grad():
        levels = pyramid(xs, mask)
        for b in range(3):
            length = int(mask[b].sum())
            now = [x[b] for x in xs]
            for number, level in enumerate(levels):
                if number:
                    now = [slow_pooled(x, length) for x in now]
                    length = -(-length // 2)
                real = torch.arange(len(now[0])) < length
                now = [
                    pyramid.blocks[number][s](now[s][None], now[streams - 1 - s][None], real[None])[0]
                    for s in range(streams)
                ]
                wanted = pyramid.norms[number](torch.cat(now, dim=-1)) * real[:, None]
                torch.testing.assert_close(level.x_BTF[b], wanted, rtol=1e-5, atol=1e-5)
                assert torch.equal(level.mask_BT[b], real)


def test_levels_halve_and_join_the_streams() -> None:
    levels = made(levels=4)(*random_input(count=16))
    assert [tuple(level.x_BTF.shape) for level in levels] == [(3, 16, 16), (3, 8, 16), (3, 4, 16), (3, 2, 16)]
    assert [tuple(level.mask_BT.shape) for level in levels] == [(3, 16), (3, 8), (3, 4), (3, 2)]


@pytest.mark.parametrize("cross", ["cdp", "fixed", "global"])
def test_levels_are_blind_to_padding(cross: str) -> None:
    pyramid = made(cross=cross)
    xs, mask = random_input()
    with torch.no_grad():
        short = pyramid(xs, mask)
        long = pyramid(
            [torch.cat([x, torch.zeros(3, 20, 8)], dim=1) for x in xs], torch.nn.functional.pad(mask, (0, 20))
        )
    for one, other in zip(short, long, strict=True):
        count = one.x_BTF.shape[1]
        torch.testing.assert_close(other.x_BTF[:, :count], one.x_BTF, rtol=1e-6, atol=1e-6)
        assert not other.x_BTF[:, count:].any()
        assert not other.mask_BT[:, count:].any()


def test_each_stream_hears_of_the_other_and_a_single_one_of_nobody() -> None:
    xs, mask = random_input()
    pyramid = made()
    with torch.no_grad():
        before, after = pyramid(xs, mask), pyramid([xs[0], xs[1] + mask[..., None] * torch.randn(8)], mask)
    # Both halves of the finest level move, the first through what it asked the second.
    finest = (before[0].x_BTF - after[0].x_BTF).abs()
    assert float(finest[..., :8].max()) > 1e-3
    assert float(finest[..., 8:].max()) > 1e-3


def test_swapped_streams_with_swapped_blocks_give_swapped_levels() -> None:
    pyramid: Any = made()
    xs, mask = random_input()
    with torch.no_grad():
        for norm in pyramid.norms:
            norm.weight.fill_(1)
            norm.bias.fill_(0)
        wanted = pyramid(xs, mask)
        for number, blocks in enumerate(pyramid.blocks):
            pyramid.blocks[number] = torch.nn.ModuleList(list(blocks)[::-1])
        swapped = pyramid(xs[::-1], mask)
    for one, other in zip(wanted, swapped, strict=True):
        torch.testing.assert_close(other.x_BTF.roll(8, dims=-1), one.x_BTF)


@pytest.mark.parametrize("fields", [{"levels": 0}, {"streams": 3}, {"streams": 0}])
def test_sizes_out_of_range_are_errors(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a pyramid needs"):
        made(**fields)
