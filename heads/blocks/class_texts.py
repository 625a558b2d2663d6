"""The text features of the classes, kept in a head: the vocabulary of an open-vocabulary head.

B batch, T segments, K texts, D width of the shared space. Heads that choose one class for each segment have the text of
the background ("other") as the last one; heads that find events have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalog.fields import Size, check_fields
from heads.blocks.feature_config import ClassesAndBackground
from heads.spec import HeadInput, Modality


@dataclass(frozen=True, kw_only=True)
class SharedSpaceConfig:
    """Of a head that compares features with class texts in one space.

    Attributes:
        width: D.
        num_classes: K, background included. `set_texts` may change it later.
        modality: which features are looked at.

    Raises:
        ValueError: a field does not fit its type.
    """

    width: Size
    num_classes: ClassesAndBackground
    modality: Modality

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def for_features(cls, given: HeadInput) -> Self:
        """The published config for such an input.

        Raises:
            ValueError: a used modality is missing, or the two differ in width: they share no space with a text.
        """
        shapes = {"visual": given.visual_shape, "audio": given.audio_shape}
        used = {name: shape for name, shape in shapes.items() if given.modality in ("both", name)}
        widths = {name: shape[-1] if shape else None for name, shape in used.items()}
        width = next(iter(widths.values()), None)
        if width is None or set(widths.values()) != {width}:
            listed = ", ".join(f"{name} {got or 'none'}" for name, got in widths.items())
            raise ValueError(
                "an open-vocabulary head needs features in the space of the class texts (imagebind-1s has them), got "
                f"widths: {listed}; choose such a recipe, or --modality where one modality is missing"
            )
        return cls(width=width, num_classes=given.num_classes, modality=given.modality)


class ClassTexts(nn.Module):
    """Unit text vectors, replaced as a whole when the vocabulary changes. Nothing here is trained.

    Args:
        num_classes: K, until `set`.
        width: D.
        background: is the last text always that of the background?

    Attributes:
        texts_KD: float32 buffer, rows of unit length; all 0 until `set`.
        trained_K: bool buffer, the classes that a training loss chooses among; all True until `set`.
    """

    texts_KD: Tensor
    trained_K: Tensor

    def __init__(self, num_classes: int, width: int, *, background: bool = True) -> None:
        super().__init__()
        self.background = background
        self.register_buffer("texts_KD", torch.zeros(num_classes, width))
        self.register_buffer("trained_K", torch.ones(num_classes, dtype=torch.bool))

    def set(self, texts_KD: Tensor, trained_K: Tensor | None = None) -> None:
        """Take a vocabulary.

        Args:
            texts_KD: float, any length a row (only directions matter), the background's last. K may differ from before.
            trained_K: bool; the background must be among them. None means all.

        Raises:
            ValueError: no row besides the background's, another width, a row of zeros, NaN or infinity, or a wrong
                `trained_K`.
        """
        width = self.texts_KD.shape[1]
        least = 1 + self.background
        if texts_KD.ndim != 2 or len(texts_KD) < least or texts_KD.shape[1] != width:
            last = " (the background's last)" if self.background else ""
            raise ValueError(
                f"class texts must be (K, {width}) with K of at least {least}{last}, got {tuple(texts_KD.shape)}; for "
                "texts of another width make the head for that width"
            )
        texts_KD = texts_KD.detach().to(self.texts_KD)
        length_K = texts_KD.norm(dim=1)
        bad_K = ~torch.isfinite(length_K) | (length_K == 0)
        if bool(bad_K.any()):
            raise ValueError(f"class texts must be finite and not zero, got otherwise in rows {_listed(bad_K)}")
        if trained_K is None:
            trained_K = torch.ones(len(texts_KD), dtype=torch.bool)
        odd = trained_K.shape != texts_KD.shape[:1] or trained_K.dtype != torch.bool
        if odd or (self.background and not bool(trained_K[-1])):
            last = " and True for the background's" if self.background else ""
            raise ValueError(
                f"trained must be bool, one for each of the {len(texts_KD)} texts{last}, got {trained_K.dtype} "
                f"{tuple(trained_K.shape)}"
            )
        self.texts_KD = texts_KD / length_K[:, None]
        self.trained_K = trained_K.to(self.trained_K.device)

    def require(self) -> None:
        """Raises:
        ValueError: there are no texts yet."""
        if not bool(self.texts_KD.any()):
            raise ValueError("the head has no class texts: call set_texts with the vocabulary's text features first")

    def cosines(self, x_BTD: Tensor) -> Tensor:
        """(B, T, K) cosine of each vector with each class; 0 for a vector of zeros."""
        return F.normalize(x_BTD, dim=-1) @ self.texts_KD.T

    def trained_index(self, classes: Tensor) -> Tensor:
        """The places of `classes` (int64, any shape) among the trained ones.

        Raises:
            ValueError: a class is not a trained one.
        """
        place_K = torch.where(self.trained_K, self.trained_K.cumsum(0) - 1, -1)
        places = place_K[classes]
        if bool((places < 0).any()):
            odd_K = torch.zeros_like(self.trained_K)
            odd_K[classes[places < 0]] = True
            raise ValueError(
                f"the training targets hold classes {_listed(odd_K)}, which set_texts was not told are trained"
            )
        return places


def _listed(rows_K: Tensor) -> str:
    return ", ".join(map(str, rows_K.nonzero()[:10, 0].tolist()))
