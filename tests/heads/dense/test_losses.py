"""Losses of dense heads against the goldens of the published code, and against gradients by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from heads.dense.losses import Normaliser, diou, focal, giou

# Values: float32 in another order of operations; gradients: as the goldens allow.
VALUE: dict[str, Any] = {"rtol": 2e-5, "atol": 1e-6}
GRADIENT: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-6}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Any:
    return np.load(shared / "parity" / "heads" / "losses" / "losses.npz", allow_pickle=False)


def with_gradient(loss: Callable[..., Tensor], x: Tensor, *rest: Tensor, **how: float) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    values = loss(x, *rest, **how)
    (gradient,) = torch.autograd.grad(values.sum(), x)
    return values.detach(), gradient


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (-1.0, 2.0), (0.5, 1.0), (0.25, 0.0)])
@pytest.mark.parametrize("kind", ["hard", "smoothed"])
def test_focal_equals_published(golden: Any, kind: str, alpha: float, gamma: float) -> None:
    targets = torch.from_numpy(golden["focal/targets" if kind == "hard" else "focal/targets_smoothed"])
    key = f"focal/{kind}/a{alpha}_g{gamma}"
    values, gradient = with_gradient(focal, torch.from_numpy(golden["focal/logits"]), targets, alpha=alpha, gamma=gamma)
    np.testing.assert_allclose(values, golden[f"{key}/none"], **VALUE)
    np.testing.assert_allclose(values.double().sum(), golden[f"{key}/sum"], **VALUE)
    np.testing.assert_allclose(gradient, golden[f"{key}/grad_of_sum"], **GRADIENT)


def test_focal_of_logits_far_out_is_finite() -> None:
    logits = torch.tensor([-200.0, -60.0, 0.0, 60.0, 200.0]).repeat(2)
    values, gradient = with_gradient(focal, logits, torch.arange(2.0).repeat_interleave(5))
    assert values.isfinite().all()
    assert gradient.isfinite().all()
    assert values[0] == 0
    assert float(values[5]) == pytest.approx(0.25 * 200)


def test_focal_of_targets_of_another_shape_raises() -> None:
    with pytest.raises(ValueError, match=r"targets \(2, 3\) like the logits, got \(3,\)"):
        focal(torch.zeros(2, 3), torch.zeros(3))


@pytest.mark.parametrize("loss", [diou, giou])
def test_losses_of_distances_equal_published(golden: Any, loss: Callable[..., Tensor]) -> None:
    predicted, target = (torch.from_numpy(golden[f"off/{side}"]) for side in ("pred", "gt"))
    values, gradient = with_gradient(loss, predicted, target)
    np.testing.assert_allclose(values, golden[f"off/{loss.__name__}/none"], **VALUE)
    np.testing.assert_allclose(values.double().sum(), golden[f"off/{loss.__name__}/sum"], **VALUE)
    # Where both distances of a side agree, or nothing has a length, the gradient has a kink.
    smooth = ((predicted != target).all(dim=1) & (predicted.sum(dim=1) > 0) & (target.sum(dim=1) > 0)).numpy()
    assert smooth.sum() > 100
    np.testing.assert_allclose(gradient[smooth], golden[f"off/{loss.__name__}/grad_of_sum"][smooth], **GRADIENT)


def test_diou_of_every_class_at_a_point_equals_published(golden: Any) -> None:
    predicted, target = (torch.from_numpy(golden[f"off_ca/{side}"]) for side in ("pred", "gt"))
    positive = (target > 0).any(dim=-1)
    values, gradient = with_gradient(lambda x: diou(x[positive], target[positive]), predicted)
    np.testing.assert_allclose(values, golden["off_ca/none"], **VALUE)
    np.testing.assert_allclose(gradient, golden["off_ca/grad_of_sum"], **GRADIENT)


def test_losses_of_an_event_with_itself_are_zero_and_of_nothing_finite() -> None:
    event = torch.tensor([[2.0, 3.0], [0.5, 7.0]])
    for loss in (diou, giou):
        torch.testing.assert_close(loss(event, event), torch.zeros(2), rtol=0, atol=1e-6)
        values, gradient = with_gradient(loss, torch.zeros(1, 2), torch.tensor([[1.0, 2.0]]))
        assert values.isfinite().all()
        assert gradient.isfinite().all()
        assert with_gradient(loss, torch.zeros(0, 2), torch.zeros(0, 2))[0].shape == (0,)


def test_normaliser_takes_a_batch_in_before_it_is_used_and_only_in_training() -> None:
    normaliser = Normaliser()
    assert float(normaliser(torch.tensor(50))) == pytest.approx(0.9 * 250 + 0.1 * 50)
    # A batch without a positive point counts as one.
    assert float(normaliser(torch.tensor(0))) == pytest.approx(0.9 * 230 + 0.1)
    normaliser.eval()
    before = float(normaliser.mean)
    assert float(normaliser(torch.tensor(9000))) == before
    again = Normaliser()
    again.load_state_dict(normaliser.state_dict())
    assert float(again.mean) == before
    assert list(normaliser.state_dict()) == ["mean"]


def test_normaliser_of_an_earlier_batch_stays_what_it_was() -> None:
    # Its value is kept for the backward pass while a later batch moves the average.
    normaliser = Normaliser(initial=10.0, momentum=0.5)
    first = normaliser(torch.tensor(20))
    normaliser(torch.tensor(4000))
    assert float(first) == 15.0
    with pytest.raises(ValueError, match="momentum in"):
        Normaliser(momentum=1.5)
