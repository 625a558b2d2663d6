"""Fine-tuning of two tiny towers on real made-up videos: it learns, resumes bit for bit, and refuses what cannot be."""

from __future__ import annotations

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from catalog.dataset import Dataset, Item
from catalog.datasets import synthetic
from catalog.event import Event
from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from pipeline.finetune.loop import Finetuned, Settings, finetune, learning_rate
from pipeline.finetune.pairs import Pairs, decode_pairs, event_segments
from tests import small_videos as small

RECIPE = Recipe(
    name="tiny",
    encoder="descriptors",
    grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
    video=VideoSampling(frames_per_segment=2, height_px=16, width_px=16, fit="stretch", interpolation="area"),
    audio=AudioSampling(rate_hz=8000),
)
SETTINGS = Settings(
    epochs=4,
    batch_size=6,
    piece_size=4,
    queue_size=4,
    background_share=0.5,
    learning_rate=3e-3,
    batch_norm="train",
    flip=False,
)


class TinyTowers:
    """Colours and pitches to 8 numbers; small enough for a test, real enough to learn."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.module = nn.ModuleDict(
                {
                    "image": nn.Sequential(
                        nn.Flatten(), nn.Linear(16 * 16 * 3, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 8)
                    ),
                    "audio": nn.Sequential(nn.Linear(129, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 8)),
                    "scale": nn.ParameterDict({"log": nn.Parameter(torch.tensor(2.5))}),
                }
            )
        self.log_scale: nn.Parameter = self.module["scale"]["log"]  # type: ignore[index]  # a ParameterDict

    def image(self, frames_BHWC: Tensor) -> Tensor:
        made: Tensor = self.module["image"](frames_BHWC.float() / 255 - 0.5)
        return made

    def audio(self, sound_BN: Tensor) -> Tensor:
        power = torch.stft(sound_BN, 256, 256, window=torch.hann_window(256), return_complex=True).abs().square()
        made: Tensor = self.module["audio"](torch.log10(power.mean(dim=2) + 1e-6))
        return made

    def published_state(self) -> dict[str, Tensor]:
        return {f"tiny.{name}": tensor.cpu() for name, tensor in self.module.state_dict().items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finetune")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    """30 videos of AVE's layout, in small files: each class has a colour and a pitch."""
    made = synthetic.plan(synthetic.Settings(layout="ave", videos=30, seed=0), folder).dataset
    (folder / "videos").mkdir()
    of_class: dict[str, Path] = {}
    for item, video in zip(made.items, made.videos, strict=True):
        label, path = item.events[0].label, Path(video.uri)
        if label in of_class:
            shutil.copy(of_class[label], path)
        else:
            of_class[label] = small.make_video(path, seed=made.classes.index(label), duration_s=Fraction(10))
    return made


@pytest.fixture(scope="module")
def pairs(folder: Path, dataset: Dataset) -> Pairs:
    return decode_pairs(dataset, RECIPE, folder / "pairs")


def run(pairs: Pairs, place: Path, settings: Settings = SETTINGS, **more: object) -> Finetuned:
    place.mkdir(exist_ok=True)
    return finetune(TinyTowers(), pairs, place, settings, **more)  # type: ignore[arg-type]  # on_epoch, stop, origin


def test_pairs_hold_each_second_once_with_its_events(pairs: Pairs, dataset: Dataset) -> None:
    assert pairs.frames_RPHWC.shape == (300, 2, 16, 16, 3)
    assert pairs.sound_RN.shape == (300, 8000)
    assert sum(len(found) for found in pairs.items.values()) == 30
    for found in pairs.items["train"]:
        (event,) = found.item.events
        assert len(found.event_rows) == event.end_s - event.start_s
        assert len(found.event_rows) + len(found.background_rows) == 10
        first = found.event_rows[0]
        number = [item.id for item in dataset.items].index(found.item.id)
        assert first == 10 * number + int(event.start_s)


def test_pairs_second_call_reads_what_lies_there(folder: Path, dataset: Dataset, pairs: Pairs) -> None:
    calls: list[int] = []
    again = decode_pairs(dataset, RECIPE, folder / "pairs", on_video=lambda: calls.append(1))
    assert not calls
    np.testing.assert_array_equal(again.sound_RN[:20], pairs.sound_RN[:20])


def test_pairs_of_videos_without_sound_or_file_are_told(tmp_path: Path, dataset: Dataset) -> None:
    videos = (replace(dataset.videos[0], uri=str(tmp_path / "gone.mp4")), *dataset.videos[1:3])
    some = replace(dataset, videos=videos, items=dataset.items[:3])
    found = decode_pairs(some, RECIPE, tmp_path / "pairs")
    assert list(found.absent) == [dataset.videos[0].id]
    assert "missing_file" in found.absent[dataset.videos[0].id]
    assert found.frames_RPHWC.shape[0] == 20


def test_event_segments_hold_their_middle() -> None:
    item = Item(
        id="a", video_id="a", split="train", events=(Event(start_s=Fraction(1), end_s=Fraction(5, 2), label="x"),)
    )
    assert event_segments(item, RECIPE, 4) == [1]  # the middle of second 2 is 2.5, no longer inside
    assert event_segments(item, RECIPE.changed({"grid.hop_s": "1/2"}), 6) == [1, 2, 3]


def test_finetune_lowers_the_loss_and_keeps_the_best_epoch(pairs: Pairs, tmp_path: Path) -> None:
    result = run(pairs, tmp_path / "run", replace(SETTINGS, epochs=12))
    assert result.history[-1]["train_loss"] < 0.8 * result.history[0]["train_loss"]
    assert not result.stopped
    if result.best_epoch:
        best = result.history[result.best_epoch - 1]
        assert result.after["audio_to_image_r5"] == best["val_audio_to_image_r5"]
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert weights.keys() == TinyTowers().published_state().keys()
    assert (tmp_path / "run" / "tensorboard").is_dir()


def test_finetune_stopped_and_resumed_equals_undisturbed(pairs: Pairs, tmp_path: Path) -> None:
    whole = run(pairs, tmp_path / "whole")
    seen: list[float] = []
    part = run(pairs, tmp_path / "parts", on_epoch=lambda row: seen.append(row["epoch"]), stop=lambda: len(seen) == 2)
    assert part.stopped
    assert len(part.history) == 2
    rest = run(pairs, tmp_path / "parts")
    assert [row["train_loss"] for row in rest.history] == [row["train_loss"] for row in whole.history]
    assert rest.after == whole.after
    first, second = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "parts"))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=0)


def test_finetune_frozen_norms_keep_their_statistics(pairs: Pairs, tmp_path: Path) -> None:
    run(pairs, tmp_path / "run", replace(SETTINGS, batch_norm="frozen", epochs=2))
    held = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["module"]
    torch.testing.assert_close(held["image.2.running_mean"], torch.zeros(32), rtol=0, atol=0)
    assert not torch.equal(held["image.1.weight"], TinyTowers().module.state_dict()["image.1.weight"])


@pytest.mark.parametrize("piece_size", [4, 64])
def test_finetune_frozen_tower_stays_and_the_other_learns(pairs: Pairs, tmp_path: Path, piece_size: int) -> None:
    settings = replace(SETTINGS, frozen=("image.",), piece_size=piece_size, epochs=2)
    run(pairs, tmp_path / "run", settings)
    held = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["module"]
    for name, tensor in TinyTowers().module.state_dict().items():
        if name.startswith("image."):  # statistics of its norms included, though batch_norm is "train"
            torch.testing.assert_close(held[name], tensor, rtol=0, atol=0)
        elif name.endswith("weight"):
            assert not torch.equal(held[name], tensor)


def test_finetune_frozen_names_that_are_none_are_an_error(pairs: Pairs, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no parameter's name begins with 'picture'; there are image\.1\.weight"):
        run(pairs, tmp_path / "run", replace(SETTINGS, frozen=("picture",)))
    with pytest.raises(ValueError, match="nothing is left to learn"):
        run(pairs, tmp_path / "run", replace(SETTINGS, frozen=("image", "audio", "scale")))


def test_finetune_augmented_differs_and_resumes(pairs: Pairs, tmp_path: Path) -> None:
    settings = replace(SETTINGS, augment=True, epochs=2)
    plain = run(pairs, tmp_path / "plain", replace(settings, augment=False))
    whole = run(pairs, tmp_path / "whole", settings)
    assert whole.before == plain.before
    assert whole.history[0]["train_loss"] != plain.history[0]["train_loss"]
    seen: list[float] = []
    run(pairs, tmp_path / "parts", settings, on_epoch=lambda row: seen.append(1), stop=lambda: bool(seen))
    rest = run(pairs, tmp_path / "parts", settings)
    assert [row["train_loss"] for row in rest.history] == [row["train_loss"] for row in whole.history]


def test_finetune_checkpoint_of_other_settings_or_origin_is_refused(pairs: Pairs, tmp_path: Path) -> None:
    run(pairs, tmp_path / "run", stop=lambda: (tmp_path / "run" / "checkpoint.pt").exists())
    with pytest.raises(ValueError, match=r"other settings \(learning_rate: 0\.003, now 0\.001\)"):
        run(pairs, tmp_path / "run", replace(SETTINGS, learning_rate=1e-3))
    with pytest.raises(ValueError, match="weights: None, now abc"):
        run(pairs, tmp_path / "run", origin={"weights": "abc"})
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK damaged")
    with pytest.raises(ValueError, match=r"checkpoint\.pt: damaged"):
        run(pairs, tmp_path / "run")


def test_finetune_without_events_is_an_error(pairs: Pairs, tmp_path: Path) -> None:
    bare = {split: tuple(replace(item, event_rows=()) for item in found) for split, found in pairs.items.items()}
    with pytest.raises(ValueError, match="at least 2 train items"):
        run(replace(pairs, items=bare), tmp_path / "run")


@pytest.mark.parametrize(
    "change",
    [{"epochs": 0}, {"batch_size": 1}, {"learning_rate": 0.0}, {"background_share": -1}, {"queue_size": -1}],
)
def test_settings_that_cannot_be_raise(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change)).split("_")[0]):
        replace(SETTINGS, **change)  # type: ignore[arg-type]  # checked at run time


def test_learning_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(step, 100, 1.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.02
