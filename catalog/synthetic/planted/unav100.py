"""UnAV-100 with planted features: dense segments, many events, and an event is only where audio and frames meet.

A feature has semantic dimensions (a third of the width) that hold 2.6 k times the sum of the prototypes of what is on,
and nuisance dimensions with an offset of the video and a random walk, turned together by a rotation of the modality;
white noise comes on top. k is drawn a video and modality, exp(N(0, 0.2)). Classes 0 and 1, 2 and 3, ... sound alike;
1 and 2, 3 and 4, ... look alike.

With probability 0.9 audio and visual overshoot an event, one at its beginning and one at its end, by up to half its
length each: its bounds need both. Besides there are pairs of a stretch that is only heard and one that is only seen, of
one class, at different times: who looks at the whole video finds a partner for either. Stretches leave out what would
make another event: a class is heard and seen at once in its events and nowhere else.

The text of a class is its two prototypes side by side, turned by a rotation of the texts': what maps features to texts
is linear and the same for all classes, so who learns it from some classes finds the others by their texts, where the
classes seen are more than the dimensions of prototypes (two thirds of the width).

The grid is one segment of 60 s / points each: the longest videos have `points` segments. `reduced` makes the data set
of short experiments, in which every video has.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from catalog.dataset import Dataset, Item
from catalog.event import Event
from catalog.grid import GridRule, SegmentGrid
from catalog.synthetic.planting import PlantedSettings, duration_s, items_of, segments_on, split_of
from catalog.synthetic.prototypes import Vectors, embedding, orthogonal, paired, unit, video_stream, world_stream
from catalog.video import Video

SUMMARY = "UnAV-100's annotations; events bounded by audio and frames together, and decoys of either"
DATASET = "unav100"
REVISION = 1

LONGEST_S = 60  # of UnAV-100's videos


@dataclass(frozen=True, kw_only=True)
class Settings(PlantedSettings):
    """Constants of the benchmark.

    Attributes:
        points: T of a video of 60 s.
        pair_factor: how far the second of two classes alike is from the first.
        gain: norm of one class's signal.
        gain_spread: standard deviation of the logarithm of a video's gains.
        offset, walk: standard deviations of the nuisance's offset and steps.
        white_noise: standard deviation per dimension (of the width, before scaling).
        overshoot: probability that an event is overshot.
        overshoot_share: of an event's length, at most.
        decoys: pairs an event, the mean of a Poisson number; 1 is the easier setting.
        decoy_present: share of pairs whose class is one of the video's; the rest have any.
        decoy_log_mean, decoy_log_spread: of the logarithm of a stretch's segments.
        decoy_shortest, decoy_longest: what they are cut to.
    """

    width: int = 24
    points: int = 96
    pair_factor: float = 0.35
    gain: float = 2.6
    gain_spread: float = 0.2
    offset: float = 1.2
    walk: float = 0.144
    white_noise: float = 0.5
    overshoot: float = 0.9
    overshoot_share: float = 0.5
    decoys: float = 2.5
    decoy_present: float = 0.7
    decoy_log_mean: float = 2.2
    decoy_log_spread: float = 0.7
    decoy_shortest: int = 3
    decoy_longest: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_shares("overshoot", "overshoot_share", "decoy_present")
        if not 1 <= self.decoy_shortest <= self.decoy_longest or self.points < 1:
            raise ValueError(
                f"needs points of at least 1 and 1 <= decoy_shortest <= decoy_longest, got {self.points}, "
                f"{self.decoy_shortest} and {self.decoy_longest}"
            )

    @property
    def semantic(self) -> int:
        """How many dimensions hold prototypes."""
        return self.width // 3

    @property
    def hop_s(self) -> Fraction:
        """Seconds of a segment."""
        return Fraction(LONGEST_S, self.points)


def reduced(
    dataset: Dataset,
    settings: Settings,
    *,
    num_classes: int = 10,
    most_events: int = 8,
    fewest_points: int = 2,
    videos: Mapping[str, int] | None = None,
) -> Dataset:
    """The data set of short experiments: all videos `points` segments long, few classes.

    Videos of more than `most_events` events are left out; times are stretched to 60 s and rounded to segments; class
    k becomes k mod `num_classes`, of which those are kept that occur; of one class's events that overlap the later ones
    are left out, and so are events shorter than `fewest_points` segments.

    Args:
        videos: how many of a split to keep; of splits that it does not name all are kept. Which ones follows from
            their ids alone, and more of them are those and others.

    Raises:
        ValueError: a segment's seconds have no decimal spelling, which the data set's file needs; a split has fewer
            videos than it should keep; no class is wanted; or no event is left.
    """
    if num_classes < 1:
        raise ValueError(f"needs a class at least, got {num_classes}")
    hop_s = settings.hop_s
    if 10**12 % hop_s.denominator:
        raise ValueError(f"points must divide 60 s into decimals, such as 96, 120 or 192; got {settings.points}")
    found = [
        (item, _rounded_events(dataset, item, settings.points, num_classes, fewest_points))
        for item in dataset.items
        if len(item.events) <= most_events
    ]
    chosen = _some([item for item, _ in found], videos or {})
    found = [(item, kept) for item, kept in found if item.id in chosen]
    occurring = sorted({k for _, kept in found for k, _, _ in kept})
    if not occurring:
        raise ValueError(
            f"{dataset.name}: an event of at least {fewest_points} segments of {float(hop_s):g} s each is needed, and "
            f"there is none among {len(found)} videos (points {settings.points}); take more points, or more videos"
        )
    return Dataset(
        name=dataset.name,
        classes=tuple(f"class {k}" for k in occurring),
        items=tuple(
            Item(
                id=item.id,
                video_id=item.video_id,
                split=item.split,
                events=tuple(Event(start_s=a * hop_s, end_s=b * hop_s, label=f"class {k}") for k, a, b in kept),
            )
            for item, kept in found
        ),
        videos=tuple(
            Video(id=item.video_id, uri=dataset.by_id[item.video_id].uri, duration_s=Fraction(LONGEST_S))
            for item, _ in found
        ),
        num_segments=None,
        background=None,
    )


def _rounded_events(
    dataset: Dataset, item: Item, points: int, num_classes: int, fewest_points: int
) -> list[tuple[int, int, int]]:
    """An item's events as (class, first segment, segment after the last) of `points`, as `reduced` keeps them."""
    scale = points / duration_s(dataset, item.video_id)
    kept: list[tuple[int, int, int]] = []
    for event in sorted(item.events, key=lambda event: event.start_s):
        k = dataset.class_index(event.label) % num_classes
        start, stop = (math.floor(time_s * scale + Fraction(1, 2)) for time_s in (event.start_s, event.end_s))
        stop = min(stop, points)
        if stop - start >= fewest_points and not any(k == other and start < end for other, _, end in kept):
            kept.append((k, start, stop))
    return kept


class World:
    """Prototypes `audio_KD` and `visual_KD` (turned and embedded), and every video's features."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        if not dataset.classes:
            raise ValueError(f"{dataset.name}: needs classes")
        self.settings = settings
        self.grid = GridRule(window_s=settings.hop_s, hop_s=settings.hop_s)
        self.visual_shape: tuple[int, ...] = (settings.feature_width,)
        self.audio_shape: tuple[int, ...] = (settings.feature_width,)
        self._dataset = dataset
        self._items = items_of(dataset)
        rng, width, semantic = world_stream(settings.seed, 0), settings.width, settings.semantic
        bases, sides = [], []
        for first in (0, 1):
            prototypes_KS = paired(rng, len(dataset.classes), semantic, first=first, factor=settings.pair_factor)
            turned_ED = embedding(settings.seed, 1 + first, width, settings.feature_width) @ orthogonal(
                rng.normal(size=(width, width))
            )
            sides.append(prototypes_KS)
            bases.append((prototypes_KS @ turned_ED[:, :semantic].T, turned_ED[:, semantic:]))
        (self.audio_KD, self._audio_nuisance), (self.visual_KD, self._visual_nuisance) = bases
        # A stream of its own: there are texts since features were first planted, and the features stay what they were.
        self.texts_KD = _texts(world_stream(settings.seed, 3), np.concatenate(sides, axis=1), settings.feature_width)

    def scene(self, video_id: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which classes are heard and which are seen, (T, K) each; both at once only in events."""
        return self._scene(self._stream(video_id), video_id)

    def features(self, video_id: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Visual (T, D) and audio (T, D)."""
        rng = self._stream(video_id)
        heard_TK, seen_TK = self._scene(rng, video_id)
        visual_TD = self._draw(rng, seen_TK @ self.visual_KD, self._visual_nuisance)
        audio_TD = self._draw(rng, heard_TK @ self.audio_KD, self._audio_nuisance)
        return visual_TD.astype(np.float32), audio_TD.astype(np.float32)

    def texts(self) -> NDArray[np.float32]:
        """(K + 1, D), of norm 1; the last is of no class, and at right angles to all."""
        return self.texts_KD.astype(np.float32)

    def _stream(self, video_id: str) -> np.random.Generator:
        return video_stream(self.settings.noise_seed, split_of(self._items[video_id]), video_id)

    def _scene(self, rng: np.random.Generator, video_id: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        segments: SegmentGrid = self.grid.grid(duration_s(self._dataset, video_id))
        spans = [
            (self._dataset.class_index(event.label), segments_on(event, segments))
            for item in self._items[video_id]
            for event in item.events
        ]
        heard_TK = np.zeros((segments.count, len(self._dataset.classes)), dtype=bool)
        for k, on in spans:
            heard_TK[on, k] = True
        seen_TK = heard_TK.copy()
        for k, on in spans:
            if on.start == on.stop or rng.random() >= self.settings.overshoot:
                continue
            before, after = (
                int(length) for length in np.rint(rng.random(2) * self.settings.overshoot_share * (on.stop - on.start))
            )
            early_TK, late_TK = (heard_TK, seen_TK) if rng.random() < 0.5 else (seen_TK, heard_TK)
            _add(early_TK, late_TK, k, on.start - before, on.start)
            _add(late_TK, early_TK, k, on.stop, on.stop + after)
        self._add_decoys(rng, heard_TK, seen_TK, [k for k, _ in spans])
        return heard_TK, seen_TK

    def _add_decoys(
        self,
        rng: np.random.Generator,
        heard_TK: NDArray[np.bool_],
        seen_TK: NDArray[np.bool_],
        present: list[int],
    ) -> None:
        settings, (count, num_classes) = self.settings, heard_TK.shape
        for _ in range(int(rng.poisson(settings.decoys * len(present)))):
            from_video = rng.random() < settings.decoy_present
            k = present[int(rng.integers(len(present)))] if from_video else int(rng.integers(num_classes))
            drawn = np.exp(rng.normal(settings.decoy_log_mean, settings.decoy_log_spread, 2))
            heard, seen = (
                min(count, int(length))
                for length in np.rint(np.clip(drawn, settings.decoy_shortest, settings.decoy_longest))
            )
            start = int(rng.integers(count - heard + 1))
            _add(heard_TK, seen_TK, k, start, start + heard)
            # Anywhere before or after its partner, each place as likely; nowhere if there is no room.
            before = max(0, start - seen + 1)
            after = max(0, count - seen - (start + heard) + 1)
            if before + after:
                place = int(rng.integers(before + after))
                place = place if place < before else start + heard + place - before
                _add(seen_TK, heard_TK, k, place, place + seen)

    def _draw(self, rng: np.random.Generator, signal_TD: Vectors, nuisance_DN: Vectors) -> Vectors:
        settings = self.settings
        gain = settings.gain * np.exp(rng.normal(0, settings.gain_spread))
        count, width = len(signal_TD), nuisance_DN.shape[1]
        slow_TN = settings.offset * rng.normal(size=width) + settings.walk * np.cumsum(
            rng.normal(size=(count, width)), axis=0
        )
        white_TD = settings.white_noise * settings.noise_scale * rng.normal(size=signal_TD.shape)
        found: Vectors = gain * signal_TD + slow_TN @ nuisance_DN.T + white_TD
        return found


def _texts(rng: np.random.Generator, joint_KJ: Vectors, width: int) -> Vectors:
    """(K + 1, `width`): rows of `joint_KJ` at norm 1, then one of another dimension, all turned at random."""
    count, joint = joint_KJ.shape
    flat_KJ = np.zeros((count + 1, joint + 1))
    flat_KJ[:-1, :-1] = unit(joint_KJ)
    flat_KJ[-1, -1] = 1.0
    turned: Vectors = flat_KJ @ orthogonal(rng.normal(size=(width, joint + 1))).T
    return turned


def _some(items: list[Item], wanted: Mapping[str, int]) -> set[str]:
    """The ids of as many items of each split as are wanted, of a split that is not named all: by a hash of the id."""
    there = Counter(item.split for item in items)
    for split, count in wanted.items():
        if not 1 <= count <= there[split]:
            raise ValueError(f"videos: {split} has {there[split]} to choose from, {count} are wanted")
    chosen: set[str] = set()
    left = {split: wanted.get(split, count) for split, count in there.items()}
    for item in sorted(items, key=lambda item: hashlib.sha256(item.id.encode("utf-8")).digest()):
        if left[item.split] > 0:
            left[item.split] -= 1
            chosen.add(item.id)
    return chosen


def _add(on_TK: NDArray[np.bool_], other_TK: NDArray[np.bool_], k: int, start: int, stop: int) -> None:
    """Turns class k on in [start, stop), but for where the other modality has it: that would be an event."""
    where = slice(max(0, start), max(0, stop))
    on_TK[where, k] |= ~other_TK[where, k]
