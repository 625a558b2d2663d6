"""Published steps of the rate, and averaged weights in a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from catalog.dataset import Dataset
from heads.data.split import Split, read_split
from heads.data.targets import truth
from heads.evaluation.evaluate import mean_loss
from heads.evaluation.predict import logits
from heads.registry import build, configure, names, spec
from heads.spec import Head, HeadInput
from heads.training.checkpoint import differences
from heads.training.fit import Fitted, fit
from heads.training.optim import optimiser, schedule
from heads.training.segment_task import SegmentTask
from heads.training.settings import Settings, published_settings


@pytest.fixture(scope="module")
def splits(planted: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Split, Split]:
    data: Dataset = planted.dataset(items_a_class=8)
    store = planted.store(tmp_path_factory.mktemp("planted") / "store", data)
    train, val = (read_split(store, "descriptors-1s", data, name) for name in ("train", "val"))
    return data, train, val


def trained(splits: tuple[Dataset, Split, Split], head: Head, **how: Any) -> Fitted:
    data, train, val = splits
    settings = Settings(**({"epochs": 4, "batch_size": 5, "patience": 0} | how))
    return fit(head, SegmentTask(data, settings).training_data(train, val), settings)


def fresh(name: str = "linear") -> Head:
    config = configure(name, HeadInput(visual_shape=(6,), audio_shape=(5,), num_classes=4, modality="both"))
    return build(name, config, seed=3)


def test_cmbs_halves_the_rate_after_epochs_10_20_and_30() -> None:
    steps = schedule(published_settings("cmbs").schedule)
    shares = [steps.share(step=0, total=1, epoch=epoch) for epoch in range(1, 201)]
    assert shares == [1.0] * 10 + [0.5] * 10 + [0.25] * 10 + [0.125] * 170


def test_names_of_earlier_versions_are_the_steps_that_they_stood_for() -> None:
    assert Settings(schedule="psp") == Settings(schedule=published_settings("psp").schedule)
    assert Settings(schedule="cmbs").schedule == published_settings("cmbs").schedule == "0.5@10,20,30"
    assert schedule("psp").steps == (60, 120)
    # An interrupted training of an earlier version goes on.
    assert differences({"schedule": "psp", "seed": 1}, {"schedule": "0.8@60,120", "seed": 1}) == []
    assert differences({"schedule": "psp"}, {"schedule": "cosine"}) == ["schedule: 0.8@60,120, now cosine"]


@pytest.mark.parametrize("text", ["steep", "0.5", "0.5@", "2@10", "0.5@10,", "-0.5@10", "0.5@10@20", "1e-1@3"])
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"schedule must be one of constant, .* or steps such as"):
        Settings(schedule=text)


def test_warmup_cosine_equals_the_published_rates(shared: Path) -> None:
    wanted = np.load(shared / "parity" / "heads" / "decode" / "decode.npz", allow_pickle=False)["lr/values"]
    rates = [1e-4 * schedule("warmup-cosine").share(step=k, total=360, epoch=1, warmup_steps=40) for k in range(361)]
    np.testing.assert_allclose(rates, wanted, rtol=1e-12)


def test_warmup_cosine_of_one_warm_step_or_none_divides_by_nothing() -> None:
    assert schedule("warmup-cosine").share(step=0, total=5, epoch=1, warmup_steps=1) == 0.0
    assert schedule("warmup-cosine").share(step=0, total=5, epoch=1) == 1.0
    assert schedule("warmup-cosine").share(step=4, total=5, epoch=1, warmup_steps=9) == 0.5


def test_adamw_weights_decays_what_multiplies_and_nothing_else() -> None:
    class Various(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 4)
            self.conv = nn.Conv1d(4, 4, 3)
            self.attention = nn.MultiheadAttention(4, 2)
            self.recurrent = nn.LSTM(4, 2)
            self.norm = nn.LayerNorm(4)
            self.table = nn.Embedding(5, 4)
            self.scale = nn.Parameter(torch.ones(1, 4, 1))
            self.frozen = nn.Linear(2, 2).requires_grad_(False)

    head = Various()
    # With no gradient but zero, a step shrinks what decays, by rate x decay.
    before = {name: p.detach().clone().fill_(2.0) for name, p in head.named_parameters()}
    head.load_state_dict(before)
    for p in head.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    optimiser("adamw-weights", head, learning_rate=0.5, weight_decay=0.1).step()
    shrunk = {name for name, p in head.named_parameters() if not torch.equal(p, before[name])}
    assert shrunk == {
        *("linear.weight", "conv.weight", "attention.in_proj_weight", "attention.out_proj.weight"),
        *("recurrent.weight_ih_l0", "recurrent.weight_hh_l0"),
    }
    torch.testing.assert_close(head.linear.weight, torch.full((4, 3), 1.9))


def test_every_published_schedule_exists() -> None:
    for name in names():
        schedule(published_settings(name).schedule)


def test_rate_of_an_epochs_last_step_is_in_the_history(splits: tuple[Dataset, Split, Split]) -> None:
    # Twelve items in batches of five: three steps an epoch, of 36; the cosine begins after four.
    history = trained(splits, fresh(), epochs=12, schedule="cosine", learning_rate=1e-2).history
    wanted = [1e-2 * schedule("cosine").share(step=3 * epoch - 1, total=36, epoch=epoch) for epoch in range(1, 13)]
    assert [row["learning_rate"] for row in history] == wanted


def test_averaged_weights_are_validated_and_kept_and_leave_the_training_alone(
    splits: tuple[Dataset, Split, Split],
) -> None:
    plain_head, averaged_head = fresh(), fresh()
    plain = trained(splits, plain_head, learning_rate=0.05)
    averaged = trained(splits, averaged_head, learning_rate=0.05, ema=0.9)
    assert [row["train_loss"] for row in plain.history] == [row["train_loss"] for row in averaged.history]
    assert [row["val_loss"] for row in plain.history] != [row["val_loss"] for row in averaged.history]
    last = averaged_head.state_dict()
    assert all(torch.equal(tensor, last[name]) for name, tensor in plain_head.state_dict().items())
    # What is kept is what was validated.
    data, _, val = splits
    averaged_head.load_state_dict(averaged.state)
    true = truth(data, val.items, val.recipe.grid, val.num_segments)
    loss = mean_loss(logits(averaged_head, val), true, val.mask_NT)
    assert loss == averaged.history[averaged.best_epoch - 1]["val_loss"]


def test_averaged_weights_of_a_training_are_the_slow_sum(splits: tuple[Dataset, Split, Split]) -> None:
    # One batch an epoch: a training of n epochs ends with the parameters after n steps.
    decay, mean = 0.75, fresh().state_dict()["classify.weight"].double()
    for steps in (1, 2, 3):
        head = fresh()
        trained(splits, head, epochs=steps, batch_size=12, learning_rate=0.05)
        mean = decay * mean + (1 - decay) * head.state_dict()["classify.weight"].double()
    kept = trained(splits, fresh(), epochs=3, batch_size=12, learning_rate=0.05, ema=decay)
    assert kept.best_epoch == 3, "the test needs a best epoch that is the last"
    torch.testing.assert_close(kept.state["classify.weight"].double(), mean, rtol=0, atol=1e-6)  # float32 sums


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow) if n in ("cmbs", "av_transformer") else n
        for n in names()
        if spec(n).task == "segments" and not spec(n).needs_texts
    ],
)
def test_every_head_learns_in_bfloat16_much_as_in_float32(name: str, splits: tuple[Dataset, Split, Split]) -> None:
    how = vars(replace(published_settings(name), epochs=2, batch_size=6, learning_rate=3e-3))
    whole, short = (trained(splits, fresh(name), **(how | {"precision": p})) for p in ("float32", "bfloat16"))
    assert all(tensor.dtype != torch.bfloat16 for tensor in short.state.values())
    losses = [[row["train_loss"] for row in run.history] for run in (whole, short)]
    assert losses[0] != losses[1], "nothing was computed in bfloat16"
    # Eight bits of mantissa: 0.4 % a number; the steps then part.
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"precision": "float16"}, "float16 needs a GPU"),
        ({"precision": "int8"}, "precision must be one of float32, bfloat16, float16"),
        ({"ema": 1.0}, "ema must be less than 1"),
    ],
)
def test_settings_that_cannot_be_raise(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Settings(**settings)
