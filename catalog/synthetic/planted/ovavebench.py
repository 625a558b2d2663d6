"""OV-AVEBench with planted features and texts: seen and unseen classes in one space that audio and frames miss a bit.

Texts are random unit vectors with a common offset (a cone), `other` shorter before the offset. A segment's audio is
0.52 k R_a s + 0.5 g_a + noise and its visual 0.55 k R_v s + 0.5 g_v + noise, both made unit vectors and audio then
times 20: s is the class's text where it is on, else 3/4 `other` + 1/4 a class drawn each second; R is a small rotation
and g a unit vector of the modality (the gap between it and the texts); k is drawn a video and modality, exp(N(0, 0.3)).
Noise is partly constant in a video, partly white.

Both are on where the label is; each run of background is silent, audible only or visible only.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from catalog.dataset import Dataset
from catalog.grid import GridRule, SegmentGrid
from catalog.synthetic.planting import PlantedSettings, items_of, segments_on, split_of
from catalog.synthetic.prototypes import Vectors, embedding, orthogonal, unit, video_stream, world_stream
from catalog.synthetic.storyboard import runs

SUMMARY = "OV-AVEBench's annotations, with text features of its classes and `other`"
DATASET = "ovavebench"
REVISION = 1


@dataclass(frozen=True, kw_only=True)
class Settings(PlantedSettings):
    """Constants of the benchmark.

    Attributes:
        cone: norm of the texts' common offset is about 3 * cone.
        other_length: norm of `other` before the offset.
        rotation: spread of the entries that are added to the identity before it is made a rotation.
        gap: norm of a modality's own offset; 0.7 is a stronger one.
        other_share: of `other` in a segment where the class is off; the rest is some class.
        audio_gain, visual_gain: norms of what is heard and seen.
        gain_spread: standard deviation of the logarithm of a video's gains.
        audio_constant, visual_constant: standard deviation per dimension of the noise that is constant in a video.
        audio_white, visual_white: likewise of the white noise.
        audio_scale: norm of an audio feature.
        silent, audible: shares of background runs; the rest is visible only.
    """

    width: int = 96
    cone: float = 0.35
    other_length: float = 0.6
    rotation: float = 0.06
    gap: float = 0.5
    other_share: float = 0.75
    audio_gain: float = 0.52
    visual_gain: float = 0.55
    gain_spread: float = 0.3
    audio_constant: float = 0.06
    visual_constant: float = 0.054
    audio_white: float = 0.10
    visual_white: float = 0.088
    audio_scale: float = 20.0
    silent: float = 0.15
    audible: float = 0.50

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_shares("other_share", "silent", "audible")
        if self.silent + self.audible > 1 + 1e-9:
            raise ValueError(f"silent and audible add up to 1 at most, got {self.silent} and {self.audible}")


@dataclass(frozen=True, kw_only=True)
class Modality:
    """One modality's side of the world.

    Attributes:
        rotation_DD: what the texts' space is turned by, before the embedding.
        source_KD: the texts and `other` as the modality has them: turned, embedded, times the gain.
        gap_D: the modality's offset, embedded.
        constant, white: standard deviations per dimension of the features.
    """

    rotation_DD: Vectors
    source_KD: Vectors
    gap_D: Vectors
    constant: float
    white: float


class World:
    """Texts `texts_KD` (embedded, `other` last), both modalities, and every video's features."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        if not dataset.classes or dataset.num_segments is None:
            raise ValueError(f"{dataset.name}: needs classes and items of one length")
        self.settings = settings
        self.grid = GridRule(window_s=Fraction(1), hop_s=Fraction(1))
        self.visual_shape: tuple[int, ...] = (settings.feature_width,)
        self.audio_shape: tuple[int, ...] = (settings.feature_width,)
        self._segments: SegmentGrid = self.grid.grid(Fraction(dataset.num_segments))
        self._dataset = dataset
        self._items = items_of(dataset)
        rng, width = world_stream(settings.seed, 0), settings.width
        texts_KD = unit(rng.normal(size=(len(dataset.classes) + 1, width)))
        texts_KD[-1] *= settings.other_length
        texts_KD = unit(texts_KD + settings.cone * 3 * rng.normal(size=width) / np.sqrt(width))
        # One embedding for all: texts, audio and frames share their space.
        out_ED = embedding(settings.seed, 1, width, settings.feature_width)
        self.texts_KD = texts_KD @ out_ED.T

        def modality(gain: float, constant: float, white: float) -> Modality:
            rotation_DD = orthogonal(np.eye(width) + settings.rotation * rng.normal(size=(width, width)))
            gap_D = unit(rng.normal(size=width))
            return Modality(
                rotation_DD=rotation_DD,
                source_KD=gain * texts_KD @ rotation_DD.T @ out_ED.T,
                gap_D=settings.gap * gap_D @ out_ED.T,
                constant=constant * settings.noise_scale,
                white=white * settings.noise_scale,
            )

        self.audio = modality(settings.audio_gain, settings.audio_constant, settings.audio_white)
        self.visual = modality(settings.visual_gain, settings.visual_constant, settings.visual_white)

    def scene(self, video_id: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where the class is heard and where it is seen, (T,) each."""
        return self._scene(self._stream(video_id), video_id)

    def features(self, video_id: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Visual (T, D), of norm 1, and audio (T, D), of norm `audio_scale`."""
        rng = self._stream(video_id)
        heard_T, seen_T = self._scene(rng, video_id)
        label = self._items[video_id][0].category
        if label is None:
            raise ValueError(f"{self._dataset.name}: item {self._items[video_id][0].id} needs a category")
        main = self._dataset.class_index(label)
        visual_TD = self._draw(rng, self.visual, seen_T, main)
        audio_TD = self.settings.audio_scale * self._draw(rng, self.audio, heard_T, main)
        return visual_TD.astype(np.float32), audio_TD.astype(np.float32)

    def texts(self) -> NDArray[np.float32]:
        """(K + 1, D), of norm 1; `other` is last."""
        return self.texts_KD.astype(np.float32)

    def _stream(self, video_id: str) -> np.random.Generator:
        return video_stream(self.settings.noise_seed, split_of(self._items[video_id]), video_id)

    def _scene(self, rng: np.random.Generator, video_id: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        heard_T = np.zeros(self._segments.count, dtype=bool)
        for item in self._items[video_id]:
            for event in item.events:
                heard_T[segments_on(event, self._segments)] = True
        seen_T = heard_T.copy()
        for start, stop in runs(~heard_T):
            drawn = rng.random() - self.settings.silent
            if drawn >= 0:
                on_T = heard_T if drawn < self.settings.audible else seen_T
                on_T[start:stop] = True
        return heard_T, seen_T

    def _draw(self, rng: np.random.Generator, modality: Modality, on_T: NDArray[np.bool_], main: int) -> Vectors:
        settings, source_KD = self.settings, modality.source_KD
        drawn_T = rng.integers(len(source_KD) - 1, size=len(on_T))
        off_TD = settings.other_share * source_KD[-1] + (1 - settings.other_share) * source_KD[drawn_T]
        gain = np.exp(rng.normal(0, settings.gain_spread))
        x_TD = gain * np.where(on_T[:, None], source_KD[main], off_TD) + modality.gap_D
        x_TD += modality.constant * rng.normal(size=x_TD.shape[1]) + modality.white * rng.normal(size=x_TD.shape)
        return unit(x_TD)
