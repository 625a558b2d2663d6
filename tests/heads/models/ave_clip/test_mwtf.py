"""Multi-window fusion against a slow loop over blocks written from the paper's equations, and its laws."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from heads.models.ave_clip.mwtf import MAX_WINDOWS, MultiWindowFusion, Window, parse_windows

# The paper's tables 4 to 6, and windows that divide nothing.
LISTS = ("10", "5", "2", "3*", "10,5", "10,3*", "5,2", "10,5,3*", "10,5,2", "10,5,3*,2", "T", "3", "4,7*", "1", "13,4*")


def slow_blocks(text: str, count: int) -> list[list[tuple[int, int]]]:
    """For each window of the text, where its blocks begin and end in an item of `count` segments."""
    windows = []
    for part in text.split(","):
        length = count if part == "T" else int(part.rstrip("*"))
        blocks: list[tuple[int, int]] = []
        start = 0
        while start < count:
            stop = min(start + length, count)
            if stop - start < length and part.endswith("*") and blocks:
                blocks[-1] = (blocks[-1][0], stop)
            else:
                blocks.append((start, stop))
            start = stop
        windows.append(blocks)
    return windows


def slow_softmax(values: list[Tensor]) -> list[Tensor]:
    exponents = [value.exp() for value in values]
    return [e / sum(exponents) for e in exponents]


def slow_fusion(fusion: MultiWindowFusion, x: Tensor, text: str, attention: str) -> Tensor:
    """Equations 4 to 12 for one item (T, I), block by block, entry by entry."""
    joined = []
    for i, blocks in enumerate(slow_blocks(text, len(x))):
        p: Any = fusion.projections[i if len(fusion.projections) > 1 else 0]
        width = p.query.weight.shape[0]
        w1, w3, w5 = p.inner.weight[:width], p.inner.weight[width : 2 * width], p.inner.weight[2 * width :]
        rows = []
        for start, stop in blocks:
            block = x[start:stop]
            w = stop - start
            centred = block - block.mean(dim=1, keepdim=True)
            norm = centred / (centred.square().mean(dim=1, keepdim=True) + p.norm.eps).sqrt()
            norm = norm * p.norm.weight + p.norm.bias
            query = torch.stack([p.query.weight @ (w1 @ row).tanh() for row in norm])
            key = torch.stack([p.key.weight @ (w3 @ row).tanh() for row in norm])
            value = torch.stack([p.value.weight @ (w5 @ row).clamp(min=0) for row in norm])
            out = value
            if attention in ("both", "feature"):
                beta_f = key.T @ query / math.sqrt(w)
                columns = [torch.stack(slow_softmax(list(beta_f[:, j]))) for j in range(width)]
                out = torch.stack([value @ column for column in columns], dim=1)
            if attention in ("both", "temporal"):
                beta_t = query @ key.T / math.sqrt(width)
                out = torch.stack(
                    [sum(a * row for a, row in zip(slow_softmax(list(beta_t[t])), out, strict=True)) for t in range(w)]
                )
            if p.residual is not None:
                out = out + block @ p.residual.weight.T
            rows.append(out)
        joined.append(torch.cat(rows))
    return torch.cat(joined, dim=1)


def perturbed(fusion: MultiWindowFusion) -> MultiWindowFusion:
    """The norm's parameters away from 1 and 0, so that leaving them out is seen."""
    with torch.no_grad():
        for name, parameter in fusion.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
            parameter.mul_(2)
    return fusion


@pytest.mark.parametrize("count", [7, 10, 13])
@pytest.mark.parametrize("text", LISTS)
def test_forward_any_windows_equal_slow_loop_over_blocks(text: str, count: int) -> None:
    torch.manual_seed(count)
    fusion = perturbed(MultiWindowFusion(8, 6, windows=text))
    x = torch.randn(2, count, 8)
    with torch.inference_mode():
        got = fusion(x, torch.ones(2, count, dtype=torch.bool))
        assert got.shape == (2, count, fusion.output_width)
        for b in range(2):
            torch.testing.assert_close(got[b], slow_fusion(fusion, x[b], text, "both"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("attention", ["both", "temporal", "feature"])
def test_forward_every_option_equals_slow_loop(attention: Any, residual: bool, shared: bool) -> None:
    torch.manual_seed(1)
    text = "10,5,3*,2"
    options: dict[str, Any] = {"attention": attention, "shared": shared, "residual": residual}
    fusion = perturbed(MultiWindowFusion(8, 6, windows=text, **options))
    assert len(fusion.projections) == (1 if shared else 4)
    x = torch.randn(2, 10, 8)
    with torch.inference_mode():
        got = fusion(x, torch.ones(2, 10, dtype=torch.bool))
        for b in range(2):
            torch.testing.assert_close(got[b], slow_fusion(fusion, x[b], text, attention), rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [13, 14])
@pytest.mark.parametrize("attention", ["both", "temporal", "feature"])
@pytest.mark.parametrize("text", [*LISTS, "T,3*,4"])
def test_forward_padded_items_equal_each_alone(text: str, attention: Any, length: int) -> None:
    torch.manual_seed(2)
    fusion = MultiWindowFusion(8, 6, windows=text, attention=attention)
    counts = [13, 11, 10, 7, 4, 1, 0]
    mask = torch.arange(length) < torch.tensor(counts)[:, None]
    x = torch.randn(len(counts), length, 8).masked_fill(~mask[..., None], float("nan"))
    got = fusion(x, mask)
    for b, count in enumerate(counts):
        assert not got[b, count:].any()
        if count:
            alone = fusion(x[b : b + 1, :count], mask[b : b + 1, :count])
            torch.testing.assert_close(got[b : b + 1, :count], alone, rtol=0, atol=1e-6)
    torch.autograd.backward(got.sum())
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in fusion.parameters())


def test_forward_gap_inside_a_block_is_not_attended_to() -> None:
    """A gap keeps its place, so the blocks stay where they are; within one block only the real segments count."""
    torch.manual_seed(3)
    fusion = MultiWindowFusion(8, 6, windows="4,4*")
    x, mask = torch.randn(1, 8, 8), torch.tensor([[1, 0, 1, 1, 1, 1, 0, 0]], dtype=torch.bool)
    got = fusion(x, mask)
    first = MultiWindowFusion(8, 6, windows="T")
    first.load_state_dict(fusion.state_dict())
    wanted = first(x[:, [0, 2, 3]], torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(got[:, [0, 2, 3], :6], wanted, rtol=0, atol=1e-6)
    assert not got[:, ~mask[0]].any()


@pytest.mark.parametrize(("text", "blocks"), [("3*", [3, 3, 4]), ("3", [3, 3, 3, 1]), ("T", [10]), ("12", [10])])
def test_gradient_reaches_own_block_only(text: str, blocks: list[int]) -> None:
    """Which segments a segment's output depends on, read off the gradient."""
    torch.manual_seed(4)
    fusion = MultiWindowFusion(8, 6, windows=text)
    owner = [b for b, length in enumerate(blocks) for _ in range(length)]
    for t in range(10):
        x = torch.randn(1, 10, 8, requires_grad=True)
        torch.autograd.backward(fusion(x, torch.ones(1, 10, dtype=torch.bool))[0, t].sum())
        assert x.grad is not None
        reached = x.grad[0].abs().sum(dim=1) > 0
        assert reached.tolist() == [b == owner[t] for b in owner]


def test_gradients_equal_finite_differences() -> None:
    torch.manual_seed(5)
    fusion = MultiWindowFusion(5, 4, windows="3*,2,T").double()
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3], dtype=torch.bool)
    x = torch.randn(2, 7, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: fusion(x, mask), (x,))


def test_independent_weights_are_four_times_the_shared() -> None:
    def count(**options: Any) -> int:
        return sum(p.numel() for p in MultiWindowFusion(512, 256, windows="10,5,3*,2", **options).parameters())

    one = 2 * 512 + 3 * 512 * 256 + 3 * 256**2 + 512 * 256
    assert count(shared=True) == one
    assert count(shared=False) == 4 * one
    assert count(residual=False) == one - 512 * 256


@pytest.mark.parametrize(
    ("text", "windows"),
    [
        ("10", [(10, False)]),
        ("10,5,3*,2", [(10, False), (5, False), (3, True), (2, False)]),
        (" T , 4* ", [(None, False), (4, True)]),
    ],
)
def test_parse_windows_texts_of_the_tables(text: str, windows: list[tuple[int | None, bool]]) -> None:
    assert parse_windows(text) == tuple(Window(length=length, merged=merged) for length, merged in windows)


@pytest.mark.parametrize("text", ["", "0", "-1", "3**", "T*", "1.5", "5,,2", "ten", "٣", "5;2", "9999999"])
def test_parse_windows_wrong_text_raises(text: str) -> None:
    with pytest.raises(ValueError, match="windows are lengths joined by commas"):
        parse_windows(text)


def test_parse_windows_too_many_raises() -> None:
    with pytest.raises(ValueError, match=f"at most {MAX_WINDOWS} windows"):
        parse_windows(",".join(["2"] * (MAX_WINDOWS + 1)))


def test_init_wrong_size_raises() -> None:
    with pytest.raises(ValueError, match="widths of at least 1"):
        MultiWindowFusion(0, 4, windows="2")
    with pytest.raises(ValueError, match="length of at least 1"):
        Window(length=0)
