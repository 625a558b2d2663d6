"""LCC against slow loops written from the paper's equations, and its laws."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from heads.models.loco.lcc import SIGMA_RANGE, SMOOTHING, TAU_RANGE, CorrespondenceCorrection, Objective

OBJECTIVES = get_args(Objective)


def made(
    objective: Objective = "gaussian", *, sigma: float = 1.3, tau: float = 0.2, stride: int = 1
) -> CorrespondenceCorrection:
    torch.manual_seed(0)
    return CorrespondenceCorrection(8, objective=objective, sigma=sigma, tau=tau, stride=stride)


def random_input() -> tuple[Tensor, Tensor, Tensor]:
    """Three videos of 7, 5 and 1 segments, the first with a gap; numbers outside the mask too."""
    rng = torch.Generator().manual_seed(1)
    visual, audio = (torch.randn(3, 7, 8, generator=rng) for _ in range(2))
    mask = torch.arange(7) < torch.tensor([7, 5, 1])[:, None]
    mask[0, 2] = False
    return visual, audio, mask


def slow_objective(mask: list[bool], objective: Objective, sigma: float, stride: int) -> list[list[float]]:
    """y of one video, entry by entry; `mask` is that of the segments that `stride` leaves."""
    count = len(mask)
    rows = []
    for i in range(count):
        row = [0.0] * count
        others = sum(mask) - 1
        for j in range(count):
            if not (mask[i] and mask[j]):
                continue
            distance = stride * abs(i - j) / math.sqrt(2)
            if objective in ("gaussian", "fixed"):
                row[j] = math.exp(-(distance**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
            elif objective == "diagonal":
                row[j] = float(i == j)
            elif others:
                row[j] = 1 - SMOOTHING if i == j else SMOOTHING / others
            else:
                row[j] = 1.0
        total = sum(row)
        rows.append([value / total for value in row] if total else row)
    return rows


def slow_loss(lcc: CorrespondenceCorrection, visual: Tensor, audio: Tensor, mask: Tensor) -> float:
    """Equations 2 to 5 over the list of all segments of the batch."""
    kept = [(b, t) for b in range(len(mask)) for t in range(0, mask.shape[1], lcc.stride) if mask[b, t]]
    targets = [slow_objective(row.tolist()[:: lcc.stride], lcc.objective, lcc.sigma, lcc.stride) for row in mask]

    def normed(linear: torch.nn.Linear, x: Tensor) -> Tensor:
        y: Tensor = linear.weight @ x + linear.bias
        unit: Tensor = y / y.norm()
        return unit

    v = [normed(lcc.visual, visual[b, t]) for b, t in kept]
    a = [normed(lcc.audio, audio[b, t]) for b, t in kept]
    total = 0.0
    for queries, keys in ((v, a), (a, v)):
        for i, (b, t) in enumerate(kept):
            logits = [float(queries[i] @ key) / lcc.tau for key in keys]
            log_total = math.log(sum(math.exp(logit) for logit in logits))
            for j, (other, s) in enumerate(kept):
                y = targets[b][t // lcc.stride][s // lcc.stride] if other == b else 0.0
                total -= y * (logits[j] - log_total) / len(kept)
    return total / 2


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objective_equals_slow_loop_and_rows_sum_to_one(objective: Objective, stride: int) -> None:
    lcc, mask = made(objective, stride=stride), random_input()[2]
    y = lcc.objective_of(mask[:, ::stride])
    for b in range(3):
        slow = torch.tensor(slow_objective(mask[b, ::stride].tolist(), objective, lcc.sigma, stride))
        torch.testing.assert_close(y[b], slow, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(y.sum(dim=-1), mask[:, ::stride].float())


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_loss_equals_slow_loop(objective: Objective, stride: int) -> None:
    lcc = made(objective, stride=stride)
    visual, audio, mask = random_input()
    with torch.no_grad():
        assert float(lcc(visual, audio, mask)) == pytest.approx(slow_loss(lcc, visual, audio, mask), rel=1e-5)


def test_loss_at_full_size_equals_dense_target_matrix() -> None:
    """As the equations stand, with y of all pairs of the batch as one matrix."""
    lcc = CorrespondenceCorrection(16)
    visual, audio = (torch.randn(6, 40, 16) for _ in range(2))
    mask = torch.arange(40) < torch.tensor([40, 39, 20, 8, 1, 0])[:, None]
    v, a = (x[mask] for x in lcc.project(visual, audio))
    y = torch.zeros(6, 40, 6, 40)
    y[torch.arange(6), :, torch.arange(6)] = lcc.objective_of(mask)
    y = y.flatten(2).flatten(0, 1)[mask.flatten()][:, mask.flatten()]
    logits = v @ a.T / lcc.tau
    one, other = (-(y * x.log_softmax(dim=-1)).sum() / len(v) for x in (logits, logits.T))
    torch.testing.assert_close(lcc(visual, audio, mask), (one + other) / 2)


def test_loss_is_blind_to_padding_and_to_the_order_of_items() -> None:
    lcc = made()
    visual, audio, mask = random_input()
    wanted = lcc(visual, audio, mask)
    wild = [
        torch.cat([torch.where(mask[..., None], x, 9.0), torch.full((3, 4, 8), -7.0)], dim=1) for x in (visual, audio)
    ]
    longer = torch.cat([mask, torch.zeros(3, 4, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(lcc(*wild, longer), wanted)
    turned = torch.tensor([2, 0, 1])
    torch.testing.assert_close(lcc(visual[turned], audio[turned], mask[turned]), wanted)


def test_loss_of_swapped_modalities_is_the_same_with_swapped_maps() -> None:
    lcc = made()
    visual, audio, mask = random_input()
    wanted = lcc(visual, audio, mask)
    lcc.visual, lcc.audio = lcc.audio, lcc.visual
    torch.testing.assert_close(lcc(audio, visual, mask), wanted)


def test_loss_without_any_segment_is_zero_and_has_gradients() -> None:
    lcc = made()
    visual, audio, mask = random_input()
    loss = lcc(visual.requires_grad_(), audio, torch.zeros_like(mask))
    (gradient,) = torch.autograd.grad(loss, visual)
    assert loss.item() == 0
    assert not gradient.any()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_of_loss_equal_differences(objective: Objective) -> None:
    lcc = made(objective).double()
    visual, audio, mask = random_input()

    # Its own cast to float32 is for reduced precision; the core takes what it gets.
    def loss() -> Tensor:
        total: Tensor = lcc._loss(*lcc.project(visual.double(), audio.double()), mask)
        return total

    wanted = torch.autograd.grad(loss(), list(lcc.parameters()))
    for parameter, gradient in zip(lcc.parameters(), wanted, strict=True):
        flat = parameter.data.view(-1)
        for place in range(0, len(flat), 7):
            kept = flat[place].item()
            values = []
            for step in (-1e-3, 1e-3):
                flat[place] = kept + step
                values.append(float(loss().detach()))
            flat[place] = kept
            assert (values[1] - values[0]) / 2e-3 == pytest.approx(gradient.view(-1)[place].item(), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(("outside", "edge"), [(0.1, SIGMA_RANGE[0]), (50.0, SIGMA_RANGE[1])])
def test_sigma_beyond_its_range_is_at_the_edge_with_a_gradient(outside: float, edge: float) -> None:
    lcc, at_edge = made(), made(sigma=edge)
    visual, audio, mask = random_input()
    lcc.sigma_raw.data.fill_(outside)
    assert lcc.sigma == edge
    losses = [head(visual, audio, mask) for head in (lcc, at_edge)]
    slopes = [torch.autograd.grad(loss, head.sigma_raw)[0] for loss, head in zip(losses, (lcc, at_edge), strict=True)]
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(slopes[0], slopes[1])
    assert slopes[0].abs() > 1e-6
    assert lcc.sigma_raw.item() == edge  # put back, not left to wander


def test_sigma_beyond_its_range_is_read_only_in_evaluation() -> None:
    lcc = made().eval()
    visual, audio, mask = random_input()
    lcc.sigma_raw.data.fill_(0.1)
    torch.testing.assert_close(lcc(visual, audio, mask), made(sigma=SIGMA_RANGE[0])(visual, audio, mask))
    assert lcc.sigma_raw.item() == pytest.approx(0.1)


def test_two_forwards_before_one_backward_work() -> None:
    lcc = made()
    visual, audio, mask = random_input()
    (lcc(visual, audio, mask) + lcc(audio, visual, mask)).backward()
    assert lcc.tau_raw.grad is not None


def test_only_the_learned_gaussian_has_a_parameter_sigma() -> None:
    for objective in OBJECTIVES:
        lcc = made(objective)
        assert ("sigma_raw" in dict(lcc.named_parameters())) == (objective == "gaussian")
        assert "sigma_raw" in lcc.state_dict()
        assert lcc.sigma == pytest.approx(1.3)
        assert lcc.tau == pytest.approx(0.2)


def test_training_brings_synchronous_segments_together() -> None:
    torch.manual_seed(0)
    lcc = CorrespondenceCorrection(16, objective="fixed", sigma=1.0)
    hidden = torch.randn(4, 12, 16)
    visual, audio = hidden @ torch.randn(16, 16), hidden @ torch.randn(16, 16)
    mask = torch.ones(4, 12, dtype=torch.bool)
    stepper = torch.optim.Adam(lcc.parameters(), lr=1e-2)
    for _ in range(150):
        stepper.zero_grad()
        lcc(visual, audio, mask).backward()
        stepper.step()
    v, a = (x.detach() for x in lcc.project(visual, audio))
    cosines = v.flatten(0, 1) @ a.flatten(0, 1).T
    others = cosines[~torch.eye(48, dtype=torch.bool)]
    assert float(cosines.diagonal().mean()) > float(others.mean()) + 0.4


def test_reduced_precision_differs_by_less_than_one_percent() -> None:
    lcc = made()
    visual, audio, mask = random_input()
    wanted = lcc(visual, audio, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = lcc(visual, audio, mask)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, wanted, rtol=0.01, atol=0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"width": 7},
        {"width": 0},
        {"width": 8, "stride": 0},
        {"width": 8, "sigma": 0.4},
        {"width": 8, "sigma": float("nan")},
        {"width": 8, "tau": TAU_RANGE[1] * 2},
    ],
)
def test_arguments_out_of_range_are_errors(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="LCC needs"):
        CorrespondenceCorrection(**arguments)
