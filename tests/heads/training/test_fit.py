"""The training loop equals one written out by hand, step by step, for every setting that changes a step."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from catalog.dataset import Dataset
from catalog.store.modal import Modal
from heads.blocks.segment_head import SegmentHead
from heads.data.split import Split, read_split
from heads.features import FeatureBatch
from heads.training.fit import fit
from heads.training.segment_task import SegmentTask
from heads.training.settings import Settings

# A gradient's norm is about 1 here: every step is clipped, and by another factor than the one before it.
CLIP = 0.2
PLAIN: dict[str, Any] = {"epochs": 3, "batch_size": 5, "learning_rate": 0.05, "weight_decay": 0.0, "patience": 0}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "seed": {"seed": 4},
    "clip_norm": {"clip_norm": CLIP},
    "weight_decay": {"weight_decay": 0.5},
    "adam": {"optimiser": "adam", "weight_decay": 0.5},
    "adamw-weights": {"optimiser": "adamw-weights", "weight_decay": 0.5},
    "cosine": {"schedule": "cosine"},
    "one-cycle": {"schedule": "one-cycle"},
    "warm-up": {"schedule": "warmup-cosine", "warmup_epochs": 2},
    "ema": {"ema": 0.7},
    "all": {"clip_norm": CLIP, "weight_decay": 0.5, "schedule": "warmup-cosine", "warmup_epochs": 1, "ema": 0.7},
}


class Centred(SegmentHead):
    """A linear map of centred audio features behind dropout, with norms that "adamw-weights" does not decay."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(5))
        self.drop = nn.Dropout(0.25)
        self.norm = nn.LayerNorm(5)
        self.classify = nn.Linear(5, 4)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def fit_statistics(self, visual: Modal | None, audio: Modal | None) -> None:
        assert audio is not None
        self.get_buffer("centre").copy_(torch.from_numpy(audio.values[audio.valid].mean(axis=0, dtype=np.float64)))

    def forward(self, batch: FeatureBatch) -> Tensor:
        assert batch.audio is not None
        logits_BTK: Tensor = self.classify(self.norm(self.drop(batch.audio - self.get_buffer("centre"))))
        return logits_BTK


@pytest.fixture(scope="module")
def splits(planted: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Split, Split]:
    data: Dataset = planted.dataset(items_a_class=8)
    # One training item has no features: it is never in a batch, and the steps are those of the eleven others.
    store = planted.store(tmp_path_factory.mktemp("planted") / "store", data, missing=["video-002"])
    train, val = (read_split(store, "descriptors-1s", data, name) for name in ("train", "val"))
    return data, train, val


def rate(schedule: str, step: int, total: int, warm_epochs_steps: int) -> float:
    """The share of the learning rate, from the words of `heads.training.optim`."""
    if schedule == "constant":
        return 1.0
    if schedule == "warmup-cosine":
        warm, floor = warm_epochs_steps, 1e-4
        if step < warm:
            return step / (warm - 1)
    else:
        warm, floor = round(total * {"cosine": 0.1, "one-cycle": 0.3}[schedule]), 0.01
        if step < warm:
            return (step + 1) / warm
    return float(floor + (1 - floor) * (1 + np.cos(np.pi * (step - warm) / (total - warm))) / 2)


def by_hand(data: Dataset, train: Split, settings: Settings) -> tuple[dict[str, Tensor], list[float]]:
    """The parameters (averaged where asked for) after the last epoch, and each epoch's training loss."""
    assert train.audio is not None
    audio_NTD = torch.from_numpy(train.audio.values[np.maximum(train.rows_NT, 0)]).float()
    label_N = [data.class_index(item.events[0].label) for item in train.items]
    event_NT = torch.tensor(
        [[item.events[0].start_s <= t < item.events[0].end_s for t in range(10)] for item in train.items]
    )
    classes_NT = torch.where(event_NT, torch.tensor(label_N)[:, None], 3)
    kept = [n for n, item in enumerate(train.items) if item.video_id != "video-002"]

    head = Centred()
    head.centre = audio_NTD[kept].double().mean(dim=(0, 1)).float()
    weights = [head.classify.weight] if settings.optimiser == "adamw-weights" else list(head.parameters())
    others = [p for p in head.parameters() if all(p is not weight for weight in weights)]
    kind = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.AdamW
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": settings.weight_decay}]
    groups += [{"params": others, "weight_decay": 0.0}] if others else []
    stepper = kind(groups, lr=1.0)
    mean = {name: p.detach().clone() for name, p in head.named_parameters()}
    order = torch.Generator().manual_seed(settings.seed)
    steps = -(-len(kept) // settings.batch_size)
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        for epoch in range(settings.epochs):
            shuffled, epoch_loss = torch.tensor(kept)[torch.randperm(len(kept), generator=order)], 0.0
            for step in range(steps):
                items = shuffled[step * settings.batch_size :][: settings.batch_size]
                share = rate(
                    settings.schedule, epoch * steps + step, settings.epochs * steps, settings.warmup_epochs * steps
                )
                for group in stepper.param_groups:
                    group["lr"] = settings.learning_rate * share
                logits = head(
                    FeatureBatch.of(None, audio_NTD[items], torch.ones(audio_NTD[items].shape[:2], dtype=torch.bool))
                )
                loss = nn.functional.cross_entropy(logits.flatten(0, 1), classes_NT[items].flatten())
                stepper.zero_grad()
                torch.autograd.backward(loss)
                if settings.clip_norm is not None:
                    nn.utils.clip_grad_norm_(head.parameters(), settings.clip_norm)
                stepper.step()
                if settings.ema is not None:
                    for name, p in head.named_parameters():
                        mean[name] = settings.ema * mean[name] + (1 - settings.ema) * p.detach()
                epoch_loss += loss.item() * len(items) / len(kept)
            losses.append(epoch_loss)
    return (mean if settings.ema is not None else {name: p.detach() for name, p in head.named_parameters()}), losses


@pytest.mark.parametrize("case", CASES)
def test_fit_equals_the_loop_written_out_by_hand(case: str, splits: tuple[Dataset, Split, Split]) -> None:
    data, train, val = splits
    settings = Settings(**(PLAIN | {"keep": "last"} | CASES[case]))
    fitted = fit(Centred(), SegmentTask(data, settings).training_data(train, val), settings)
    wanted, losses = by_hand(data, train, settings)
    # Sums in another order differ in the last bits of float32, and Adam's first steps magnify that of a small gradient.
    for name, tensor in wanted.items():
        torch.testing.assert_close(fitted.state[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda told: f"{case}: {told}")
    assert [row["train_loss"] for row in fitted.history] == pytest.approx(losses, rel=1e-5)
    if case != "plain":
        plain, _ = by_hand(data, train, Settings(**(PLAIN | {"keep": "last"})))
        parted = max(float((plain[name] - tensor).abs().max()) for name, tensor in wanted.items())
        assert parted > 1e-2, "the test needs a setting that changes what is learned"
