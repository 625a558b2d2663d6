"""What heads' configs begin with: the features that are looked at, and how many outputs there are.

A head's `Config` that inherits one of these has the head's `configure` in `for_features`.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from heads.spec import MODALITIES, Modality

# Far above any encoder's; numbers that torch could not even name a shape with come from damaged files.
MAX_WIDTH = 2**24


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """Of a head that takes one vector a segment, or averages over places itself.

    Attributes:
        visual_width, audio_width: of the features, read from the store; 0 where it has none.
        num_classes: K, background included where the data set has one.
        modality: which features are looked at.
    """

    visual_width: int
    audio_width: int
    num_classes: int
    modality: Modality

    @classmethod
    def for_features(
        cls,
        *,
        visual_shape: Sequence[int] | None,
        audio_shape: Sequence[int] | None,
        num_classes: int,
        modality: Modality,
    ) -> Self:
        """The published config for features of these shapes (without rows and time), as the store states them."""
        return cls(
            visual_width=visual_shape[-1] if visual_shape else 0,
            audio_width=audio_shape[-1] if audio_shape else 0,
            num_classes=num_classes,
            modality=modality,
        )

    @property
    def uses_visual(self) -> bool:
        """Are there visual features, and are they looked at?"""
        return self.modality in ("both", "visual") and self.visual_width > 0

    @property
    def uses_audio(self) -> bool:
        """Are there audio features, and are they looked at?"""
        return self.modality in ("both", "audio") and self.audio_width > 0

    def need_either(self, head: str) -> None:
        """For heads that do with one modality.

        Raises:
            ValueError: there is no such modality, none to look at, or a width or the classes are out of range.
        """
        self._need_modality()
        widths = (self.visual_width, self.audio_width)
        if self.num_classes < 1 or min(widths) < 0:
            raise ValueError(f"{head} needs a class and widths of at least 0, got {self}")
        if max(self.num_classes, *widths) > MAX_WIDTH:
            raise ValueError(f"{head} takes widths and classes up to {MAX_WIDTH}, got {self}")
        if not (self.uses_visual or self.uses_audio):
            raise ValueError(f"{head} has nothing to look at: modality {self.modality}, got {self}")

    def need_both(self, head: str) -> None:
        """For heads that relate sound to picture.

        Raises:
            ValueError: one modality alone is asked for, or the features have only one, or a width is out of range.
        """
        self._need_modality()
        if self.modality != "both":
            raise ValueError(
                f"{head} relates sound to picture and needs both, got modality {self.modality}; for one modality alone "
                "take the head avel, ave_clip or linear, or of those that find events with times loco or action_former"
            )
        for name, width in (("visual", self.visual_width), ("audio", self.audio_width)):
            if not 1 <= width <= MAX_WIDTH:
                raise ValueError(f"{head} needs {name} features of a width from 1 to {MAX_WIDTH}, got {width}")

    def _need_modality(self) -> None:
        if self.modality not in MODALITIES:
            raise ValueError(f"modality must be both, audio or visual, got {self.modality!r}")


@dataclass(frozen=True, kw_only=True)
class PlacesConfig(FeatureConfig):
    """Of a head whose parameters may hang on the places of a picture.

    Attributes:
        places: R, vectors a segment.
    """

    places: int = 1

    @classmethod
    def for_features(
        cls,
        *,
        visual_shape: Sequence[int] | None,
        audio_shape: Sequence[int] | None,
        num_classes: int,
        modality: Modality,
    ) -> Self:
        """As above, with the places of the visual features."""
        flat = super().for_features(
            visual_shape=visual_shape, audio_shape=audio_shape, num_classes=num_classes, modality=modality
        )
        return dataclasses.replace(flat, places=math.prod(visual_shape[:-1]) if visual_shape else 1)


def check_choices(config: Any) -> None:
    """Sees that a config's `Literal` fields hold what they may.

    Raises:
        ValueError: one does not; names it.
    """
    for name, hint in typing.get_type_hints(type(config)).items():
        known = typing.get_args(hint)
        if typing.get_origin(hint) is Literal and getattr(config, name) not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(config, name)!r}")
