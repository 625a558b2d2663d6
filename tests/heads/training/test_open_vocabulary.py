"""OV-AVEL's heads through training and evaluation: the published numbers, what is trained on, and laws of the texts."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from catalog.dataset import Dataset, Item
from catalog.event import Event
from catalog.store.modal import Modal
from catalog.store.reader import FeatureStore, create_store
from catalog.store.rows import RecipeRows, VideoResult
from catalog.store.writer import open_writer
from catalog.video import EXTRACTED, Video
from heads.data.split import read_split
from heads.data.vocabulary import Vocabulary, hand_over, of_data_set
from heads.evaluation.evaluate import Evaluation, evaluate
from heads.evaluation.run_filter import filter_runs
from heads.metrics.ovavebench import summary, video_scores
from heads.registry import read_config, restore, spec
from heads.training.experiment import Experiment, Materials
from heads.training.run import TrainedRun, train_run
from heads.training.settings import Settings, published_settings
from tests.heads import planted_texts as planted

RECIPE = planted.RECIPE.name
NAMES = (*planted.CLASSES, "other")


def trained(
    store: FeatureStore, data: Dataset, head: str = "ov_avel", vocabulary: str | None = None, **changes: Any
) -> TrainedRun:
    settings = published_settings(head, epochs=4, batch_size=4, learning_rate=1e-3)
    texts = of_data_set(store, RECIPE, data, vocabulary)
    return train_run(experiment(head, settings, **changes), Materials(store=store, dataset=data, texts=texts))


def experiment(head: str, settings: Settings, **changes: Any) -> Experiment:
    return Experiment(
        store="store",
        dataset="ovavebench",
        root="root",
        recipe=RECIPE,
        head=head,
        changes=changes,
        settings=settings,
    )


def golden_store(place: Path, golden: dict[str, NDArray[Any]]) -> tuple[FeatureStore, Dataset]:
    """The goldens' 20 videos as a test split, their features and texts in a store; 67 classes, half of them seen."""
    classes = tuple(f"class {k:02d}" for k in range(67))
    items, results = [], []
    for n, avc in enumerate(golden["avc"]):
        # A video of background only has the background's number as its category; here it must have a class.
        label = classes[min(int(golden["category"][n]), 11) if not avc.any() else int(golden["category"][n])]
        edges = np.flatnonzero(np.diff(avc.astype(np.int8), prepend=0, append=0))
        events = tuple(
            Event(start_s=Fraction(int(a)), end_s=Fraction(int(b)), label=label)
            for a, b in zip(edges[::2], edges[1::2], strict=True)
        )
        seen = bool(golden["category"][n] % 2)
        items.append(Item(id=f"v{n}", video_id=f"v{n}", split="test", events=events, category=label, seen=seen))
        whole, starts_s = np.ones(10, dtype=bool), np.arange(10.0)
        rows = RecipeRows(
            visual=Modal(values=golden["visual"][n], valid=whole),
            audio=Modal(values=golden["audio"][n], valid=whole),
            start_s=starts_s,
            end_s=starts_s + 1,
        )
        video = Video(id=f"v{n}", uri=f"v{n}.mp4")
        results.append(VideoResult(video=video, unit=0, outcome=EXTRACTED, duration_s=10.0, features={RECIPE: rows}))
    # The trivial baselines ask for one training label.
    events = (Event(start_s=Fraction(0), end_s=Fraction(5), label=classes[1]),)
    items.append(Item(id="t", video_id="t", split="train", events=events, category=classes[1], seen=True))
    data = Dataset(
        name="ovavebench",
        classes=classes,
        items=tuple(items),
        videos=tuple(Video(id=item.id, uri=f"{item.id}.mp4") for item in items),
        num_segments=10,
        background="other",
    )
    held = create_store(str(place))
    with open_writer(held) as writer:
        writer.ensure_recipe(planted.RECIPE, visual_shape=(24,), audio_shape=(24,), card={})
        writer.append(results, [RECIPE])
        writer.write_labels(RECIPE, "all", [*classes, "other"], golden["text"])
        writer.commit("goldens")
    held.refresh()
    return held, data


@pytest.mark.parametrize(("strategy", "other"), [("v0", False), ("v01", True)])
def test_training_free_run_from_a_store_equals_the_published_scripts_numbers(
    shared: Path, tmp_path: Path, strategy: str, other: bool
) -> None:
    folder = shared / "parity" / "heads" / "ovavel"
    with np.load(folder / "ovavel.npz", allow_pickle=False) as arrays:
        golden = {name.removeprefix("tf/"): arrays[name] for name in arrays if name.startswith("tf/")}
    store, data = golden_store(tmp_path / "store", golden)
    run = trained(store, data, "ov_avel_free", other=other, published=True)
    metrics = run.record.metrics["test"]
    means = {entry["case"]: entry for entry in json.loads((folder / "ovavel.json").read_text())}[f"tf_{strategy}"]
    wanted = [means["acc"], means["seg"], means["eve"]]
    assert [metrics[name] for name in ("accuracy", "segment_f1", "event_f1")] == pytest.approx(wanted, abs=1e-6)
    assert metrics["mean"] == pytest.approx(sum(wanted) / 3, abs=1e-6)
    per_video = golden[f"{strategy}/per_video_acc_seg_eve"]
    for group, here in (("seen", golden["category"] % 2 == 1), ("unseen", golden["category"] % 2 == 0)):
        found = [metrics[f"{name}_{group}"] for name in ("accuracy", "segment_f1", "event_f1")]
        assert found == pytest.approx(per_video[here].mean(axis=0).tolist(), abs=1e-6)
        assert metrics[f"mean_{group}"] == pytest.approx(per_video[here].mean(), abs=1e-6)


@pytest.fixture(scope="module")
def data() -> Dataset:
    made: Dataset = planted.dataset()
    return made


@pytest.fixture(scope="module")
def store(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    shuffled = [NAMES[i] for i in (3, 6, 0, 5, 1, 4, 2)]
    vocabularies = {"mine": NAMES, "shuffled": shuffled, "larger": ("zooming", *NAMES, "yelling")}
    place = tmp_path_factory.mktemp("texts") / "store"
    held: FeatureStore = planted.store(place, data, vocabularies, noise=2.2)
    return held


def test_train_names_unseen_classes_it_was_not_trained_on(store: FeatureStore, data: Dataset) -> None:
    run = trained(store, data, vocabulary="mine")
    assert run.record.unseen == planted.UNSEEN
    assert run.record.texts == {"vocabulary": "mine", "prompt": "{}", "background": "other"}
    assert run.state["texts.trained_K"].tolist() == [name not in planted.UNSEEN for name in NAMES]
    for name, row in zip(NAMES, run.state["texts.texts_KD"], strict=True):
        text = torch.from_numpy(planted.text_of(name))
        torch.testing.assert_close(row, text / text.norm())
    # Above what always says background, of classes without one training item.
    assert run.record.metrics["test"]["mean_unseen"] > run.baselines["test"]["majority"]["mean_unseen"] + 0.2


def test_train_chooses_the_epoch_of_the_best_mean_on_validation(store: FeatureStore, data: Dataset) -> None:
    settings = published_settings("ov_avel", epochs=12, batch_size=4, learning_rate=3e-4)
    texts = of_data_set(store, RECIPE, data, "mine")
    run = train_run(experiment("ov_avel", settings), Materials(store=store, dataset=data, texts=texts))
    history = run.record.history
    ranks = [(row["val_mean"], -row["val_loss"]) for row in history]
    best = ranks.index(max(ranks))
    assert run.record.training["best_epoch"] == best + 1
    assert history[best]["val_mean"] == run.record.metrics["val"]["mean"]
    losses = [row["val_loss"] for row in history]
    assert best != losses.index(min(losses)), "the test needs an epoch of the best mean that has not the least loss"
    assert run.record.baselines == {n: numbers["mean"] for n, numbers in run.baselines["test"].items()}


@pytest.mark.parametrize("head", ["ov_avel", "ov_avel_free"])
def test_train_order_of_the_vocabulary_and_names_of_no_class_change_nothing(
    store: FeatureStore, data: Dataset, head: str
) -> None:
    one, two, three = (trained(store, data, head, vocabulary) for vocabulary in ("mine", "shuffled", "larger"))
    for other in (two, three):
        assert other.record.metrics == one.record.metrics
        assert other.evaluations["test"].rows == one.evaluations["test"].rows
        assert all(torch.equal(tensor, other.state[name]) for name, tensor in one.state.items())


def test_evaluate_class_that_never_wins_changes_no_decision(store: FeatureStore, data: Dataset) -> None:
    run = trained(store, data, "ov_avel", "mine")
    more = replace(data, classes=(*data.classes, "zero"))
    for seed in range(50):  # a text that is nowhere the best, whatever it is
        row = np.random.default_rng(seed).normal(size=planted.WIDTH)
        found = with_one_more(run, store, more, row)
        assert found.confusion is not None
        if not found.confusion[:, 6].any():
            break
    assert found.confusion is not None
    assert found.confusion[:, 6].sum() == 0, "the test needs a text that never wins"
    assert_same_measures(found, run)


def test_evaluate_class_that_is_never_the_nearest_changes_no_agreement(data: Dataset, tmp_path: Path) -> None:
    store = planted.store(tmp_path / "store", data, noise=1.4)
    run = trained(store, data, "ov_avel_free")
    assert run.record.metrics["test"]["mean"] < 1, "the test needs mistakes"
    unit = [planted.text_of(name) / np.linalg.norm(planted.text_of(name)) for name in NAMES]
    far = -np.stack(unit).mean(axis=0)
    for item in data.split("test"):
        rows = planted.rows_of(item, noise=1.4)
        assert rows.visual is not None
        assert rows.audio is not None
        for x in (*rows.visual.values, *rows.audio.values):
            assert x @ far / np.linalg.norm(far) < max(x @ text for text in unit), "it is the nearest somewhere"
    assert_same_measures(with_one_more(run, store, replace(data, classes=(*data.classes, "zero")), far), run)


def with_one_more(run: TrainedRun, store: FeatureStore, more: Dataset, text: NDArray[np.floating]) -> Evaluation:
    """The run's head on the test split, its texts and one more class's, before the background."""
    name = run.record.head
    head = restore(name, read_config(name, run.record.config), run.state)
    held = run.state["texts.texts_KD"].numpy()
    features = np.concatenate([held[:-1], text[None].astype(np.float32), held[-1:]])
    hand_over(head, Vocabulary(name="v", prompt="{}", classes=more.classes, background="other", features=features))
    return evaluate(head, read_split(store, RECIPE, more, "test", pool_places=spec(name).pools_places), more)


def assert_same_measures(found: Evaluation, run: TrainedRun) -> None:
    held = run.record.metrics["test"]
    for name in ("accuracy", "segment_f1", "event_f1", "mean"):
        for group in ("", "_seen", "_unseen"):
            assert found.metrics[name + group] == held[name + group]


def test_train_without_parameters_reads_no_training_features(data: Dataset, tmp_path: Path) -> None:
    bare = replace(data, items=tuple(i for i in data.items if i.split != "train"))
    held = planted.store(
        tmp_path / "store", replace(bare, videos=tuple(v for v in data.videos if v.id in {i.id for i in bare.items}))
    )
    run = trained(held, data, "ov_avel_free")
    assert run.record.history == ()
    told = {name: run.record.training[name] for name in ("epochs", "best_epoch", "epochs_run", "train_items")}
    assert set(told.values()) == {0}
    assert not run.warnings
    assert set(run.state) == {"texts.texts_KD", "texts.trained_K"}


def test_train_items_of_unseen_classes_are_not_trained_on(store: FeatureStore, data: Dataset) -> None:
    leaking = replace(data, items=tuple(replace(i, split="train") if i.id == "purring-00" else i for i in data.items))
    run = trained(store, leaking, vocabulary="mine")
    assert run.record.training["train_items"] == 16
    assert run.warnings == ("train: 1 items of unseen classes left out of training",)


def test_evaluate_seen_unseen_and_run_filter_equal_slow_counts(store: FeatureStore, data: Dataset) -> None:
    run = trained(store, data, vocabulary="mine")
    head = restore("ov_avel", read_config("ov_avel", run.record.config), run.state)
    found = evaluate(head, read_split(store, RECIPE, data, "test"), data, smooth=2)
    assert found.seen_unseen is not None
    for row in found.rows:
        assert row["seen"] == (row["item"].rsplit("-", 1)[0] in planted.SEEN)
    for counts, seen in ((found.seen_unseen.seen_KK, True), (found.seen_unseen.unseen_KK, False)):
        slow = np.zeros((7, 7), dtype=np.int64)
        for row in found.rows:
            if row["seen"] is seen:
                for t, p in zip(row["labels_true"], row["labels_pred"], strict=True):
                    slow[t, p] += 1
        np.testing.assert_array_equal(counts, slow)
    predicted, true = (np.array([row[key] for row in found.rows]) for key in ("labels_pred", "labels_true"))
    seen_N = np.array([row["seen"] for row in found.rows])
    after = summary(video_scores(filter_runs(predicted, minimum=2), true, background=6), seen_N)
    assert found.smoothed == after
    assert after["mean"] != found.metrics["mean"], "the test needs a filter that does something"
    assert {name: found.metrics[name] for name in after} == summary(video_scores(predicted, true, background=6), seen_N)


def test_train_head_of_texts_without_them_or_of_another_order_raises(store: FeatureStore, data: Dataset) -> None:
    texts = of_data_set(store, RECIPE, data, "mine")
    odd = replace(texts, classes=tuple(reversed(texts.classes)))
    for given, told in ((None, "needs a vocabulary"), (odd, "must hold the classes of ovavebench in its order")):
        with pytest.raises(ValueError, match=told):
            train_run(experiment("ov_avel", Settings()), Materials(store=store, dataset=data, texts=given))
