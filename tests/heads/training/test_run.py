"""Training on planted features: it learns what is there, gives equal bits for equal seeds, and says what is wrong."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from catalog.dataset import Dataset
from catalog.errors import AvelError
from catalog.event import Event
from catalog.store.reader import FeatureStore
from heads.blocks.segment_head import SegmentHead
from heads.data.split import read_split
from heads.evaluation.evaluate import evaluate
from heads.features import FeatureBatch
from heads.metrics.ave import accuracy
from heads.registry import build, read_config
from heads.runs.folder import read_run, write_run
from heads.spec import Head, Modality
from heads.training.experiment import Experiment, Materials
from heads.training.fit import fit
from heads.training.run import TrainedRun, train_run
from heads.training.segment_task import SegmentTask
from heads.training.settings import Settings


def trained_on(
    store: FeatureStore, data: Dataset, *, modality: Modality = "both", recipe: str = "descriptors-1s", **settings: Any
) -> TrainedRun:
    wanted = {"epochs": 30, "learning_rate": 1e-2, "batch_size": 8} | settings
    experiment = Experiment(
        store="store",
        dataset="ave",
        root="root",
        recipe=recipe,
        head="linear",
        modality=modality,
        settings=Settings(**wanted),
    )
    return train_run(experiment, Materials(store=store, dataset=data))


@pytest.fixture(scope="module")
def data(planted: ModuleType) -> Dataset:
    dataset: Dataset = planted.dataset()
    return dataset


@pytest.fixture(scope="module")
def store(planted: ModuleType, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    held: FeatureStore = planted.store(tmp_path_factory.mktemp("planted") / "store", data)
    return held


def test_train_planted_signal_both_beats_each_modality_and_baselines(store: FeatureStore, data: Dataset) -> None:
    found = {m: trained_on(store, data, modality=m) for m in ("both", "audio", "visual")}
    scores = {m: run.record.metrics["test"]["accuracy"] for m, run in found.items()}
    # Each modality confuses one pair of three classes; together they do not.
    assert scores["both"] >= 0.95
    assert max(scores["audio"], scores["visual"]) <= scores["both"] - 0.05
    baselines = found["both"].record.baselines
    assert sorted(baselines) == ["always_event", "class_known", "majority"]
    assert scores["both"] > max(baselines.values()) + 0.2
    assert not found["both"].warnings


def test_train_equal_seeds_equal_bits_whatever_the_global_generator_does(store: FeatureStore, data: Dataset) -> None:
    torch.manual_seed(1)
    one = trained_on(store, data, epochs=4, seed=7)
    torch.manual_seed(2)
    two, other = trained_on(store, data, epochs=4, seed=7), trained_on(store, data, epochs=4, seed=8)
    assert all(torch.equal(tensor, two.state[name]) for name, tensor in one.state.items())
    assert [row["val_loss"] for row in one.record.history] == [row["val_loss"] for row in two.record.history]
    assert not torch.equal(one.state["classify.weight"], other.state["classify.weight"])


def test_train_best_epoch_on_validation_is_what_is_kept(tmp_path: Path, planted: ModuleType, data: Dataset) -> None:
    # So noisy, and with steps so large, that validation goes up and down: the best epoch is not the last.
    rows = {item.video_id: planted.rows_of(item, planted.recipe(), noise=8) for item in data.items}
    held = planted.store(tmp_path / "store", data, rows=rows)
    record = trained_on(held, data, epochs=30, patience=0, learning_rate=0.3).record
    ranks = [(row["val_accuracy"], -row["val_loss"]) for row in record.history]
    best = ranks.index(max(ranks)) + 1
    assert len(ranks) == 30
    assert best < 30, "the test needs a best epoch that is not the last"
    assert record.training["best_epoch"] == best
    assert record.metrics["val"]["accuracy"] == record.history[best - 1]["val_accuracy"]
    assert record.metrics["val"]["loss"] == pytest.approx(record.history[best - 1]["val_loss"])

    stopped = trained_on(held, data, epochs=30, patience=5, learning_rate=0.3).record
    assert len(stopped.history) == stopped.training["best_epoch"] + 5

    last = trained_on(held, data, epochs=30, patience=5, learning_rate=0.3, keep="last").record
    assert last.training["best_epoch"] == len(last.history) == 30
    assert last.metrics["val"]["accuracy"] == record.history[-1]["val_accuracy"] == last.history[-1]["val_accuracy"]


class Forgetful(SegmentHead):
    """A head whose forward pass draws from the global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Linear(5, 4)
        nn.init.zeros_(self.classify.weight)
        nn.init.zeros_(self.classify.bias)
        self.drop = nn.Dropout(0.5)

    def forward(self, batch: FeatureBatch) -> Tensor:
        logits: Tensor = self.classify(self.drop(batch.audio))
        return logits


def test_fit_seed_decides_order_and_dropout(store: FeatureStore, data: Dataset) -> None:
    splits = [read_split(store, "descriptors-1s", data, name) for name in ("train", "val")]

    def fitted(seed: int, head: Head) -> Tensor:
        settings = Settings(epochs=2, batch_size=8, seed=seed)
        torch.rand(seed + 1)  # the global generator is elsewhere each time
        return fit(head, SegmentTask(data, settings).training_data(*splits), settings).state["classify.weight"]

    config = read_config("linear", {"visual_width": 6, "audio_width": 5, "num_classes": 4, "modality": "both"})
    # Equal parameters to begin with: only the order of items is left to differ.
    one, two, other = (fitted(seed, build("linear", config)) for seed in (7, 7, 8))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    torch.manual_seed(0)
    one = fitted(7, Forgetful())
    torch.manual_seed(1)
    assert torch.equal(one, fitted(7, Forgetful()))


def test_train_test_features_do_not_touch_the_checkpoint(tmp_path: Path, planted: ModuleType, data: Dataset) -> None:
    def store_with(noise: float, name: str) -> FeatureStore:
        rows = {i.video_id: planted.rows_of(i, planted.recipe(), noise=noise) for i in data.split("test")}
        held: FeatureStore = planted.store(tmp_path / name, data, rows=rows)
        return held

    one, two = (trained_on(store_with(noise, name), data, epochs=5) for noise, name in ((0.1, "a"), (50.0, "b")))
    assert all(torch.equal(tensor, two.state[name]) for name, tensor in one.state.items())
    assert one.record.metrics["test"]["accuracy"] > two.record.metrics["test"]["accuracy"]


def test_train_run_folder_read_again_gives_the_same_predictions(
    store: FeatureStore, data: Dataset, tmp_path: Path
) -> None:
    run = trained_on(store, data, epochs=5)
    write_run(tmp_path / "run", run.record, run.state, {})
    again = read_run(tmp_path / "run")
    found = evaluate(again.head, read_split(store, "descriptors-1s", data, "test"), data)
    assert found.rows == run.evaluations["test"].rows
    assert found.metrics == again.record.metrics["test"]
    predicted, true = (np.array([row[key] for row in found.rows]) for key in ("labels_pred", "labels_true"))
    assert accuracy(predicted, true) == again.record.metrics["test"]["accuracy"]


def test_train_absent_training_items_are_left_out_and_test_ones_counted(
    tmp_path: Path, planted: ModuleType, data: Dataset
) -> None:
    gone = [item.video_id for item in (*data.split("train")[:2], data.split("test")[0])]
    held = planted.store(tmp_path / "store", data, quarantined=gone[:1], missing=gone[1:])
    run = trained_on(held, data, epochs=3, batch_size=1)  # an absent item would be a batch of nothing: 0 / 0
    assert run.record.training["train_items_left_out"] == 2
    assert run.record.metrics["test"]["items"] == 15
    assert run.record.metrics["test"]["items_without_features"] == 1
    assert run.warnings == (
        "train: 2 of 30 items without features, left out of training (not in the store 1, quarantined: empty_file 1)",
        "test: 1 of 15 items without features, counted as background (not in the store 1)",
    )


def test_train_no_features_at_all_raises(tmp_path: Path, planted: ModuleType, data: Dataset) -> None:
    held = planted.store(tmp_path / "store", data, quarantined=[video.id for video in data.videos])
    with pytest.raises(ValueError, match="none of the 30 items of train has features"):
        trained_on(held, data)


def test_train_validation_without_features_raises(tmp_path: Path, planted: ModuleType, data: Dataset) -> None:
    held = planted.store(tmp_path / "store", data, missing=[item.video_id for item in data.split("val")])
    with pytest.raises(ValueError, match="none of the 15 items of val has features"):
        trained_on(held, data)


def test_train_loss_that_overflows_names_the_items(store: FeatureStore, data: Dataset) -> None:
    with pytest.raises(AvelError, match=r"epoch \d+: the loss is NaN or infinite for \d+ of \d+ items .*\d{5}"):
        # Decoupled decay multiplies the parameters by 1 - 1e8 a step: infinite within an epoch of 30 steps.
        trained_on(store, data, learning_rate=1e4, weight_decay=1e4, batch_size=1)


def test_train_segments_with_one_modality_missing_still_count(
    tmp_path: Path, planted: ModuleType, data: Dataset
) -> None:
    lost = np.ones(10, dtype=bool)
    rows = {i.video_id: planted.without(planted.rows_of(i, planted.recipe()), audio=lost) for i in data.items[::3]}
    run = trained_on(planted.store(tmp_path / "store", data, rows=rows), data)
    assert run.record.metrics["test"]["items_without_features"] == 0
    assert run.record.metrics["test"]["accuracy"] > 0.85
    assert np.isfinite(run.record.metrics["test"]["loss"])


def test_train_half_second_grid_says_that_numbers_are_not_the_protocols(
    tmp_path: Path, planted: ModuleType, data: Dataset
) -> None:
    half = planted.recipe("half", window_s="1/2", hop_s="1/2")
    run = trained_on(planted.store(tmp_path / "store", data, half), data, recipe="half", epochs=3)
    assert run.record.metrics["test"]["segments"] == 15 * 20
    assert len(run.warnings) == 1
    assert "segments last 0.5 s every 0.5 s" in run.warnings[0]


def test_train_several_labels_learns_each_class(tmp_path: Path, planted: ModuleType, data: Dataset) -> None:
    items = []
    for item in data.items:
        label = data.classes[(data.class_index(item.events[0].label) + 1) % 3]
        other = Event(start_s=Fraction(1), end_s=Fraction(4), label=label)
        items.append(replace(item, events=(*item.events, other), category=None))
    dense = replace(data, items=tuple(items), num_segments=None, background=None)
    run = trained_on(planted.store(tmp_path / "store", dense), dense, epochs=60)
    metrics = run.record.metrics["test"]
    assert run.record.config["num_classes"] == 3
    assert metrics["segment_map"] > run.record.baselines["majority"] + 0.4
    assert metrics["segment_micro_f1"] > 0.8
    assert "val_accuracy" not in run.record.history[0]
    best = max(run.record.history, key=lambda row: (row["val_segment_map"], -row["val_loss"]))
    assert run.record.training["best_epoch"] == best["epoch"]
    assert run.record.metrics["val"]["segment_map"] == best["val_segment_map"]


def test_train_data_set_without_test_split_reports_validation(store: FeatureStore, data: Dataset) -> None:
    short = replace(data, items=(*data.split("train"), *data.split("val")))
    run = trained_on(store, short, epochs=2)
    assert list(run.record.metrics) == ["val"]
    assert run.record.baselines["majority"] == run.baselines["val"]["majority"]["accuracy"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate must be at most 1000000"),
        ({"learning_rate": 1e38}, "learning_rate must be at most 1000000"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_settings_out_of_range_raise(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Settings(**settings)
