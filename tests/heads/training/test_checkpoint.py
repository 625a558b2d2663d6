"""A training that was interrupted and goes on is the undisturbed one; a checkpoint of another is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from catalog.dataset import Dataset
from heads.data.split import Split, read_split
from heads.registry import build, configure, names, spec
from heads.spec import Head, HeadInput
from heads.training.checkpoint import FILE, Checkpoint, Moving, OtherTraining, Progress
from heads.training.fit import Fitted, TrainingStopped, fit
from heads.training.optim import averaged, optimiser
from heads.training.segment_task import SegmentTask
from heads.training.settings import Settings, published_settings

TRAINED = [n for n in names() if spec(n).task == "segments" and not spec(n).needs_texts]
# Of the slow tests: their training takes seconds, and what could go wrong hangs on no head.
HEAVY = ("av_transformer", "cmbs")

EPOCHS = 3


@dataclass(frozen=True)
class Splits:
    data: Dataset
    read: dict[str, Split]

    def fit(self, head: Head, settings: Settings, **more: Any) -> Fitted:
        return fit(
            head, SegmentTask(self.data, settings).training_data(self.read["train"], self.read["val"]), settings, **more
        )


@pytest.fixture(scope="module")
def splits(planted: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Splits:
    data: Dataset = planted.dataset(items_a_class=8)
    store = planted.store(tmp_path_factory.mktemp("planted") / "store", data)
    return Splits(data, {name: read_split(store, "descriptors-1s", data, name) for name in ("train", "val")})


def fresh(name: str) -> Head:
    config = configure(name, HeadInput(visual_shape=(6,), audio_shape=(5,), num_classes=4, modality="both"))
    return build(name, config, seed=3)


def after(epochs: int) -> Callable[[], bool]:
    asked = iter(range(1000))
    return lambda: next(asked) >= epochs


def numbers(fitted: Fitted) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in fitted.history]


def assert_equal(one: Fitted, two: Fitted) -> None:
    assert one.best_epoch == two.best_epoch
    assert numbers(one) == numbers(two)
    assert one.state.keys() == two.state.keys()
    assert all(torch.equal(tensor, two.state[name]) for name, tensor in one.state.items())


@pytest.mark.parametrize(
    "name", [n for n in TRAINED if n not in HEAVY] + [pytest.param(n, marks=pytest.mark.slow) for n in HEAVY]
)
def test_training_interrupted_twice_equals_undisturbed_bit_for_bit(name: str, splits: Splits, tmp_path: Path) -> None:
    settings = replace(published_settings(name), epochs=EPOCHS, batch_size=5, learning_rate=3e-3, ema=0.5, seed=1)
    whole_head, resumed_head = fresh(name), fresh(name)
    whole = splits.fit(whole_head, settings)
    for _ in range(2):
        torch.rand(5)  # the global generators are elsewhere in each process
        with pytest.raises(TrainingStopped):
            splits.fit(fresh(name), settings, checkpoint=Checkpoint(tmp_path, {"a": 1}), stop=after(1))
    told: list[float] = []
    resumed = splits.fit(
        resumed_head,
        settings,
        checkpoint=Checkpoint(tmp_path, {"a": 1}),
        on_epoch=lambda row: told.append(row["epoch"]),
    )
    assert_equal(whole, resumed)
    assert told == [1, 2, 3]
    # Not the best epoch's alone: where the training stands at its end is the same too.
    last = resumed_head.state_dict()
    assert all(torch.equal(tensor, last[key]) for key, tensor in whole_head.state_dict().items())


def test_early_stopping_counts_the_epochs_before_the_interruption(splits: Splits, tmp_path: Path) -> None:
    # Steps so small that nothing changes: the first epoch stays the best, and patience ends the training.
    settings = Settings(epochs=20, patience=4, learning_rate=1e-30, batch_size=6)
    with pytest.raises(TrainingStopped):
        splits.fit(fresh("linear"), settings, checkpoint=Checkpoint(tmp_path, {}), stop=after(3))
    resumed = splits.fit(fresh("linear"), settings, checkpoint=Checkpoint(tmp_path, {}))
    assert (resumed.best_epoch, len(resumed.history)) == (1, 5)
    # Killed between the last epoch and the run's folder: nothing is trained again.
    Checkpoint(tmp_path, {}).write(moving(fresh("linear")), progress_of(resumed))
    again = splits.fit(fresh("linear"), settings, checkpoint=Checkpoint(tmp_path, {}), stop=after(0))
    assert_equal(again, resumed)


def moving(head: Head, *, ema: float | None = None, scaled: bool = False) -> Moving:
    return Moving(
        head=head,
        stepper=optimiser("adamw", head, learning_rate=1e-3, weight_decay=0.0),
        scaler=torch.amp.GradScaler("cpu", enabled=scaled, init_scale=8.0),
        averaged=None if ema is None else averaged(head, ema),
        order=torch.Generator(),
        device="cpu",
    )


def progress_of(fitted: Fitted) -> Progress:
    return Progress(history=list(fitted.history), best_epoch=fitted.best_epoch, best_state=fitted.state)


def test_checkpoint_of_another_identity_names_every_field(tmp_path: Path) -> None:
    head = fresh("linear")
    Checkpoint(tmp_path, {"seed": 1, "ema": None, "gone": 2}).write(moving(head), Progress())
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    with pytest.raises(OtherTraining, match=r"\(seed: 1, now 3; ema: None, now 0.5; gone: 2, now None\).*--restart"):
        Checkpoint(tmp_path, {"seed": 3, "ema": 0.5}).resume(moving(head))
    assert all(torch.equal(tensor, before[name]) for name, tensor in head.state_dict().items())


def test_checkpoint_puts_the_loss_scale_back(tmp_path: Path) -> None:
    there = moving(fresh("linear"), scaled=True)
    parameter = next(there.head.parameters())
    torch.autograd.backward(there.scaler.scale(parameter.sum() * float("inf")))
    there.scaler.step(there.stepper)
    there.scaler.update()
    assert there.scaler.get_scale() == 4.0, "an overflow halves the scale"
    Checkpoint(tmp_path, {}).write(there, Progress())
    here = moving(fresh("linear"), scaled=True)
    Checkpoint(tmp_path, {}).resume(here)
    assert here.scaler.get_scale() == 4.0


@pytest.mark.parametrize("kept", [0, 7, 200, -40])
def test_checkpoint_cut_short_is_told_as_damaged(kept: int, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, {})
    checkpoint.write(moving(fresh("linear")), Progress())
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"damaged .*--restart"):
        checkpoint.resume(moving(fresh("linear")))


def test_checkpoint_of_another_head_is_told_as_damaged(tmp_path: Path) -> None:
    Checkpoint(tmp_path, {}).write(moving(fresh("linear")), Progress())
    with pytest.raises(ValueError, match="damaged"):
        Checkpoint(tmp_path, {}).resume(moving(fresh("psp")))
    # One without averaged parameters cannot go on as one with them.
    with pytest.raises(ValueError, match="averaged parameters"):
        Checkpoint(tmp_path, {}).resume(moving(fresh("linear"), ema=0.5))


def test_checkpoint_of_other_averaged_parameters_is_told_as_damaged(tmp_path: Path) -> None:
    there = moving(fresh("linear"), ema=0.5)
    assert there.averaged is not None
    there.averaged.module.get_submodule("classify").weight = torch.nn.Parameter(torch.zeros(1))
    Checkpoint(tmp_path, {}).write(there, Progress())
    with pytest.raises(ValueError, match="not those of the head"):
        Checkpoint(tmp_path, {}).resume(moving(fresh("linear"), ema=0.5))


def test_checkpoint_of_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr("heads.training.checkpoint.FORMAT", 2)
        Checkpoint(tmp_path, {}).write(moving(fresh("linear")), Progress())
    with pytest.raises(ValueError, match="format 2, this version reads 1"):
        Checkpoint(tmp_path, {}).resume(moving(fresh("linear")))


def test_checkpoint_killed_while_it_is_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, head = Checkpoint(tmp_path, {}), fresh("linear")
    checkpoint.write(moving(head), Progress(history=[{"epoch": 1}]))

    def killed(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr("heads.training.checkpoint.save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(moving(head), Progress(history=[{"epoch": 1}, {"epoch": 2}]))
    assert checkpoint.resume(moving(fresh("linear"))).history == [{"epoch": 1}]


def test_saving_costs_at_most_its_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Made, asked, written from 10 s to 12 s, and asked again just before and when 2 s are 5 % of the time since.
    clock = iter([0.0, 0.0, 10.0, 12.0, 51.9, 52.0])
    monkeypatch.setattr("heads.training.checkpoint.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    checkpoint = Checkpoint(tmp_path, {})
    assert checkpoint.due(), "the first epoch is kept at once"
    checkpoint.write(moving(fresh("linear")), Progress())
    assert not checkpoint.due()
    assert checkpoint.due()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_training_on_a_gpu_in_reduced_precision_goes_on(precision: Any, splits: Splits, tmp_path: Path) -> None:
    settings = replace(
        published_settings("psp"), epochs=EPOCHS, batch_size=5, learning_rate=3e-3, device="cuda", precision=precision
    )
    whole = splits.fit(fresh("psp"), settings)
    with pytest.raises(TrainingStopped):
        splits.fit(fresh("psp"), settings, checkpoint=Checkpoint(tmp_path, {}), stop=after(1))
    resumed = splits.fit(fresh("psp"), settings, checkpoint=Checkpoint(tmp_path, {}))
    assert whole.history[-1]["train_loss"] < whole.history[0]["train_loss"]
    assert [row["train_loss"] for row in resumed.history] == pytest.approx(
        [row["train_loss"] for row in whole.history], rel=1e-2
    )  # a GPU's sums are not in one order
