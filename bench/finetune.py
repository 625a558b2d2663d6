"""Contrastive fine-tuning of AudioCLIP, shown to work end to end on made-up videos with a small network.

The way of a user, by the verbs: made-up videos -> a seeded small AudioCLIP in the published layout -> features before
-> fine-tuning on train, its epoch chosen on val -> features after -> the linear head on both, with the same seeds.
All figures are of the test split, which fine-tuning never sees, and from the features in the store.

Two things keep the comparison honest. The random network's norms hold the statistics of the training seconds, so that
what fine-tuning adds is learnt, not mere scaling. And beside chance stands what knowing the kinds alone would give: of
3 objects and 3 sounds each goes with two of the other, so a guesser who tells them all apart still meets two thirds of
the sounds as possible partners. Retrieval above that has learnt what an event's look tells of its sound (bigger is
deeper, brighter is louder).
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.measurement import Measurement
from catalog.dataset import Dataset, load
from catalog.datasets import synthetic
from catalog.recipe import Recipe
from catalog.store.reader import open_store
from jobs.cli.main import main
from pipeline.encoders.audioclip.encoder import DEVIATION, FULL_SCALE, MEAN
from pipeline.finetune.pairs import Pairs, decode_pairs, event_segments
from pipeline.finetune.retrieval import chance, recall_at
from pipeline.networks.clip_resnet import ClipResNet
from pipeline.networks.clip_resnet import Config as PictureConfig
from pipeline.networks.esresnext import Config as SoundConfig
from pipeline.networks.esresnext import EsResNeXt
from pipeline.networks.inference import normalised
from pipeline.recipes import find_recipe
from pipeline.unit import one_thread

ABOUT = "contrastive fine-tuning on made-up videos: retrieval against chance, the linear head before and after"

RANKS = (1, 5, 10)
_WAYS = ("image_to_audio", "audio_to_image")
# The small network: 64 x 64 pictures, sound up to 2.7 kHz, features of 32 numbers; 2.3 million parameters.
_PICTURE_PX, _WIDTH, _GROUPS, _FILTERS, _EMBEDDING = 64, 16, 8, 129, 32
_LOG_SCALE = 2.6592600  # ln(1 / 0.07), CLIP's start
_CHANGES = {
    "settings.size": "from-weights",
    "video.height_px": str(_PICTURE_PX),
    "video.width_px": str(_PICTURE_PX),
    "video.frames_per_segment": "2",
}
# Seconds that the norms' statistics come from, and how many of them at once.
_CALIBRATION, _AT_ONCE = 256, 64
_BEFORE, _AFTER = "small-before", "small-after"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is done.

    Attributes:
        videos: of 15, 10 are for training, 2 for validation, 3 for testing.
        epochs, batch, learning_rate: of fine-tuning.
        head_seeds: one linear head each, before and after.
        seed: of videos, network and fine-tuning.
    """

    videos: int = 405
    epochs: int = 30
    batch: int = 32
    learning_rate: float = 1e-3
    head_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it, on the test split.

    Attributes:
        items: candidates of retrieval.
        before, after: R@k both ways, as `pipeline.finetune.retrieval.recall_at`.
        chance, kinds: R@k of guessing, and of knowing object and sound but nothing finer; "r1", "r5", "r10".
        accuracy_before, accuracy_after: of the linear head, in per cent, one a seed.
        best_epoch: that validation chose.
        seconds: wall time of each step.
    """

    items: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    chance: Mapping[str, float]
    kinds: Mapping[str, float]
    accuracy_before: tuple[float, ...]
    accuracy_after: tuple[float, ...]
    best_epoch: int
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def gains(self) -> tuple[float, ...]:
        """Points of accuracy, seed by seed."""
        return tuple(after - before for before, after in zip(self.accuracy_before, self.accuracy_after, strict=True))


def measure(folder: Path) -> list[Measurement]:
    options = Options()
    return figures(demonstrate(folder, options), options)


def figures(outcome: Outcome, options: Options) -> list[Measurement]:
    """The outcome as lines of a table."""
    made = [
        Measurement(
            what=f"R@{k}, {way.replace('_', ' ')}, after fine-tuning",
            value=100 * outcome.after[f"{way}_r{k}"],
            unit="%",
            # Ten of so few items is met by chance often; the finest rank is the noisiest.
            at_least=round(200 * outcome.chance[f"r{k}"], 1) if k > 1 else None,
            detail=f"of {outcome.items}; before {100 * outcome.before[f'{way}_r{k}']:.1f}, "
            f"chance {100 * outcome.chance[f'r{k}']:.1f}, kinds alone {100 * outcome.kinds[f'r{k}']:.1f}",
        )
        for way in _WAYS
        for k in RANKS
    ]
    told = [
        f"{name} {statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} %"
        for name, values in (("before", outcome.accuracy_before), ("after", outcome.accuracy_after))
    ]
    made.append(
        Measurement(
            what=f"gain of the linear head, mean of {len(outcome.gains)} seeds",
            value=statistics.mean(outcome.gains),
            unit="points",
            at_least=0,
            detail=f"{', '.join(told)}; gain ± {statistics.stdev(outcome.gains):.2f}, least {min(outcome.gains):.2f}",
        )
    )
    steps = ", ".join(f"{name} {seconds:.0f}" for name, seconds in outcome.seconds.items())
    made.append(
        Measurement(
            what=f"all of it, {options.videos} videos and {options.epochs} epochs",
            value=sum(outcome.seconds.values()),
            unit="s",
            detail=f"{steps}; epoch {outcome.best_epoch} was chosen",
        )
    )
    return made


def demonstrate(folder: Path, options: Options) -> Outcome:
    """Runs the whole of it in `folder`; what lies there already of videos and features is kept.

    Arithmetic is on one thread: so small a network gains nothing from more, and sums keep their order on any machine.

    Raises:
        RuntimeError: a verb failed; its own message stands above.
    """

    assert torch is not None
    with one_thread():
        return _demonstrate(folder, options)


def _demonstrate(folder: Path, options: Options) -> Outcome:
    data, run, store = folder / "data", folder / "run", folder / "store"
    start = folder / "start.pt"
    seconds: dict[str, float] = {}
    source = ("--dataset", "ave", "--root", str(data))
    settings = [word for name, value in _CHANGES.items() for word in ("--set", f"{name}={value}")]

    def extract(weights: Path, name: str) -> None:
        recipe = ("--recipe", "audioclip-1s", "--as", name, "--weights", str(weights), *settings)
        _verb("extract", *source, *recipe, "--store", str(store), "--executor", "local", "--device", "cpu")

    def train(name: str) -> tuple[float, ...]:
        accuracies = []
        for seed in options.head_seeds:
            place = ("--recipe", name, "--out", str(folder / f"{name}-{seed}"), "--overwrite")
            told = _verb("train", "--store", str(store), *source, *place, "--seed", str(seed))
            accuracies.append(100 * float(told["metrics"]["test"]["accuracy"]))
        return tuple(accuracies)

    with _timed(seconds, "synth"):
        _verb("synth", str(data), "--videos", str(options.videos), "--seed", str(options.seed))
    with _timed(seconds, "decode"):
        dataset, recipe, pairs = _pairs(data, run)
        if not start.exists():
            write_start(start, pairs, recipe, seed=options.seed)
    with _timed(seconds, "extract before"):
        extract(start, _BEFORE)
    with _timed(seconds, "fine-tune"):
        how = {
            "--epochs": options.epochs,
            "--batch": options.batch,
            "--piece": options.batch,
            "--lr": options.learning_rate,
            "--background": 0,
            "--seed": options.seed,
        }
        words = [str(word) for pair in how.items() for word in pair]
        words += ["--batch-norm", "train", "--augment", "--device", "cpu", "--weights", str(start), *settings]
        tuned = _verb("finetune", "audioclip", *source, "--out", str(run), *words)
    with _timed(seconds, "extract after"):
        extract(run / "weights.safetensors", _AFTER)
    with _timed(seconds, "heads"):
        accuracy_before, accuracy_after = train(_BEFORE), train(_AFTER)

    items = len(dataset.split("test"))
    return Outcome(
        items=items,
        before=_retrieval(store, _BEFORE, dataset),
        after=_retrieval(store, _AFTER, dataset),
        chance=chance(items, RANKS),
        kinds=_kinds_alone(dataset),
        accuracy_before=accuracy_before,
        accuracy_after=accuracy_after,
        best_epoch=int(tuned["best_epoch"]),
        seconds=seconds,
    )


def write_start(path: Path, pairs: Pairs, recipe: Recipe, *, seed: int) -> None:
    """A small AudioCLIP of random weights in the published layout; its norms know the training seconds."""

    blocks = (1, 1, 1, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        picture_net = ClipResNet(PictureConfig(blocks=blocks, width=_WIDTH, image_px=_PICTURE_PX, embedding=_EMBEDDING))
        sound_net = EsResNeXt(
            SoundConfig(blocks=blocks, width=_WIDTH, groups=_GROUPS, filters=_FILTERS, embedding=_EMBEDDING)
        )
    known = np.array([row for item in pairs.items["train"] for row in item.event_rows + item.background_rows])
    rows = np.sort(np.random.default_rng(seed).choice(known, min(_CALIBRATION, len(known)), replace=False))
    _calibrate(picture_net, normalised(torch.from_numpy(pairs.frames_RPHWC[rows, 0]), MEAN, DEVIATION))
    _calibrate(sound_net, torch.from_numpy(pairs.sound_RN[rows]).float() / 32768 * FULL_SCALE)
    nets = {"visual.": picture_net, "audio.": sound_net}
    state = {prefix + name: tensor for prefix, net in nets.items() for name, tensor in net.state_dict().items()}
    scales = ("logit_scale", "logit_scale_ai", "logit_scale_at")
    torch.save(state | {name: torch.tensor(_LOG_SCALE) for name in scales}, path)


def _calibrate(net: nn.Module, inputs: Any) -> None:
    """Running statistics become the mean over these inputs, `_AT_ONCE` at a time."""

    norms = [part for part in net.modules() if isinstance(part, _BatchNorm)]
    held = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # torch's word for a plain mean
    net.train()
    with torch.no_grad():
        for part in inputs.split(_AT_ONCE):
            net(part)
    for norm, momentum in zip(norms, held, strict=True):
        norm.momentum = momentum


def _pairs(data: Path, run: Path) -> tuple[Dataset, Recipe, Pairs]:
    """The data set, and its pairs where `avel finetune` will find them."""

    dataset = load("ave", str(data))
    recipe = find_recipe("audioclip-1s").changed(_CHANGES)
    run.mkdir(parents=True, exist_ok=True)
    return dataset, recipe, decode_pairs(dataset, recipe, run / "pairs")


def _retrieval(store: Path, recipe_name: str, dataset: Dataset) -> dict[str, float]:
    """Of the test items, by the features of the middle second of each one's event."""

    items = dataset.split("test")
    held = open_store(str(store))
    recipe = held.recipes()[recipe_name].recipe
    found = [held.read(recipe_name, modality, [item.video_id for item in items]) for modality in ("visual", "audio")]
    assert dataset.num_segments is not None
    features = []
    for part in found:
        rows = []
        for number, item in enumerate(items):
            inside = event_segments(item, recipe, dataset.num_segments)
            rows.append(part.values[part.offsets[number] + inside[len(inside) // 2]])
        features.append(np.stack(rows))
    return recall_at(features[0], features[1], RANKS)


def _kinds_alone(dataset: Dataset) -> dict[str, float]:
    """What R@k would be, on average, for one who knows object and sound of every test item and nothing else of it."""

    pair_of = {synthetic.label(pair): pair for pair in synthetic.pairs("ave")}
    classes = [pair_of[item.category] for item in dataset.split("test") if item.category is not None]
    known = set(pair_of.values())
    fitting = [sum((object_, sound) in known for _, sound in classes) for object_, _ in classes]
    return {f"r{k}": statistics.mean(min(1.0, k / count) for count in fitting) for k in RANKS}


def _verb(*words: str) -> dict[str, Any]:
    """Runs `avel WORDS --json` in this process; what it printed."""

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main([*words, "--json"])
    if status:
        raise RuntimeError(f"avel {' '.join(words)}: exit status {status}")
    told: dict[str, Any] = json.loads(printed.getvalue())
    return told


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began_s = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - began_s, 1)
