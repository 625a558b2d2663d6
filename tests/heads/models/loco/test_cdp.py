"""CDP against a slow loop over windows and heads written from the paper's equations, and its laws."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from heads.models.loco.cdp import Cross, DynamicPerception, WindowAdaptation, sample_windows

CROSSES = get_args(Cross)


def made(cross: Cross = "cdp", *, window: int = 4, adapted: bool = True, width: int = 8) -> DynamicPerception:
    """Everything away from where training starts, so that leaving it out is seen."""
    torch.manual_seed(3)
    block = DynamicPerception(width, num_heads=2, window=window, cross=cross).eval()
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if "predict" not in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
        if block.adaptation is not None and adapted:
            block.adaptation.predict.weight.normal_(0, 0.8)
            block.adaptation.predict.bias.normal_(0, 0.8)
    return block


def random_input(count: int = 11, width: int = 8, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x, other = (torch.randn(3, count, width, generator=rng) for _ in range(2))
    mask = torch.arange(count) < torch.tensor([count, max(count - 4, 1), 1])[:, None]
    return x * mask[..., None], other * mask[..., None], mask


def slow_norm(norm: Any, x: Tensor) -> Tensor:
    centred = x - x.mean()
    y: Tensor = centred / (centred.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias
    return y


def slow_block(block: Any, x: Tensor, other: Tensor, length: int) -> Tensor:
    """One item (T, C) of `length` real points: equations 6 to 8, point by point."""
    heads, window = block.num_heads, block.window
    width = x.shape[1]
    deep = width // heads
    q = [block.query.weight @ slow_norm(block.query_norm, x[t]) + block.query.bias for t in range(length)]
    kv = [block.key_value.weight @ slow_norm(block.other_norm, other[t]) + block.key_value.bias for t in range(length)]
    zero = torch.zeros(deep)
    keys: dict[tuple[int, int], Tensor] = {}
    values: dict[tuple[int, int], Tensor] = {}
    for h in range(heads):
        both = slice(2 * deep * h, 2 * deep * (h + 1))

        def at(place: int, both: slice = both) -> Tensor:
            return kv[place][both] if 0 <= place < length else torch.zeros(2 * deep)

        for start in range(0, length, window):
            inside = range(start, min(start + window, length))
            size = offset = 0.0
            if block.adaptation is not None:
                mean = sum((q[t] for t in inside), torch.zeros(width)) / len(inside)
                leaky = torch.tensor([float(v) if v > 0 else 0.01 * float(v) for v in mean])
                predict = block.adaptation.predict
                size = float(predict.weight[h] @ leaky + predict.bias[h])
                offset = float(predict.weight[heads + h] @ leaky + predict.bias[heads + h])
            for j, t in enumerate(inside):
                place = start + offset + j * (1 + size)
                before = math.floor(place)
                share = place - before
                sample = (1 - share) * at(before) + share * at(before + 1)
                keys[t, h], values[t, h] = sample[:deep], sample[deep:]
    rows = []
    for t in range(length):
        parts = []
        for h in range(heads):
            near = [s for s in range(length) if block.cross == "global" or abs(s - t) <= window // 2]
            logits = [float(q[t][deep * h : deep * (h + 1)] @ keys[s, h]) / math.sqrt(deep) for s in near]
            total = sum(math.exp(logit) for logit in logits)
            parts.append(sum((math.exp(z) / total * values[s, h] for z, s in zip(logits, near, strict=True)), zero))
        attended = block.output[0].weight @ torch.cat(parts) + block.output[0].bias
        z = x[t] + block.attended.scale * attended
        inner = block.feed[0].weight @ slow_norm(block.norm, z) + block.feed[0].bias
        inner = torch.tensor([0.5 * float(v) * (1 + math.erf(float(v) / math.sqrt(2))) for v in inner])
        rows.append(z + block.fed.scale * (block.feed[3].weight @ inner + block.feed[3].bias))
    return torch.stack(rows)


@pytest.mark.parametrize("count", [1, 8, 11])
@pytest.mark.parametrize("window", [1, 4, 5, 16])
@pytest.mark.parametrize("cross", CROSSES)
def test_block_equals_slow_loop(cross: Cross, window: int, count: int) -> None:
    block = made(cross, window=window)
    x, other, mask = random_input(count)
    with torch.no_grad():
        out = block(x, other, mask)
        for b in range(3):
            length = int(mask[b].sum())
            slow = slow_block(block, x[b], other[b], length)
            torch.testing.assert_close(out[b, :length], slow, rtol=2e-4, atol=2e-5)
            assert not out[b, length:].any()


def test_samples_at_known_places() -> None:
    """A ramp shows where each sample was taken."""
    ramp = torch.arange(1.0, 9.0).reshape(1, 8, 1, 1).expand(1, 8, 2, 1)
    size = torch.tensor([[[0.0, 1.0], [0.0, -1.0]]])
    offset = torch.tensor([[[0.5, -1.0], [2.25, 0.5]]])
    samples = sample_windows(ramp, size, offset, window=4)[0, :, :, 0]
    # Points hold their number + 1; from 8 on there is 0, so half way from 7 to 8 is 4; before 0 there is 0, too.
    torch.testing.assert_close(samples[:, 0], torch.tensor([1.5, 2.5, 3.5, 4.5, 7.25, 6.0, 0.0, 0.0]))
    torch.testing.assert_close(samples[:, 1], torch.tensor([0.0, 2.0, 4.0, 6.0, 5.5, 5.5, 5.5, 5.5]))


def test_samples_far_beyond_any_integer_are_zero() -> None:
    values = torch.ones(1, 8, 1, 2)
    for far in (math.inf, -math.inf, 1e30, 3e9, 40.0):
        samples = sample_windows(values, torch.zeros(1, 2, 1), torch.full((1, 2, 1), far), window=4)
        assert not samples.any()


def test_samples_late_in_a_long_sequence_are_as_exact_as_early_ones() -> None:
    torch.manual_seed(0)
    short = torch.randn(1, 16, 1, 3)
    long = torch.cat([torch.zeros(1, 400_000, 1, 3), short], dim=1)
    size, offset = torch.tensor([[[0.013], [0.4]]]), torch.tensor([[[3.217], [-6.31]]])
    late = [torch.cat([torch.zeros(1, 50_000, 1), x], dim=1) for x in (size, offset)]
    wanted = sample_windows(short, size, offset, window=8)
    torch.testing.assert_close(sample_windows(long, *late, window=8)[:, -16:], wanted, rtol=0, atol=1e-6)


def test_gradients_of_samples_equal_differences() -> None:
    torch.manual_seed(0)
    values, size, offset = torch.randn(2, 7, 2, 3), 0.5 * torch.randn(2, 2, 2), torch.randn(2, 2, 2)
    weights = torch.randn(2, 7, 2, 3)

    def total() -> Tensor:
        return (sample_windows(values, size, offset, window=4) * weights).sum()

    inputs = [x.requires_grad_() for x in (values, size, offset)]
    gradients = torch.autograd.grad(total(), inputs)
    for tensor, gradient in zip(inputs, gradients, strict=True):
        flat = tensor.detach().view(-1)
        for place in range(len(flat)):
            kept = flat[place].item()
            found = []
            for step in (-1e-3, 1e-3):
                flat[place] = kept + step
                found.append(total().item())
            flat[place] = kept
            assert (found[1] - found[0]) / 2e-3 == pytest.approx(gradient.flatten()[place].item(), abs=5e-3)


@pytest.mark.parametrize("count", [1, 7, 8, 50])
@pytest.mark.parametrize("window", [4, 8, 16, 32])
def test_cdp_before_training_equals_fixed_to_the_bit(window: int, count: int) -> None:
    cdp, fixed = made("cdp", window=window, adapted=False), made("fixed", window=window)
    missing = cdp.load_state_dict(fixed.state_dict(), strict=False)
    assert missing.missing_keys == ["adaptation.predict.weight", "adaptation.predict.bias"]
    x, other, mask = random_input(count)
    assert torch.equal(cdp(x, other, mask), fixed(x, other, mask))


def test_cdp_learns_its_windows_from_the_first_step() -> None:
    block = made(adapted=False)
    x, other, mask = random_input()
    block(x, other, mask).square().sum().backward()
    assert block.adaptation is not None
    gradient = block.adaptation.predict.weight.grad
    assert gradient is not None
    assert bool((gradient.abs().sum(dim=1) > 0).all())


def test_heads_have_windows_of_their_own() -> None:
    """Moving the windows of one head changes nothing in the samples of the other."""
    torch.manual_seed(0)
    values, still = torch.randn(1, 8, 2, 3), torch.zeros(1, 2, 2)
    moved = torch.tensor([0.0, 1.5]).expand(1, 2, 2)
    before, after = (sample_windows(values, still, offset, window=4) for offset in (still, moved))
    assert torch.equal(before[:, :, 0], values[:, :, 0])
    assert torch.equal(after[:, :, 0], values[:, :, 0])
    assert not torch.allclose(after[:, :, 1], values[:, :, 1])


@pytest.mark.parametrize("cross", CROSSES)
def test_block_is_blind_to_padding_and_to_the_order_of_items(cross: Cross) -> None:
    block = made(cross)
    x, other, mask = random_input()
    with torch.no_grad():
        wanted = block(x, other, mask)
        longer = [torch.cat([v, torch.zeros(3, 9, *v.shape[2:], dtype=v.dtype)], dim=1) for v in (x, other, mask)]
        torch.testing.assert_close(block(*longer)[:, :11], wanted, rtol=1e-6, atol=1e-6)
        assert not block(*longer)[:, 11:].any()
        wild = [torch.where(mask[..., None], v, 5.0) for v in (x, other)]
        torch.testing.assert_close(block(*wild, mask), wanted, rtol=1e-6, atol=1e-6)
        turned = torch.tensor([2, 0, 1])
        torch.testing.assert_close(block(x[turned], other[turned], mask[turned]), wanted[turned], rtol=1e-6, atol=1e-6)


def test_item_without_any_real_point_gives_zeros() -> None:
    block = made()
    x, other, mask = random_input()
    mask[1] = False
    assert not block(x, other, mask)[1].any()


@pytest.mark.parametrize("cross", ["cdp", "fixed"])
def test_cost_is_linear_in_time(cross: Cross) -> None:
    block = made(cross, window=8, width=16)

    def flops(count: int) -> int:
        x, other = torch.randn(2, 1, count, 16)
        # What the counter does not know (attention on a CPU) is written out by torch's plain form.
        plain = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
        with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
            block(x, other, torch.ones(1, count, dtype=torch.bool))
        return int(counter.get_total_flops())

    assert flops(2048) / flops(1024) == pytest.approx(2, abs=1e-6)


def test_adaptation_predicts_from_the_real_points_of_a_window() -> None:
    adaptation = WindowAdaptation(4, num_heads=1, window=4)
    with torch.no_grad():
        adaptation.predict.weight.copy_(torch.eye(4)[:2])
    query = torch.tensor([[1.0, -2, 0, 0], [3, -4, 0, 0], [99, 99, 99, 99], [99, 99, 99, 99], [7, 7, 7, 7]])[None]
    size, offset = adaptation(query, torch.tensor([[True, True, False, False, False]]))
    torch.testing.assert_close(size.flatten(), torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(offset.flatten(), torch.tensor([-0.03, 0.0]))


@pytest.mark.parametrize("fields", [{"width": 7}, {"window": 0}, {"num_heads": 0}, {"expansion": 0}])
def test_sizes_out_of_range_are_errors(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="perception needs sizes"):
        DynamicPerception(**({"width": 8, "num_heads": 2, "window": 4} | fields))
