"""Heads trained as they were published: their own loss, optimiser and schedule, on planted features."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from catalog.dataset import Dataset
from catalog.store.reader import FeatureStore
from heads.registry import names, spec
from heads.training.experiment import Experiment, Materials
from heads.training.optim import averaged, optimiser, schedule
from heads.training.run import train_run
from heads.training.settings import Settings, published_settings

TRAINED = [n for n in names() if spec(n).task == "segments" and not spec(n).needs_texts]
# Of the slow tests: their training takes seconds, and what could go wrong hangs on no head.
HEAVY = ("av_transformer", "cmbs")


def experiment(head: str, settings: Settings) -> Experiment:
    return Experiment(store="store", dataset="ave", root="root", recipe="descriptors-1s", head=head, settings=settings)


@pytest.fixture(scope="module")
def data(planted: ModuleType) -> Dataset:
    dataset: Dataset = planted.dataset()
    return dataset


@pytest.fixture(scope="module")
def store(planted: ModuleType, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    held: FeatureStore = planted.store(tmp_path_factory.mktemp("planted") / "store", data)
    return held


@pytest.mark.parametrize(
    "name", [n for n in TRAINED if n not in HEAVY] + [pytest.param(n, marks=pytest.mark.slow) for n in HEAVY]
)
def test_every_head_learns_by_its_own_loss(name: str, store: FeatureStore, data: Dataset) -> None:
    settings = replace(published_settings(name), epochs=4, batch_size=8, learning_rate=3e-3)
    run = train_run(experiment(name, settings), Materials(store=store, dataset=data))
    losses = [row["train_loss"] for row in run.record.history]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]


def test_head_that_needs_texts_says_so(store: FeatureStore, data: Dataset) -> None:
    with pytest.raises(ValueError, match="class texts"):
        train_run(experiment("ov_avel", Settings()), Materials(store=store, dataset=data))


def test_rates_of_the_schedules() -> None:
    def rates(name: str, total: int) -> list[float]:
        return [schedule(name).share(step=step, total=total, epoch=step + 1) for step in range(total)]

    assert set(rates("constant", 10)) == {1.0}
    cosine = rates("cosine", 100)
    assert max(cosine) == cosine[9] == 1.0
    assert cosine[10:] == sorted(cosine[10:], reverse=True)
    psp = rates("psp", 200)
    assert [psp[59], psp[60], psp[120], psp[199]] == pytest.approx([1.0, 0.8, 0.64, 0.64])


def test_averaged_weights_are_the_mean_by_hand() -> None:
    head = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(head.weight, 1.0)
    mean = averaged(head, 0.9)
    step = optimiser("adam", head, learning_rate=0.1, weight_decay=0.0)
    assert isinstance(step, torch.optim.Adam)
    torch.nn.init.constant_(head.weight, 2.0)
    mean.update_parameters(head)
    assert mean.module.get_parameter("weight").item() == pytest.approx(1.1)
    assert head.weight.item() == 2.0
