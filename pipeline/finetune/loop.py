"""Contrastive fine-tuning of an encoder on the pairs of a data set: AVE-CLIP's first stage (paper section 3.2).

Frames and audio of one event's second are positives; those of other items and of background seconds negatives.
Both towers and the temperature learn, but for what is frozen. What comes out is a checkpoint in the published layout:
another file, another hash, so features made with it have another fingerprint.

A run folder:
    weights.safetensors     the towers of the best epoch, published keys (text and other parts as they came)
    checkpoint.pt           where training stands after its last whole epoch; removed when all are done
    run.json                settings, data, retrieval before and after, the history, the SHA-256 of both weights
    tensorboard/            the same numbers as scalars

Epochs draw from generators of their own, so a resumed run is the undisturbed one (bit for bit on one machine).
Validation alone chooses the epoch; the test split is never looked at.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from catalog.errors import AvelError
from catalog.fields import Count, Size, check_fields
from pipeline.finetune import augment
from pipeline.finetune.contrastive import FeatureQueue, backward_in_pieces, info_nce, inverse_temperature
from pipeline.finetune.folder import FinetuneProgress, Numbers, resume, save, save_weights, scalars
from pipeline.finetune.pairs import ItemPairs, Pairs
from pipeline.finetune.retrieval import recall_at

# Rows that are evaluated at once.
_EVALUATE_ROWS = 32


class Towers(Protocol):
    """What an encoder offers for fine-tuning: a module with both towers.

    Its plug-in makes it with `towers(weights, device, recipe) -> Towers`.
    """

    module: nn.Module
    log_scale: nn.Parameter

    def image(self, frames_BHWC: Tensor) -> Tensor:
        """Frames of the recipe's size, on the device, to (B, D) features, with gradients."""

    def audio(self, sound_BN: Tensor) -> Tensor:
        """float32 samples in [-1, 1] at the recipe's rate, to (B, D) features, with gradients."""

    def published_state(self) -> dict[str, Tensor]:
        """Every tensor of the checkpoint in its published layout, on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an encoder is fine-tuned.

    Attributes:
        epochs: passes over the training items; each gives one pair an item.
        batch_size: positive pairs a step.
        piece_size: rows that go through the towers at once; smaller ones save memory and change nothing else.
        queue_size: features of earlier steps kept as negatives.
        background_share: background seconds a positive pair, as further negatives.
        learning_rate, weight_decay: AdamW's; the rate warms up over the first tenth and falls along a cosine.
        clip_norm: the gradient's norm is held below.
        batch_norm: "frozen" keeps the published statistics (right for small data sets), "train" moves them.
        flip: half of the frames are mirrored.
        augment: frames and audio are changed a little by chance (`pipeline.finetune.augment`).
        frozen: beginnings of the names of parameters that stay as they are.
        precision: of the towers on a GPU: "bfloat16" autocasts; the loss is float32 always.
        seed: of order and choice.
        device: torch's name.
    """

    epochs: Size = 10
    batch_size: Annotated[Size, Field(ge=2)] = 64
    piece_size: Size = 32
    queue_size: Count = 0
    background_share: Annotated[float, Field(ge=0, le=8)] = 0.25
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-5
    weight_decay: Annotated[float, Field(ge=0, lt=10)] = 1e-2
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    batch_norm: Literal["frozen", "train"] = "frozen"
    flip: bool = True
    augment: bool = False
    frozen: tuple[str, ...] = ()
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """Result of `finetune`.

    Attributes:
        before, after: validation's loss and R@1, 5, 10 in both directions.
        best_epoch: 0 where no epoch was better than the weights given.
        history: one row an epoch.
        stopped: asked to stop before the last epoch; the same call goes on.
    """

    before: Numbers
    after: Numbers
    best_epoch: int
    history: tuple[Numbers, ...]
    stopped: bool


def finetune(
    towers: Towers,
    pairs: Pairs,
    folder: Path,
    settings: Settings,
    *,
    origin: Mapping[str, str] | None = None,
    on_epoch: Callable[[Numbers], None] = lambda row: None,
    on_step: Callable[[int], None] = lambda done: None,
    stop: Callable[[], bool] = lambda: False,
) -> Finetuned:
    """Trains `towers` in place and leaves the best epoch's weights in `folder`; goes on from its checkpoint.

    Args:
        towers: as loaded from the starting weights.
        folder: of this run; must exist.
        origin: what the run starts from (hash of weights, recipe, data set); a checkpoint of another origin is refused.
        on_epoch: gets each epoch's numbers.
        on_step: gets the number of steps done.
        stop: asked after each epoch.

    Raises:
        ValueError: too few items, or the folder's checkpoint is of other settings.
        AvelError: a loss is NaN or infinite.
    """
    train, val = (_needed_items(pairs, split) for split in ("train", "val"))
    towers.module.to(settings.device)
    _freeze(towers.module, settings.frozen)
    optimiser = torch.optim.AdamW(_groups(towers.module, settings.weight_decay), lr=settings.learning_rate)
    queue = FeatureQueue(settings.queue_size)
    identity = _identity(settings) | dict(origin or {})
    done = resume(folder, towers.module, optimiser, queue, identity, settings.device)
    if done is None:
        before = _evaluate(towers, pairs, val, settings)
        done = FinetuneProgress(before=before, best=before)
        save_weights(towers.published_state(), folder)
    with scalars(folder) as writer:
        for epoch in range(len(done.history) + 1, settings.epochs + 1):
            if stop():
                return _finetuned(done, stopped=True)
            began_s = time.perf_counter()
            row = _train_epoch(towers, pairs, train, optimiser, queue, settings, epoch, on_step)
            row |= {f"val_{name}": value for name, value in _evaluate(towers, pairs, val, settings).items()}
            row["seconds"] = round(time.perf_counter() - began_s, 3)
            done.history.append(row)
            for name, value in row.items():
                writer.add_scalar(name, value, epoch)
            found = {name.removeprefix("val_"): value for name, value in row.items() if name.startswith("val_")}
            if _validation_rank(found) > _validation_rank(done.best):
                done.best, done.best_epoch = found, epoch
                save_weights(towers.published_state(), folder)
            save(folder, towers.module, optimiser, queue, identity, done)
            on_epoch(row)
    on_step(num_steps(pairs, settings))
    return _finetuned(done, stopped=False)


def _finetuned(done: FinetuneProgress, *, stopped: bool) -> Finetuned:
    return Finetuned(
        before=done.before,
        after=done.best,
        best_epoch=done.best_epoch,
        history=tuple(done.history),
        stopped=stopped,
    )


def _validation_rank(numbers: Numbers) -> tuple[float, float]:
    """Retrieval first, then the loss."""
    recalls = [value for name, value in numbers.items() if "_r" in name]
    return sum(recalls) / len(recalls), -numbers["loss"]


def _with_events(pairs: Pairs, split: str) -> list[ItemPairs]:
    return [item for item in pairs.items[split] if item.event_rows]


def _needed_items(pairs: Pairs, split: str) -> list[ItemPairs]:
    items = _with_events(pairs, split)
    if len(items) < 2:
        raise ValueError(
            f"fine-tuning needs at least 2 {split} items with an event that is seen and heard, "
            f"got {len(items)}; {len(pairs.absent)} videos have no pairs"
        )
    return items


def _train_epoch(
    towers: Towers,
    pairs: Pairs,
    train: list[ItemPairs],
    optimiser: torch.optim.Optimizer,
    queue: FeatureQueue,
    settings: Settings,
    epoch: int,
    on_step: Callable[[int], None],
) -> Numbers:
    """One pair an item, in batches of distinct items."""
    rng = np.random.default_rng([settings.seed, epoch])
    background = np.array([row for item in train for row in item.background_rows], dtype=np.int64)
    _train_mode(towers.module, settings.batch_norm)
    total = num_steps(pairs, settings)
    steps = total // settings.epochs
    order = rng.permutation(len(train))
    loss_sum, norm_sum = 0.0, 0.0
    for step in range(steps):
        at = (epoch - 1) * steps + step
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(at, total, settings.learning_rate)
        # The last batch takes what is left, too few for one of their own: no item goes unused.
        stop = (step + 1) * settings.batch_size if step + 1 < steps else len(train)
        chosen = order[step * settings.batch_size : stop]
        rows = [int(rng.choice(train[i].event_rows)) for i in chosen]
        num_background = round(settings.background_share * len(rows)) if background.size else 0
        rows += [int(row) for row in rng.choice(background, num_background)] if num_background else []
        batch = _Batch.of(pairs, np.array(rows), rng, settings)
        loss, norm = _step(towers, batch, len(chosen), optimiser, queue, settings)
        if not math.isfinite(loss):
            items = ", ".join(train[i].item.id for i in chosen[:10])
            raise AvelError(
                f"epoch {epoch}, step {step + 1}: the loss is NaN or infinite (items {items}, ...); "
                "lower --lr, or look at the videos with `avel dataset audit`"
            )
        loss_sum += loss
        norm_sum += norm
        on_step(at + 1)
    scale = float(inverse_temperature(towers.log_scale.detach()))
    return {
        "epoch": epoch,
        "train_loss": loss_sum / steps,
        "gradient_norm": norm_sum / steps,
        "inverse_temperature": scale,
        "learning_rate": optimiser.param_groups[0]["lr"],
    }


def _step(
    towers: Towers,
    batch: _Batch,
    num_pairs: int,
    optimiser: torch.optim.Optimizer,
    queue: FeatureQueue,
    settings: Settings,
) -> tuple[float, float]:
    def encode(rows: slice) -> tuple[Tensor, Tensor]:
        with _autocast(settings):
            frames, sound = batch.on(settings.device, rows)
            image, audio = towers.image(frames), towers.audio(sound)
        if torch.is_grad_enabled():
            # A tower that is frozen whole gives features without gradient; the pieces' second pass asks for one.
            image, audio = image.requires_grad_(), audio.requires_grad_()
        return image, audio

    def loss_of(image_BD: Tensor, audio_BD: Tensor) -> Tensor:
        others = [
            [part for part in (features[num_pairs:], held) if part is not None]
            for features, held in ((image_BD, queue.image_MD), (audio_BD, queue.audio_MD))
        ]
        return info_nce(
            image_BD[:num_pairs],
            audio_BD[:num_pairs],
            towers.log_scale,
            other_image_MD=torch.cat([part.float() for part in others[0]]),
            other_audio_MD=torch.cat([part.float() for part in others[1]]),
        )

    optimiser.zero_grad(set_to_none=True)
    loss, image_BD, audio_BD = backward_in_pieces(
        len(batch.frames_BHWC), settings.piece_size, encode, loss_of, statistics=towers.module
    )
    norm = nn.utils.clip_grad_norm_(towers.module.parameters(), settings.clip_norm)
    if math.isfinite(float(loss)):
        optimiser.step()
    queue.push(image_BD[:num_pairs], audio_BD[:num_pairs])
    return float(loss), float(norm)


def num_steps(pairs: Pairs, settings: Settings) -> int:
    """Steps of a whole run."""
    return settings.epochs * max(1, len(_with_events(pairs, "train")) // settings.batch_size)


def learning_rate(step: int, total: int, base: float) -> float:
    """Linear warm-up over the first tenth, then a cosine down to a hundredth."""
    warm = max(1, total // 10)
    if step < warm:
        return base * (step + 1) / warm
    share = (step - warm) / max(1, total - warm)
    return base * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


@dataclass(frozen=True, kw_only=True)
class _Batch:
    frames_BHWC: NDArray[np.uint8 | np.float32]
    sound_BN: NDArray[np.int16]

    @classmethod
    def of(cls, pairs: Pairs, rows: NDArray[np.int64], rng: np.random.Generator, settings: Settings) -> _Batch:
        """One frame of each row, by chance, mirrored and changed by chance."""
        which = rng.integers(pairs.frames_RPHWC.shape[1], size=len(rows))
        frames = np.stack([pairs.frames_RPHWC[row, frame] for row, frame in zip(rows, which, strict=True)])
        if settings.flip:
            mirrored = rng.random(len(rows)) < 0.5
            frames[mirrored] = frames[mirrored, :, ::-1]
        sound = np.stack([pairs.sound_RN[row] for row in rows])
        if settings.augment:
            frames, sound = augment.shift_frames(frames, rng), augment.noisy_audio(sound, rng)
        return cls(frames_BHWC=frames, sound_BN=sound)

    def on(self, device: str, rows: slice) -> tuple[Tensor, Tensor]:
        frames = torch.from_numpy(self.frames_BHWC[rows]).to(device)
        sound = torch.from_numpy(self.sound_BN[rows]).to(device).float() / 32768
        return frames, sound


def _evaluate(towers: Towers, pairs: Pairs, items: list[ItemPairs], settings: Settings) -> Numbers:
    """Loss and retrieval over the middle second of each item's event, the middle frame of it."""
    rows = np.array([item.event_rows[len(item.event_rows) // 2] for item in items])
    frame = pairs.frames_RPHWC.shape[1] // 2
    batch = _Batch(
        frames_BHWC=np.stack([pairs.frames_RPHWC[row, frame] for row in rows]),
        sound_BN=np.stack([pairs.sound_RN[row] for row in rows]),
    )
    towers.module.eval()
    images, audios = [], []
    with torch.no_grad(), _autocast(settings):
        for low in range(0, len(rows), _EVALUATE_ROWS):
            frames, sound = batch.on(settings.device, slice(low, low + _EVALUATE_ROWS))
            images.append(towers.image(frames).float().cpu())
            audios.append(towers.audio(sound).float().cpu())
    image_ND, audio_ND = torch.cat(images), torch.cat(audios)
    loss = float(info_nce(image_ND, audio_ND, towers.log_scale.detach().cpu()))
    return {"loss": loss} | recall_at(image_ND.numpy(), audio_ND.numpy())


def _autocast(settings: Settings) -> torch.autocast:
    kind = torch.device(settings.device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=settings.precision == "bfloat16")


def _train_mode(module: nn.Module, batch_norm: str) -> None:
    """Norms whose parameters are frozen keep their statistics too."""
    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and (
            batch_norm == "frozen" or not all(parameter.requires_grad for parameter in part.parameters())
        ):
            part.eval()


def _freeze(module: nn.Module, beginnings: tuple[str, ...]) -> None:
    """Takes parameters out of learning.

    Raises:
        ValueError: a beginning is no parameter's, or nothing is left to learn.
    """
    named = dict(module.named_parameters())
    for beginning in beginnings:
        found = [parameter for name, parameter in named.items() if name.startswith(beginning)]
        if not found:
            raise ValueError(
                f"no parameter's name begins with {beginning!r}; there are {', '.join(list(named)[:3])}, ... "
                f"and {list(named)[-1]}"
            )
        for parameter in found:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in named.values()):
        raise ValueError(f"every parameter is frozen by {', '.join(beginnings)}: nothing is left to learn")


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Biases, norms and the temperature are not decayed."""
    learnt = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in learnt if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in learnt if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _identity(settings: Settings) -> dict[str, Any]:
    """What decides the numbers; where and in what pieces it runs does not."""
    fields = dict(vars(settings))
    del fields["device"], fields["piece_size"]
    return fields
