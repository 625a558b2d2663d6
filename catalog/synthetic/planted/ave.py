"""AVE with planted features: ten seconds, one event, four places of which one shows it.

Audio of a segment is 3 g a_c where the class c is audible, visual the map of R places one of which has 4.2 g' v_c where
it is visible; each other place shows, with probability 0.35, an object of its own throughout (2.1 v_o). g is drawn a
video and modality, exp(N(0, 0.15)). Every vector gets slow noise (autoregressive, the same at all places) and white
noise. Classes 0 and 1, 2 and 3, ... sound alike; 1 and 2, 3 and 4, ... look alike.

Within the event both are on. Each run of background is silent, audible only, visible only, audible with another class,
or both with different classes (the video's heard, another seen). In each second a glitch may erase one modality's
signal, rarely in training and often in validation and test, where a head must do without.

An item without events keeps its class for the background. 45 videos of AVE are in two items, of different classes: what
either annotates is planted, the background outside both belongs to the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from catalog.dataset import Dataset, Item
from catalog.grid import GridRule, SegmentGrid
from catalog.synthetic.planting import PlantedSettings, items_of, segments_on, split_of
from catalog.synthetic.prototypes import Vectors, autoregressive, embedding, paired, video_stream, world_stream
from catalog.synthetic.storyboard import runs

SUMMARY = "AVE's annotations; events seen in one of several places, and glitches"
DATASET = "ave"
REVISION = 1

_SECOND = Fraction(1)


@dataclass(frozen=True, kw_only=True)
class Settings(PlantedSettings):
    """Constants of the benchmark.

    Attributes:
        places: R. 1 stores vectors (D,), more a map (R, D).
        pair_factor: how far the second of two classes alike is from the first.
        audio_gain, visual_gain, clutter_gain: norms of what is heard, seen, and seen at other places.
        clutter_share: of other places that show something.
        gain_spread: standard deviation of the logarithm of a video's gains.
        slow_noise, white_noise: standard deviations per dimension (of the width, before scaling).
        slow_keep, slow_step: of the slow noise.
        silent, audible, visible, other_audible: shares of background runs; the rest has different classes on.
        glitch_train, glitch_val, glitch_test: probability a second and modality.
    """

    width: int = 32
    places: int = 4
    pair_factor: float = 0.22
    audio_gain: float = 3.0
    visual_gain: float = 4.2
    clutter_gain: float = 2.1
    clutter_share: float = 0.35
    gain_spread: float = 0.15
    slow_noise: float = 0.36  # 0.4 times the process's own scale of 0.9
    slow_keep: float = 0.92
    slow_step: float = 0.39
    white_noise: float = 0.42
    silent: float = 0.15
    audible: float = 0.30
    visible: float = 0.30
    other_audible: float = 0.10
    glitch_train: float = 0.05
    glitch_val: float = 0.30
    glitch_test: float = 0.30

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_shares("clutter_share", "glitch_train", "glitch_val", "glitch_test")
        if self.places < 1:
            raise ValueError(f"places must be at least 1, got {self.places}")
        if sum(self.background_shares) > 1 + 1e-9:
            raise ValueError(f"silent, audible, visible and other_audible add up to 1 at most, got {self}")

    @property
    def background_shares(self) -> tuple[float, ...]:
        """Of silent, audible only, visible only and other class audible; different classes have the rest."""
        return (self.silent, self.audible, self.visible, self.other_audible)

    def glitch(self, split: str) -> float:
        """The probability of a glitch in a split."""
        rates: dict[str, float] = {"train": self.glitch_train, "val": self.glitch_val, "test": self.glitch_test}
        return rates[split]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is on in a video, without noise: bool (T, K) before glitches, and which segments glitches erase (T,)."""

    heard_TK: NDArray[np.bool_]
    seen_TK: NDArray[np.bool_]
    deaf_T: NDArray[np.bool_]
    blind_T: NDArray[np.bool_]


class World:
    """Prototypes `audio_KD` and `visual_KD` (embedded), and every video's features."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        if len(dataset.classes) < 2 or dataset.num_segments is None:
            raise ValueError(f"{dataset.name}: needs two classes or more and items of one length")
        self.settings = settings
        self.grid = GridRule(window_s=_SECOND, hop_s=_SECOND)
        self.audio_shape: tuple[int, ...] = (settings.feature_width,)
        self.visual_shape: tuple[int, ...] = (
            self.audio_shape if settings.places == 1 else (settings.places, settings.feature_width)
        )
        self._segments: SegmentGrid = self.grid.grid(Fraction(dataset.num_segments))
        self._dataset = dataset
        self._items = items_of(dataset)
        rng, size = world_stream(settings.seed, 0), (len(dataset.classes), settings.width)
        audio_KD = paired(rng, *size, first=0, factor=settings.pair_factor)
        visual_KD = paired(rng, *size, first=1, factor=settings.pair_factor)
        self.audio_KD = audio_KD @ embedding(settings.seed, 1, settings.width, settings.feature_width).T
        self.visual_KD = visual_KD @ embedding(settings.seed, 2, settings.width, settings.feature_width).T

    def scene(self, video_id: str) -> Scene:
        """What is on in a video."""
        items = self._items[video_id]
        return self._scene(self._stream(items, video_id), items)

    def features(self, video_id: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Visual (T, R, D) or (T, D) and audio (T, D)."""
        settings, items = self.settings, self._items[video_id]
        rng = self._stream(items, video_id)
        scene = self._scene(rng, items)
        audible_TK = scene.heard_TK & ~scene.deaf_T[:, None]
        visible_TK = scene.seen_TK & ~scene.blind_T[:, None]
        audio_gain, visual_gain = np.exp(rng.normal(0, settings.gain_spread, 2)) * (
            settings.audio_gain,
            settings.visual_gain,
        )
        audio_TD = audio_gain * (audible_TK @ self.audio_KD) + self._slow(rng)
        audio_TD += self._white(rng, audio_TD.shape)

        place = int(rng.integers(settings.places))
        cluttered_R = rng.random(settings.places) < settings.clutter_share
        cluttered_R[place] = False
        clutter_R = rng.integers(len(self.visual_KD), size=settings.places)
        visual_TRD = np.repeat(self._slow(rng)[:, None], settings.places, axis=1)
        visual_TRD[:, place] += visual_gain * (visible_TK @ self.visual_KD)
        visual_TRD[:, cluttered_R] += settings.clutter_gain * self.visual_KD[clutter_R[cluttered_R]]
        visual_TRD += self._white(rng, visual_TRD.shape)
        visual = visual_TRD.astype(np.float32).reshape(len(visual_TRD), *self.visual_shape)
        return visual, audio_TD.astype(np.float32)

    def texts(self) -> None:
        """None: the classes are closed."""

    def _stream(self, items: list[Item], video_id: str) -> np.random.Generator:
        return video_stream(self.settings.noise_seed, split_of(items), video_id)

    def _scene(self, rng: np.random.Generator, items: list[Item]) -> Scene:
        settings, count, num_classes = self.settings, self._segments.count, len(self.audio_KD)
        heard_TK = np.zeros((count, num_classes), dtype=bool)
        for item in items:
            for event in item.events:
                heard_TK[segments_on(event, self._segments), self._dataset.class_index(event.label)] = True
        seen_TK = heard_TK.copy()
        main = self._main(items[0])
        bounds = np.cumsum(settings.background_shares)
        for start, stop in runs(np.logical_not(np.any(heard_TK, axis=1))):
            kind = int(np.searchsorted(bounds, rng.random(), side="right"))
            other = (main + int(rng.integers(1, num_classes))) % num_classes
            if kind in (1, 4):  # audible only; different classes
                heard_TK[start:stop, main] = True
            if kind == 2:
                seen_TK[start:stop, main] = True
            elif kind == 3:
                heard_TK[start:stop, other] = True
            elif kind == 4:
                seen_TK[start:stop, other] = True
        deaf_T, blind_T = rng.random((2, count)) < settings.glitch(split_of(items))
        return Scene(heard_TK=heard_TK, seen_TK=seen_TK, deaf_T=deaf_T, blind_T=blind_T)

    def _main(self, item: Item) -> int:
        label = item.category or next((event.label for event in item.events), None)
        if label is None:
            raise ValueError(f"{self._dataset.name}: item {item.id} needs a category or an event")
        return self._dataset.class_index(label)

    def _slow(self, rng: np.random.Generator) -> Vectors:
        settings = self.settings
        scale = settings.slow_noise * settings.noise_scale
        return scale * autoregressive(
            rng, self._segments.count, settings.feature_width, keep=settings.slow_keep, step=settings.slow_step
        )

    def _white(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Vectors:
        return self.settings.white_noise * self.settings.noise_scale * rng.normal(size=shape)
