"""The training loop of heads: plain torch, batches by index, the checkpoint that is best on validation.

Equal seeds give equal bits on one machine with one number of threads (`torch.set_num_threads` is left as the caller
set it), also when the training was interrupted and went on from its checkpoint.

No torch.compile: on a CPU the first step came 26 s (linear, psp) to 97 s (ave_clip) later. Only linear's steps became
faster, which take milliseconds as it is; the checks of masks in the other heads break the graph.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from catalog.errors import AvelError
from catalog.store.modal import Modal
from heads.data.split import Split
from heads.features import FeatureBatch, Target
from heads.runs.record import Numbers
from heads.spec import Head
from heads.training.checkpoint import Checkpoint, Moving, Progress
from heads.training.optim import averaged, optimiser, schedule
from heads.training.settings import Settings


class TrainingStopped(AvelError):
    """Asked to stop before its last epoch; the same call with its checkpoint goes on."""


class TrainingDiverged(AvelError):
    """A loss is NaN or infinite; the message names the items."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Result of `fit`.

    Attributes:
        state: the best epoch's parameters and buffers, on the CPU.
        best_epoch: counted from 1.
        history: one row an epoch: epoch, train_loss, learning_rate (of its last step), val_loss, val_NAME of the number
            that decides, seconds; the head's own numbers after the epoch's steps (`Head.scalars`).
    """

    state: dict[str, Tensor]
    best_epoch: int
    history: tuple[Numbers, ...]


class TrainingData(Protocol):
    """Batches with their truth, and validation: of a task (`heads.training.task`)."""

    @property
    def train(self) -> Split:
        """The training split."""
        ...

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those that must have features."""
        ...

    def batch(self, items_B: NDArray[np.int64]) -> tuple[FeatureBatch, Target]:
        """Training items with their truth, on the device; may draw from torch's global generator."""
        ...

    def validate(self, head: Head) -> Numbers:
        """`val_loss`, and `val_NAME` of the number that counts where it is defined; the head's mode is put back."""
        ...


def fit(
    head: Head,
    data: TrainingData,
    settings: Settings,
    *,
    on_epoch: Callable[[Numbers], None] = lambda row: None,
    checkpoint: Checkpoint | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Fitted:
    """Train `head` in place; it ends with the last epoch's parameters, the best are returned.

    The best epoch has the highest number that validation gives, then the lower loss there, then is the earlier.

    Args:
        on_epoch: called with each row of the history, first with those of an earlier, interrupted call.
        checkpoint: where to go on from, and where to leave what to go on from.
        stop: asked before each epoch.

    Raises:
        ValueError: no training or no validation item has features; the checkpoint is damaged or of other settings.
        TrainingDiverged: a loss is NaN or infinite; names the items.
        TrainingStopped: `stop` said so.
    """
    train = data.train
    for split in data.splits:
        if not len(split.present):
            why = "; ".join(sorted(set(split.absent.values()))[:3])
            raise ValueError(f"none of the {len(split.items)} items of {split.name} has features ({why})")
    used_R = np.unique(train.rows_NT[train.rows_NT >= 0])
    head.fit_statistics(_used_rows(train.visual, used_R), _used_rows(train.audio, used_R))
    head.to(settings.device).train()
    with _own_generators(settings):
        moving = Moving(
            head=head,
            stepper=optimiser(
                settings.optimiser, head, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
            ),
            scaler=torch.amp.GradScaler(torch.device(settings.device).type, enabled=settings.precision == "float16"),
            averaged=None if settings.ema is None else averaged(head, settings.ema),
            order=torch.Generator().manual_seed(settings.seed),
            device=settings.device,
        )
        done = Progress() if checkpoint is None else checkpoint.resume(moving)
        for row in done.history:
            on_epoch(row)
        while not _finished(done, settings):
            if stop():
                if checkpoint is not None and done.history:
                    checkpoint.write(moving, done)
                raise TrainingStopped(f"stopped after {len(done.history)} of at most {settings.epochs} epochs")
            row = _epoch(moving, data, settings, done)
            if checkpoint is not None and checkpoint.due():
                checkpoint.write(moving, done)
            on_epoch(row)
    return Fitted(state=done.best_state, best_epoch=done.best_epoch, history=tuple(done.history))


@contextlib.contextmanager
def _own_generators(settings: Settings) -> Iterator[None]:
    """Dropout draws from torch's global generators: seeded for the training, the caller's put back after it."""
    on_gpu = torch.device(settings.device).type == "cuda"
    with torch.random.fork_rng(devices=[settings.device] if on_gpu else []):
        torch.manual_seed(settings.seed)
        yield


def _finished(done: Progress, settings: Settings) -> bool:
    run = len(done.history)
    return run >= settings.epochs or (settings.patience > 0 and run - done.best_epoch >= settings.patience)


def _epoch(moving: Moving, data: TrainingData, settings: Settings, done: Progress) -> Numbers:
    """One pass over the training items and one over validation; adds its row to `done` and returns it."""
    began_s = time.perf_counter()
    head, epoch = moving.head, len(done.history) + 1
    row: Numbers = {"epoch": epoch} | _steps(moving, data, settings, epoch) | head.scalars()
    judged = head if moving.averaged is None else cast(Head, moving.averaged.module)
    row |= data.validate(judged)
    best = done.history[done.best_epoch - 1] if done.best_epoch else None
    if best is None or settings.keep == "last" or _validation_rank(row) > _validation_rank(best):
        done.best_epoch = epoch
        done.best_state = {name: tensor.detach().cpu().clone() for name, tensor in judged.state_dict().items()}
    row["seconds"] = round(time.perf_counter() - began_s, 4)
    done.history.append(row)
    return row


def _steps(moving: Moving, data: TrainingData, settings: Settings, epoch: int) -> Numbers:
    """The steps of an epoch: its loss, and the learning rate it ended with."""
    head, stepper, scaler, train = moving.head, moving.stepper, moving.scaler, data.train
    steps = -(-len(train.present) // settings.batch_size)
    rate, loss_sum, loss_count = 0.0, 0.0, 0.0
    shuffled = train.present[torch.randperm(len(train.present), generator=moving.order).numpy()]
    for step in range(steps):
        items = shuffled[step * settings.batch_size : (step + 1) * settings.batch_size]
        share = schedule(settings.schedule).share(
            step=(epoch - 1) * steps + step,
            total=settings.epochs * steps,
            epoch=epoch,
            warmup_steps=settings.warmup_epochs * steps,
        )
        rate = settings.learning_rate * share
        for group in stepper.param_groups:
            group["lr"] = rate
        sums_B, counts_B = _loss(head, *data.batch(items), settings)
        loss = sums_B.sum() / counts_B.sum()
        if not math.isfinite(loss.item()):
            raise _diverged(train, items, sums_B, epoch)
        stepper.zero_grad(set_to_none=True)
        torch.autograd.backward(scaler.scale(loss))
        if settings.clip_norm is not None:
            scaler.unscale_(stepper)
            nn.utils.clip_grad_norm_(head.parameters(), settings.clip_norm)
        scaler.step(stepper)
        scaler.update()
        if moving.averaged is not None:
            moving.averaged.update_parameters(head)
        loss_sum += float(sums_B.detach().double().sum())
        loss_count += float(counts_B.sum())
    return {"train_loss": loss_sum / loss_count, "learning_rate": rate}


def _validation_rank(row: Numbers) -> tuple[float, float]:
    """Orders epochs by their validation: the number that counts, then the lower loss."""
    return next((row[k] for k in row if k.startswith("val_") and k != "val_loss"), 0.0), -row["val_loss"]


def _loss(head: Head, batch: FeatureBatch, target: Target, settings: Settings) -> tuple[Tensor, Tensor]:
    """(B,) float32 sums and counts of the head's loss.

    In reduced precision the loss is computed under autocast, whose list keeps losses and softmax in float32.
    """
    with torch.autocast(
        torch.device(settings.device).type,
        dtype=torch.float16 if settings.precision == "float16" else torch.bfloat16,
        enabled=settings.precision != "float32",
    ):
        sums_B, counts_B = head.loss(batch, target)
    return sums_B.float(), counts_B


def _used_rows(rows: Modal | None, used_R: NDArray[np.int64]) -> Modal | None:
    """The rows, of which those that no item of the split uses count as not valid."""
    if rows is None:
        return None
    valid_R = np.zeros(len(rows.valid), dtype=bool)
    valid_R[used_R] = rows.valid[used_R]
    return Modal(values=rows.values, valid=valid_R)


def _diverged(train: Split, items: NDArray[np.int64], sums_B: Tensor, epoch: int) -> TrainingDiverged:
    bad = [train.items[int(i)].id for i, s in zip(items, sums_B.tolist(), strict=True) if not math.isfinite(s)]
    named = ", ".join(bad[:10]) + (f" and {len(bad) - 10} more" if len(bad) > 10 else "")
    return TrainingDiverged(
        f"epoch {epoch}: the loss is NaN or infinite for {len(bad)} of {len(items)} items of the batch ({named}); "
        "nothing was written. Lower --lr, or look at these items' features with `avel store verify`"
    )
