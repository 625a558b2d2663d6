"""The contrastive loss of AVE-CLIP's first stage, over batches larger than memory.

InfoNCE in both directions over L2-normalised features (AVE-CLIP eq. 1: L = L_I + L_A). A pair is positive with itself
alone; images and sounds of background seconds, and those that a queue remembers, are negatives for everyone.

A large batch goes through the towers in pieces (GradCache, Gao et al. 2021): features first, without gradients; the
loss of the whole batch gives the gradient at each feature; the pieces go through again and take it from there. The
gradient is that of the whole batch, exactly, where the towers are deterministic and their statistics do not move.

Shape suffixes: N pairs, M further negatives, B a batch with its background seconds, D width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# CLIP's and AudioCLIP's bounds of the temperature's inverse.
MIN_SCALE, MAX_SCALE = 1.0, 100.0


def info_nce(
    image_ND: Tensor,
    audio_ND: Tensor,
    log_scale: Tensor,
    *,
    other_image_MD: Tensor | None = None,
    other_audio_MD: Tensor | None = None,
) -> Tensor:
    """L_I + L_A, in nats.

    Args:
        image_ND, audio_ND: features of N pairs, row i of both from one event; of any length.
        log_scale: ln(1 / tau), 0-d; 1 / tau is held to [1, 100].
        other_image_MD, other_audio_MD: negatives without a partner.

    Returns:
        0-d; 2 ln N (and more with further negatives) where features tell nothing.

    Raises:
        ValueError: shapes do not fit.
    """
    if image_ND.ndim != 2 or image_ND.shape != audio_ND.shape or not len(image_ND):
        raise ValueError(
            f"InfoNCE needs as many images as sounds, got {tuple(image_ND.shape)} and {tuple(audio_ND.shape)}"
        )
    scale = inverse_temperature(log_scale)
    image_ND, audio_ND = F.normalize(image_ND.float(), dim=1), F.normalize(audio_ND.float(), dim=1)
    images = _with_others(image_ND, other_image_MD)
    audios = _with_others(audio_ND, other_audio_MD)
    own_N = torch.arange(len(image_ND), device=image_ND.device)
    image_loss = F.cross_entropy(scale * image_ND @ audios.T, own_N)
    audio_loss = F.cross_entropy(scale * audio_ND @ images.T, own_N)
    return image_loss + audio_loss


def inverse_temperature(log_scale: Tensor) -> Tensor:
    """1 / tau within its bounds."""
    return log_scale.exp().clamp(MIN_SCALE, MAX_SCALE)


class FeatureQueue:
    """The last features of either modality, unit vectors without gradient: negatives that cost no forward pass.

    Old features come from older parameters; keep the queue short against the speed of learning.
    """

    def __init__(self, size: int) -> None:
        """An empty queue that holds at most `size` features a modality."""
        if size < 0:
            raise ValueError(f"a queue holds 0 features or more, got {size}")
        self._size = size
        self.image_MD: Tensor | None = None
        self.audio_MD: Tensor | None = None

    def push(self, image_ND: Tensor, audio_ND: Tensor) -> None:
        """Takes a batch in; the oldest leave."""
        if self._size:
            self.image_MD = self._longer(self.image_MD, image_ND)
            self.audio_MD = self._longer(self.audio_MD, audio_ND)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        held = {"image": self.image_MD, "audio": self.audio_MD}
        return {name: value for name, value in held.items() if value is not None}

    def restore(self, state: dict[str, Tensor]) -> None:
        """As it was when `state` was taken."""
        self.image_MD, self.audio_MD = state.get("image"), state.get("audio")

    def _longer(self, held_MD: Tensor | None, more_ND: Tensor) -> Tensor:
        more_ND = F.normalize(more_ND.detach().float(), dim=1)
        return _with_others(more_ND, held_MD)[: self._size]


def backward_in_pieces(
    batch_size: int,
    piece_size: int,
    encode: Callable[[slice], tuple[Tensor, Tensor]],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    *,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
    statistics: nn.Module | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Adds the gradient of a whole batch's loss to the towers' parameters, with the memory of one piece.

    Args:
        batch_size: B.
        piece_size: rows that go through the towers at once.
        encode: rows of the batch to image and audio features (n, D), with gradients.
        loss_of: features of the whole batch (B, D) twice, to a 0-d loss.
        scale: multiplies the loss before `backward` (a gradient scaler's).
        statistics: a module whose BatchNorm statistics move in training; they move in the second pass alone.

    Returns:
        The loss, and the batch's features, all without gradient.

    One piece is the plain way: one pass, no second.
    """
    if batch_size <= piece_size:
        image_BD, audio_BD = encode(slice(0, batch_size))
        loss = loss_of(image_BD, audio_BD)
        torch.autograd.backward(scale(loss))
        return loss.detach(), image_BD.detach(), audio_BD.detach()
    pieces = list(_pieces(batch_size, piece_size))
    with torch.no_grad(), _still(statistics):
        made = [encode(piece) for piece in pieces]
    image_BD = torch.cat([image for image, _ in made]).float().requires_grad_(True)
    audio_BD = torch.cat([audio for _, audio in made]).float().requires_grad_(True)
    loss = loss_of(image_BD, audio_BD)
    torch.autograd.backward(scale(loss))
    assert image_BD.grad is not None
    assert audio_BD.grad is not None
    for piece in pieces:
        image, audio = encode(piece)
        torch.autograd.backward(
            [image, audio], [image_BD.grad[piece].to(image.dtype), audio_BD.grad[piece].to(audio.dtype)]
        )
    return loss.detach(), image_BD.detach(), audio_BD.detach()


@contextlib.contextmanager
def _still(module: nn.Module | None) -> Iterator[None]:
    """BatchNorm normalises by its batch but leaves its running statistics alone."""
    norms = [] if module is None else [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    held = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms if norm.training]
    counts = [None if tracked is None else tracked.clone() for _, _, tracked in held]
    for norm, _, _ in held:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for (norm, momentum, tracked), count in zip(held, counts, strict=True):
            norm.momentum = momentum
            if tracked is not None and count is not None:
                tracked.copy_(count)


def _pieces(total: int, size: int) -> Iterator[slice]:
    """Pieces of at most `size` and of nearly one size: BatchNorm cannot train on a single row left over."""
    number = -(-total // size)
    for piece in range(number):
        yield slice(piece * total // number, (piece + 1) * total // number)


def _with_others(own: Tensor, others: Tensor | None) -> Tensor:
    return own if others is None or not len(others) else torch.cat([own, F.normalize(others.float(), dim=1)])
