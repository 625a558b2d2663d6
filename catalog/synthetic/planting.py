"""What a planted benchmark is, and the registry of those there are.

A planted benchmark keeps a data set's real annotations, and with them its events, overlaps, class counts and splits,
and replaces the features by made-up ones in which the events can be found: where there are no real features at hand,
they show that a head learns what it is for. They say nothing about real media.

A plug-in is one file of `catalog/synthetic/planted`, found by its name: `SUMMARY` (one line), `DATASET` (whose
annotations), `REVISION` (raised whenever equal settings give other values), `Settings` (all numbers that
decide a value) and `World`
(prototypes of the classes, drawn once from the seed, and the features of each video). Where it has `reduced`, that
makes a smaller data set out of the real one.

A video's features are drawn from a stream of its own, which follows from the noise seed, the video's split and its id:
they are the same bits in whatever order videos are asked for, and one video more or less changes no other.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from catalog.dataset import SPLITS, Dataset, Item
from catalog.event import Event
from catalog.grid import GridRule, SegmentGrid
from catalog.plugins import Plugins
from catalog.recipe import AudioSampling, Recipe, Scalar, VideoSampling
from catalog.store.modal import Modal
from catalog.store.rows import RecipeRows, VideoResult
from catalog.video import EXTRACTED, Video

BENCHMARKS = Plugins(package="catalog.synthetic.planted", noun="planted benchmark")
ENCODER = "planted"  # no file of pipeline/encoders: such a recipe can be read and never be run on media


@dataclass(frozen=True, kw_only=True)
class PlantedSettings:
    """What every benchmark has; each adds its own.

    Attributes:
        seed: of the world: prototypes, texts, rotations.
        noise_seed: of everything that is drawn for a single video.
        width: D of the world.
        scale_to: width of the features, by a random orthogonal embedding of the signals, with noise over all of it that
            has the same norm (its share in the signals' own space falls by width / scale_to); None leaves D.
    """

    seed: int = 0
    noise_seed: int = 0
    width: int
    scale_to: int | None = None

    def __post_init__(self) -> None:
        if min(self.seed, self.noise_seed) < 0:
            raise ValueError(f"seed and noise_seed must be 0 or more, got {self.seed} and {self.noise_seed}")
        if self.width < 3:
            raise ValueError(f"width must be at least 3, got {self.width}")
        if self.scale_to is not None and self.scale_to < self.width:
            raise ValueError(f"scale_to must be at least the width {self.width}, got {self.scale_to}")
        for spec in fields(self):
            value = getattr(self, spec.name)
            if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{spec.name} must be 0 or more, got {value}")

    @property
    def feature_width(self) -> int:
        """The width of the features."""
        return self.width if self.scale_to is None else self.scale_to

    @property
    def noise_scale(self) -> float:
        """What a noise per dimension is multiplied by, so that its norm stays."""
        return math.sqrt(self.width / self.feature_width)

    def need_shares(self, *names: str) -> None:
        """Checks that settings are probabilities.

        Raises:
            ValueError: one is above 1; names it.
        """
        for name in names:
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")


class World(Protocol):
    """A benchmark on one data set."""

    grid: GridRule
    visual_shape: tuple[int, ...]
    audio_shape: tuple[int, ...]

    def features(self, video_id: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Visual and audio features of a video, (T, *visual_shape) and (T, *audio_shape), T as `grid` has it."""
        ...

    def texts(self) -> NDArray[np.float32] | None:
        """The classes' text features and, last, the background's: (K + 1, D); None where it has none."""
        ...


class WorldMaker(Protocol):
    """How a world is made."""

    def __call__(self, dataset: Dataset, settings: Any) -> World:
        """Raises ValueError where the data set does not have what the benchmark needs."""
        ...


class Benchmark(Protocol):
    """What a file of `catalog/synthetic/planted` has."""

    SUMMARY: str
    DATASET: str
    REVISION: int
    Settings: type[PlantedSettings]
    World: WorldMaker


def names() -> tuple[str, ...]:
    """The benchmarks there are, sorted."""
    return BENCHMARKS.names()


def plugin(name: str) -> Benchmark:
    """The module of a benchmark.

    Raises:
        ValueError: no such benchmark; the message lists those that exist.
    """
    return cast(Benchmark, BENCHMARKS.load(name))


def settings_from(benchmark: Benchmark, texts: Mapping[str, str]) -> PlantedSettings:
    """A benchmark's settings with some of them given as texts, as a command line does.

    Raises:
        ValueError: no such setting, not of its type or out of its range; the message names it.
    """
    standard = {spec.name: spec.default for spec in fields(benchmark.Settings)}
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if name not in standard:
            raise ValueError(f"no setting {name!r}; there are {', '.join(standard)}")
        kind = float if isinstance(standard[name], float) else int
        try:
            values[name] = kind(text)
        except ValueError:
            wanted = "a number" if kind is float else "a whole number"
            raise ValueError(f"{name} needs {wanted}, got {text!r}") from None
    return benchmark.Settings(**values)


def recipe_of(
    protocol: str,
    settings: PlantedSettings,
    world: World,
    dataset: Dataset,
    *,
    name: str,
    storage: Literal["float32", "float16"] = "float32",
) -> Recipe:
    """The recipe that a benchmark's features are stored under: every number that decides a value is a setting of it.

    The annotations are to these features what media are to others and no part of the recipe, but for the names of the
    classes, whose order says which prototype is whose.
    """
    stored: dict[str, Scalar] = {"protocol": protocol, **asdict(settings)}
    stored["num_classes"] = len(dataset.classes)
    stored["class_names_sha256"] = hashlib.sha256("\n".join(dataset.classes).encode("utf-8")).hexdigest()
    return Recipe(
        name=name,
        encoder=ENCODER,
        revision=plugin(protocol).REVISION,
        grid=world.grid,
        # Nothing is sampled; a recipe states its modalities by having these.
        video=VideoSampling(frames_per_segment=1, height_px=1, width_px=1),
        audio=AudioSampling(rate_hz=16000),
        settings=stored,
        storage=storage,
    )


def grid_of(world: World, dataset: Dataset, video_id: str) -> SegmentGrid:
    """The segments of a video, from the data set's number of seconds or the annotated duration.

    Raises:
        ValueError: the data set states neither.
    """
    return world.grid.grid(duration_s(dataset, video_id))


def duration_s(dataset: Dataset, video_id: str) -> Fraction:
    """How long a video is by its annotations.

    Raises:
        ValueError: they do not say.
    """
    found = dataset.by_id[video_id].duration_s
    if dataset.num_segments is not None:
        return Fraction(dataset.num_segments)
    if found is None:
        raise ValueError(f"{dataset.name}: video {video_id} needs an annotated duration")
    return found


def results(world: World, dataset: Dataset, recipe_name: str) -> Iterator[VideoResult]:
    """Every video of a data set, in its order, as a store takes it."""
    spans: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}  # exact arithmetic once a length
    for video in dataset.videos:
        grid = grid_of(world, dataset, video.id)
        if grid.count not in spans:
            spans[grid.count] = (grid.starts_s(), grid.ends_s())
        starts_s, ends_s = spans[grid.count]
        visual, audio = world.features(video.id)
        valid = np.ones(grid.count, dtype=bool)
        modals = Modal(values=visual, valid=valid), Modal(values=audio, valid=valid)
        rows = RecipeRows(visual=modals[0], audio=modals[1], start_s=starts_s, end_s=ends_s)
        yield VideoResult(
            # No medium was looked at, so none is named.
            video=Video(id=video.id, uri=f"planted:{video.id}"),
            unit=-1,
            outcome=EXTRACTED,
            attempts=0,
            duration_s=float(duration_s(dataset, video.id)),
            features={recipe_name: rows},
        )


def items_of(dataset: Dataset) -> dict[str, list[Item]]:
    """Video id to the items that show it, in file order."""
    found: dict[str, list[Item]] = {video.id: [] for video in dataset.videos}
    for item in dataset.items:
        found[item.video_id].append(item)
    return found


def split_of(items: list[Item]) -> str:
    """The split of a video: of several (18 videos of AVE) "test" before "val" before "train", since a test item must
    meet the test's conditions."""
    return max((item.split for item in items), key=SPLITS.index)


def segments_on(event: Event, grid: SegmentGrid) -> slice:
    """The segments whose middle m has `start_s <= m < end_s`, which is how heads read an event."""

    def first_at(time_s: Fraction) -> int:
        return min(grid.count, max(0, math.ceil((time_s - grid.middle_s(0)) / grid.hop_s)))

    return slice(first_at(event.start_s), first_at(event.end_s))
