"""InfoNCE against a loop written from the equation; a batch in pieces against the batch in one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pipeline.finetune.contrastive import FeatureQueue, backward_in_pieces, info_nce


def unit(values: Tensor) -> Tensor:
    return torch.nn.functional.normalize(values, dim=1)


def slowly(image: Tensor, audio: Tensor, tau: float, more_image: Tensor, more_audio: Tensor) -> float:
    """AVE-CLIP eq. 1, term by term."""
    image, audio, more_image, more_audio = map(unit, (image, audio, more_image, more_audio))
    total = 0.0
    for own, other, extra in ((image, audio, more_audio), (audio, image, more_image)):
        for i, row in enumerate(own):
            candidates = [float(row @ column) / tau for column in [*other, *extra]]
            total -= (candidates[i] - math.log(sum(math.exp(c) for c in candidates))) / len(own)
    return total


@pytest.mark.parametrize("more", [0, 3])
def test_info_nce_equals_the_equation(more: int) -> None:
    torch.manual_seed(0)
    image, audio = torch.randn(5, 8), 3 * torch.randn(5, 8)
    more_image, more_audio = torch.randn(more, 8), torch.randn(more, 8)
    loss = info_nce(
        image, audio, torch.tensor(math.log(1 / 0.07)), other_image_MD=more_image, other_audio_MD=more_audio
    )
    assert float(loss) == pytest.approx(slowly(image, audio, 0.07, more_image, more_audio), rel=1e-5)


def test_info_nce_temperature_is_held_in_its_bounds() -> None:
    torch.manual_seed(0)
    image, audio = torch.randn(4, 8), torch.randn(4, 8)
    bound = info_nce(image, audio, torch.tensor(math.log(100.0)))
    torch.testing.assert_close(info_nce(image, audio, torch.tensor(9.0)), bound)
    flat = info_nce(image, audio, torch.tensor(0.0))
    torch.testing.assert_close(info_nce(image, audio, torch.tensor(-3.0)), flat)


def test_info_nce_features_that_tell_nothing_cost_two_ln_n() -> None:
    assert float(info_nce(torch.ones(6, 3), torch.ones(6, 3), torch.tensor(2.0))) == pytest.approx(2 * math.log(6))


def test_info_nce_unequal_numbers_raise() -> None:
    with pytest.raises(ValueError, match="as many images as sounds"):
        info_nce(torch.ones(2, 3), torch.ones(3, 3), torch.tensor(0.0))


class Towers(nn.Module):
    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8) if norm else nn.Tanh(), nn.Linear(8, 4))
        self.audio = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4))
        self.log_scale = nn.Parameter(torch.tensor(1.5))


@pytest.mark.parametrize("piece", [1, 3, 4, 9])
def test_backward_in_pieces_gives_the_whole_batchs_gradient(piece: int) -> None:
    torch.manual_seed(0)
    towers, images, sounds = Towers(norm=False), torch.randn(9, 6), torch.randn(9, 5)
    more = torch.randn(3, 4)

    def encode(rows: slice) -> tuple[Tensor, Tensor]:
        return towers.image(images[rows]), towers.audio(sounds[rows])

    def loss_of(image: Tensor, audio: Tensor) -> Tensor:
        # The last two rows are background: negatives alone.
        return info_nce(
            image[:7],
            audio[:7],
            towers.log_scale,
            other_image_MD=torch.cat([image[7:], more]),
            other_audio_MD=torch.cat([audio[7:], more]),
        )

    plain = loss_of(*encode(slice(0, 9)))
    wanted = torch.autograd.grad(plain, list(towers.parameters()))
    loss, image, audio = backward_in_pieces(9, piece, encode, loss_of)
    torch.testing.assert_close(loss, plain.detach())
    assert image.shape == audio.shape == (9, 4)
    for parameter, gradient in zip(towers.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_backward_in_pieces_moves_running_statistics_once() -> None:
    torch.manual_seed(0)
    towers, images, sounds = Towers(norm=True).train(), torch.randn(8, 6), torch.randn(8, 5)
    norm = towers.image[1]
    assert isinstance(norm, nn.BatchNorm1d)

    def encode(rows: slice) -> tuple[Tensor, Tensor]:
        return towers.image(images[rows]), towers.audio(sounds[rows])

    def loss_of(image: Tensor, audio: Tensor) -> Tensor:
        return info_nce(image, audio, towers.log_scale)

    backward_in_pieces(8, 4, encode, loss_of, statistics=towers)
    moved = norm.running_mean.clone() if norm.running_mean is not None else None
    norm.reset_running_stats()
    for rows in (slice(0, 4), slice(4, 8)):
        towers.image(images[rows])
    torch.testing.assert_close(moved, norm.running_mean)
    assert int(norm.num_batches_tracked or 0) == 2
    assert norm.momentum == 0.1


def test_queue_keeps_the_newest_and_restores() -> None:
    queue = FeatureQueue(3)
    queue.push(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    queue.push(torch.tensor([[-5.0, 0.0], [0.0, -1.0]]), torch.ones(2, 2))
    assert queue.image_MD is not None
    torch.testing.assert_close(queue.image_MD, torch.tensor([[-1.0, 0.0], [0.0, -1.0], [1.0, 0.0]]))
    again = FeatureQueue(3)
    again.restore(queue.state())
    torch.testing.assert_close(again.audio_MD, queue.audio_MD)
    empty = FeatureQueue(0)
    empty.push(torch.ones(2, 2), torch.ones(2, 2))
    assert empty.state() == {}
