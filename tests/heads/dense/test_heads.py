"""The laws of every dense head: padding, features not computed, order of items, training, restoring, resuming."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from catalog.store.modal import Modal
from heads import registry as model
from heads.data.device import DeviceSplit
from heads.data.targets import events_on_grid
from heads.dense.detect import MARGIN_SEGMENTS, outputs
from heads.dense.head import DenseHead
from heads.dense.output import DenseOutput
from heads.features import FeatureBatch, Target
from heads.spec import HeadInput, Modality
from heads.training.checkpoint import Checkpoint
from heads.training.event_task import EventTask
from heads.training.fit import Fitted, TrainingStopped, fit
from heads.training.settings import Settings, published_settings
from tests.heads import dense_planted as told

# Every point hangs on the whole item: attention to all, a mean over all.
SEE_ALL = ("unav", "tri_det")
DENSE_HEADS = [name for name in model.names() if model.spec(name).task == "events"]
# Training is the engine's and the task's: of the ordinary run one head of each network is enough.
TRAINED = [name if name in ("loco", "tri_det") else pytest.param(name, marks=pytest.mark.slow) for name in DENSE_HEADS]
# Small ones of these fields, where a head has them.
SMALL = {"width": 16, "hidden": 16, "class_width": 8, "levels": 3, "window": 4, "attention_window": 16}
WIDTH = 9  # of the planted features


def fresh(
    name: str,
    *,
    modality: Modality = "both",
    visual: int = 5,
    audio: int = 4,
    published_windows: bool = False,
    more: Mapping[str, int] | None = None,
) -> tuple[Any, DenseHead]:
    config = model.configure(
        name,
        HeadInput(
            visual_shape=(visual,),
            audio_shape=(audio,) if modality == "both" else None,
            num_classes=3,
            modality=modality,
        ),
    )
    fields = {field.name for field in dataclasses.fields(config)}
    kept = ("levels", "window", "attention_window") if published_windows else ()
    config = replace(
        config, **{key: v for key, v in SMALL.items() if key in fields and key not in kept} | dict(more or {})
    )
    head = model.build(name, config, seed=1)
    assert isinstance(head, DenseHead)
    opened(head)
    if model.spec(name).needs_texts:
        width = getattr(config, "text_width")  # noqa: B009  # of a plug-in's config
        head.set_texts(torch.randn(3, width, generator=torch.Generator().manual_seed(0)))
    return config, head


def opened(head: DenseHead) -> None:
    """Lets count what begins at nothing, where what goes wrong could not be seen: residual branches, moved windows."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for key, parameter in head.named_parameters():
            if ".adaptation." in key:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            if key.endswith(".scale") and float(parameter.abs().max()) < 1e-2:
                parameter.fill_(0.5)


def inputs(items: int, segments: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(segments)
    return (
        torch.randn(items, segments, 5, generator=generator),
        torch.randn(items, segments, 4, generator=generator),
    )


def at_points(output: DenseOutput, item: int) -> list[tuple[Tensor, Tensor]]:
    """Logits and offsets of an item's real points, level by level."""
    found = []
    for logits, offsets, mask in zip(
        torch.split(output.logits_BPK[item], list(output.counts)),
        torch.split(output.offsets_BPC2[item], list(output.counts)),
        torch.split(output.mask_BP[item], list(output.counts)),
        strict=True,
    ):
        found.append((logits[mask], offsets[mask]))
    return found


def assert_same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> None:
    for (logits, offsets), (other_logits, other_offsets) in zip(one, other, strict=True):
        torch.testing.assert_close(logits, other_logits, rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(offsets, other_offsets, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", DENSE_HEADS)
def test_padding_and_neighbours_change_nothing_whatever_the_length(name: str) -> None:
    _, head = fresh(name)
    head.eval()
    lengths = torch.tensor([37, 1, 20, 64])
    visual, audio = inputs(4, 80)
    mask = torch.arange(80) < lengths[:, None]
    visual[~mask], audio[~mask] = 1e6, float("nan")
    with torch.no_grad():
        whole = head(FeatureBatch.of(visual, audio, mask))
        for n, length in enumerate(lengths.tolist()):
            alone = head(
                FeatureBatch.of(visual[n : n + 1, :length], audio[n : n + 1, :length], mask[n : n + 1, :length])
            )
            assert [len(logits) for logits, _ in at_points(alone, 0)] == [-(-length // 2**level) for level in range(3)]
            assert_same(at_points(whole, n), at_points(alone, 0))


@pytest.mark.parametrize("name", DENSE_HEADS)
def test_what_was_not_computed_spreads_to_nothing(name: str) -> None:
    _, head = fresh(name)
    head.eval()
    visual, audio = inputs(2, 24)
    mask = torch.ones(2, 24, dtype=torch.bool)
    seen, heard = mask.clone(), mask.clone()
    seen[0, 3:9], heard[0, 15], seen[1], heard[1] = False, False, False, False
    filled = head(
        FeatureBatch.of(
            torch.where(seen[..., None], visual, 7.0), torch.where(heard[..., None], audio, -7.0), mask, seen, heard
        )
    )
    visual[~seen], audio[~heard] = float("nan"), float("nan")
    output = head(FeatureBatch.of(visual, audio, mask, seen, heard))
    for n in (0, 1):
        assert_same(at_points(output, n), at_points(filled, n))
    output.logits_BPK.sum().backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in head.parameters())


@pytest.mark.parametrize("name", DENSE_HEADS)
def test_restored_head_says_the_same(name: str) -> None:
    config, head = fresh(name)
    head.eval()
    again = model.restore(name, model.read_config(name, dataclasses.asdict(config)), head.state_dict())
    visual, audio = inputs(1, 16)
    mask = torch.ones(1, 16, dtype=torch.bool)
    one, other = head(FeatureBatch.of(visual, audio, mask)), again(FeatureBatch.of(visual, audio, mask))
    assert torch.equal(one.logits_BPK, other.logits_BPK)
    assert torch.equal(one.offsets_BPC2, other.offsets_BPC2)
    assert bool((one.offsets_BPC2 >= 0).all())
    assert model.spec(name).summary


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *((name, {}) for name in DENSE_HEADS if name not in SEE_ALL),
        pytest.param("loco", {"window": 10}, marks=pytest.mark.slow),
        pytest.param("loco", {"levels": 8}, marks=pytest.mark.slow),
    ],
)
def test_long_items_in_windows_are_as_in_one_pass(name: str, more: dict[str, int]) -> None:
    """At the margin that is used, with published windows of attention: nothing looks further."""
    _, head = fresh(name, published_windows=True, more=more)
    head.eval()
    length = 9000
    generator = torch.Generator().manual_seed(0)
    values = {width: torch.randn(length, width, generator=generator).numpy() for width in (5, 4)}
    valid_R, rows_NT = np.ones(length, dtype=bool), np.arange(length)[None]
    base = told.split(told.dataset(videos=3), "train")
    split = replace(
        base,
        items=base.items[:1],
        visual=Modal(values=values[5], valid=valid_R),
        audio=Modal(values=values[4], valid=valid_R),
        rows_NT=rows_NT,
        counted_NT=rows_NT >= 0,
    )
    args = (DeviceSplit(split, None, "cpu"), np.array([0]), np.array([length]), "cpu")
    with torch.inference_mode():
        whole = outputs(head, *args, window=10**6)
        parts = outputs(head, *args, window=3 * MARGIN_SEGMENTS)
    assert whole.counts == parts.counts
    torch.testing.assert_close(parts.logits_BPK, whole.logits_BPK, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(parts.offsets_BPC2, whole.offsets_BPC2, rtol=1e-4, atol=1e-4)


def trained(name: str, head: DenseHead, *, videos: int = 24, **how: Any) -> tuple[Fitted, Any]:
    """On planted features of both modalities: sound is the picture's features again."""
    data = told.dataset(videos=videos)
    splits = {which: told.split(data, which) for which in ("train", "val", "test")}
    splits = {which: replace(split, audio=split.visual) for which, split in splits.items()}
    extra = {key: how.pop(key) for key in ("checkpoint", "stop") if key in how}
    settings = replace(published_settings(name), batch_size=3, learning_rate=2e-3, ema=0.5, patience=0, **how)
    return fit(head, EventTask(data, settings).training_data(splits["train"], splits["val"]), settings, **extra), (
        data,
        splits,
    )


@pytest.mark.parametrize("name", TRAINED)
def test_every_dense_head_learns_and_is_judged(name: str) -> None:
    _, head = fresh(name, visual=WIDTH, audio=WIDTH)
    _, untrained = fresh(name, visual=WIDTH, audio=WIDTH)
    fitted, (data, splits) = trained(name, head, epochs=6, schedule="constant", warmup_epochs=0)
    assert all(math.isfinite(row["train_loss"]) for row in fitted.history)
    assert {"val_loss", "val_average_map"} <= set(fitted.history[0])
    head.load_state_dict(fitted.state)
    head.normaliser.mean.copy_(untrained.normaliser.mean)  # which has moved: losses compare by one
    task = EventTask(data, Settings()).training_data(splits["val"], splits["train"])
    assert task.validate(head)["val_loss"] < 0.8 * task.validate(untrained)["val_loss"]
    found = EventTask(data, Settings()).evaluate(head, splits["test"])
    assert found.metrics["items"] == len(splits["test"].items)
    assert {"whole_video", "mean_length"} == set(EventTask(data, Settings()).baselines(splits["test"]))
    assert EventTask.headline == "average_map"


@pytest.mark.parametrize("name", TRAINED)
def test_training_interrupted_equals_undisturbed_bit_for_bit(name: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {"videos": 12, "epochs": 3, "warmup_epochs": 1, "crop_share": 0.5, "max_segments": 40}
    whole, _ = trained(name, fresh(name, visual=WIDTH, audio=WIDTH)[1], **how)
    asked = iter(range(9))
    with pytest.raises(TrainingStopped):
        trained(
            name,
            fresh(name, visual=WIDTH, audio=WIDTH)[1],
            **how,
            checkpoint=Checkpoint(tmp_path, {}),
            stop=lambda: next(asked) >= 2,
        )
    torch.rand(7)
    resumed, _ = trained(name, fresh(name, visual=WIDTH, audio=WIDTH)[1], **how, checkpoint=Checkpoint(tmp_path, {}))
    assert [row["train_loss"] for row in whole.history] == [row["train_loss"] for row in resumed.history]
    assert all(torch.equal(tensor, resumed.state[key]) for key, tensor in whole.state.items())


def test_validation_loss_is_the_mean_of_each_item_alone() -> None:
    data = told.dataset(videos=12)
    train, val = told.split(data, "train"), told.split(data, "val")
    head = told.Told(sure=1.0)
    found = EventTask(data, Settings(batch_size=5)).training_data(train, val).validate(head)
    alone = []
    for n, item in enumerate(val.items):
        batch = val.batch(slice(n, n + 1))
        times, labels = (torch.from_numpy(values) for values in events_on_grid([item], data.classes, told.GRID))
        assert batch.visual is not None
        target = Target(events_BE2=times, event_labels_BE=labels)
        sums, _ = head.eval().loss(
            FeatureBatch.of(torch.from_numpy(batch.visual), None, torch.from_numpy(batch.mask_BT)), target
        )
        alone.append(sums.sum().item() / head.normaliser.mean.item())
    assert found["val_loss"] == pytest.approx(5 * sum(alone) / len(alone), rel=1e-5)


def test_a_head_that_knows_scores_all_of_it_and_one_without_features_misses_its_events() -> None:
    data = told.dataset(videos=30)
    split = told.split(data, "test")
    full = EventTask(data, Settings()).evaluate(told.Told(), split)
    assert full.metrics["average_map"] == pytest.approx(1.0)
    assert full.metrics["map_0.9"] == pytest.approx(1.0)
    assert full.metrics["average_map_strict"] == pytest.approx(1.0)
    assert full.metrics["events"] == sum(len(item.events) for item in split.items)
    row = full.rows[0]
    assert [event[:3] for event in row["events_true"]] == [
        [float(e.start_s), float(e.end_s), data.class_index(e.label)] for e in split.items[0].events
    ]
    duration_s = data.by_id[split.items[0].video_id].duration_s
    assert duration_s is not None
    assert row["duration_s"] == float(duration_s)
    # Without one item's features the events of that item are missed: recall, and with it AP, falls by their share.
    gone = next(item for item in split.items if item.events)
    less = EventTask(data, Settings()).evaluate(told.Told(), told.split(data, "test", absent=(gone.id,)))
    per_class = {label: [e for item in split.items for e in item.events if e.label == label] for label in data.classes}
    missed = {label: sum(e.label == label for e in gone.events) for label in data.classes}
    wanted = sum(1 - missed[label] / len(per_class[label]) for label in data.classes) / len(data.classes)
    assert less.metrics["average_map"] == pytest.approx(wanted)
    assert less.metrics["items_without_features"] == 1


def test_held_out_classes_have_numbers_of_their_own() -> None:
    data = replace(told.dataset(videos=30), unseen=("horn",))
    found = EventTask(data, Settings()).evaluate(told.Told(), told.split(data, "test")).metrics
    assert found["average_map_seen"] == found["average_map_unseen"] == pytest.approx(1.0)


def test_held_out_classes_do_not_choose_the_epoch() -> None:
    """A head that is right of the held-out class alone has nothing to show."""

    class OfHorns(told.Told):
        def forward(self, *given: Any) -> DenseOutput:
            output: DenseOutput = super().forward(*given)
            logits = output.logits_BPK.clone()
            logits[..., [k for k, label in enumerate(told.CLASSES) if label != "horn"]] = -9.0
            return replace(output, logits_BPK=logits)

    data = replace(told.dataset(videos=30), unseen=("horn",))
    splits = {which: told.split(data, which) for which in ("train", "val")}
    row = EventTask(data, Settings()).training_data(splits["train"], splits["val"]).validate(OfHorns())
    assert {name for name in row if name != "val_loss"} == {"val_average_map_seen"}
    assert row["val_average_map_seen"] == 0
    row = EventTask(data, Settings()).training_data(splits["train"], splits["val"]).validate(told.Told())
    assert row["val_average_map_seen"] == pytest.approx(1.0)


def test_a_split_without_events_has_counts_alone() -> None:
    data = told.dataset(videos=12)
    items = tuple(item if item.split == "train" else replace(item, events=()) for item in data.items)
    data = replace(data, items=items)
    train, val = told.split(data, "train"), told.split(data, "val")
    assert set(EventTask(data, Settings()).training_data(train, val).validate(told.Told())) == {"val_loss"}
    found = EventTask(data, Settings()).evaluate(told.Told(), val)
    assert found.metrics == {"items": 4, "items_without_features": 0, "events": 0}
    assert [row["events_true"] for row in found.rows] == [[]] * 4
    assert EventTask(data, Settings()).baselines(val) == {}


def test_settings_of_dense_training_that_cannot_be_raise() -> None:
    for wrong in ({"crop_share": 0.0}, {"crop_share": 1.5}, {"max_segments": 0}, {"warmup_epochs": -1}):
        with pytest.raises(ValueError, match=r"crop_share|max_segments|warmup_epochs"):
            Settings(**wrong)
    with pytest.raises(ValueError, match="warmup_epochs goes with"):
        Settings(warmup_epochs=3)
