"""What heads' configs begin with: the features that are looked at, and how many outputs there are.

A head's `Config` that inherits one of these has the head's `configure` in `for_features`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field

from catalog.fields import MAX_SIZE, Count, Size, check_fields
from heads.spec import HeadInput, Modality

# K of a head that needs a class and the background.
ClassesAndBackground = Annotated[int, Field(ge=2, le=MAX_SIZE)]


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """Of a head that takes one vector a segment, or averages over positions itself.

    Attributes:
        visual_width, audio_width: of the features, read from the store; 0 where it has none.
        num_classes: K, background included where the data set has one.
        modality: which features are looked at.

    Raises:
        ValueError: a field does not fit its type, or there are no features to look at.
    """

    visual_width: Count
    audio_width: Count
    num_classes: Size
    modality: Modality

    def __post_init__(self) -> None:
        check_fields(self)
        if not (self.uses_visual or self.uses_audio):
            raise ValueError(f"there is nothing to look at: modality {self.modality}, got {self}")

    @classmethod
    def for_features(cls, given: HeadInput) -> Self:
        """The published config for such an input."""
        return cls(**cls._sizes(given))

    @staticmethod
    def _sizes(given: HeadInput) -> dict[str, Any]:
        return {
            "visual_width": given.visual_shape[-1] if given.visual_shape else 0,
            "audio_width": given.audio_shape[-1] if given.audio_shape else 0,
            "num_classes": given.num_classes,
            "modality": given.modality,
        }

    @property
    def uses_visual(self) -> bool:
        """Are there visual features, and are they looked at?"""
        return self.modality in ("both", "visual") and self.visual_width > 0

    @property
    def uses_audio(self) -> bool:
        """Are there audio features, and are they looked at?"""
        return self.modality in ("both", "audio") and self.audio_width > 0

    def need_both(self) -> None:
        """For heads that relate audio to frames.

        Raises:
            ValueError: one modality alone is asked for, or the features have only one.
        """
        if not (self.uses_visual and self.uses_audio):
            raise ValueError(
                f"the head relates audio to frames and needs both, got modality {self.modality} and widths "
                f"{self.visual_width} (visual) and {self.audio_width} (audio); for one modality alone take the head "
                "avel, ave_clip or linear, or of those that find events with times loco or action_former"
            )

    def need_heads(self, num_heads: int, width: int) -> None:
        """For heads with attention.

        Raises:
            ValueError: the width does not divide by the number of attention heads.
        """
        if width % num_heads:
            raise ValueError(f"width must be a multiple of num_heads, got {width} and {num_heads}")


@dataclass(frozen=True, kw_only=True)
class PlacesConfig(FeatureConfig):
    """Of a head whose parameters may depend on the number of positions of a feature map.

    Attributes:
        places: R, positions, each with a vector, a segment.
    """

    places: Size = 1

    @classmethod
    def for_features(cls, given: HeadInput) -> Self:
        """As above, with the positions of the visual features."""
        places = math.prod(given.visual_shape[:-1]) if given.visual_shape else 1
        return cls(**cls._sizes(given), places=places)
