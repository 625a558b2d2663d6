"""What a head is: `HeadSpec`, and `Head`, the base class of all heads.

A file of `heads/models` (`heads.registry` finds it by its name) has `SPEC`, a `HeadSpec`, and `Head`, a class with a
frozen dataclass `Config` of plain fields beside it. Heads that score segments inherit `heads.blocks.segment_head`,
those that find events with a start and an end `heads.dense.head`.

B items of a batch, T segments, R rows, K classes, D width.
"""

from __future__ import annotations

import abc
import contextlib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
from torch import Tensor, nn

from catalog.store.modal import Modal
from heads.features import FeatureBatch, Target

Task = Literal["segments", "events"]
Modality = Literal["both", "audio", "visual"]
MODALITIES: tuple[Modality, ...] = ("both", "audio", "visual")
# The value of a config's field.
Scalar = str | int | float | bool | None
# The class texts in the state dict of a head that has some.
TEXTS = "texts.texts_KD"


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """What is known of a head before it is built.

    Attributes:
        summary: one line.
        task: "segments": `forward` gives logits of each segment; "events": a `heads.dense.output.DenseOutput`, of
            events with a start and an end.
        pools_places: may feature maps be averaged over their positions while they are read?
        training: published settings, fields of `heads.training.settings.Settings`; the others have its defaults.
        needs_texts: `Head.set_texts` must be called before `forward`.
        needs_training: False without parameters: `avel train` evaluates the head and writes the run.
        one_label: only for data sets of one class a segment.
    """

    summary: str
    pools_places: bool
    task: Task = "segments"
    training: Mapping[str, int | float | str] = field(default_factory=dict)
    needs_texts: bool = False
    needs_training: bool = True
    one_label: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "training", types.MappingProxyType(dict(self.training)))

    @property
    def scores_background(self) -> bool:
        """Has the background an output (and a text) of its own, where the data set has a background?"""
        return self.task == "segments"

    def num_outputs(self, num_classes: int, *, background: bool) -> int:
        """K outputs for a data set with so many classes, with or without a background."""
        return num_classes + (background and self.scores_background)


@dataclass(frozen=True, kw_only=True)
class HeadInput:
    """What a head is made for.

    Attributes:
        visual_shape, audio_shape: of one segment's features, as the store states them; None where there are none.
        num_classes: K, background included where the data set has one.
        modality: which features are to be looked at.
    """

    visual_shape: Sequence[int] | None
    audio_shape: Sequence[int] | None
    num_classes: int
    modality: Modality


class HeadConfig(Protocol):
    """A head's architecture: a frozen dataclass of plain fields, which a run's record keeps."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def num_classes(self) -> int:
        """K outputs, the background included where the data set has one."""
        ...

    @property
    def modality(self) -> Modality:
        """The features that are used."""
        ...

    @classmethod
    def for_features(cls, given: HeadInput) -> Self:
        """The published config for such an input.

        Raises:
            ValueError: the head does not take such features.
        """
        ...


class Head(nn.Module, abc.ABC):
    """Features to predictions.

    Attributes:
        Config: of the architecture; the only argument of `__init__`.
    """

    Config: ClassVar[type[HeadConfig]]

    @abc.abstractmethod
    def loss(self, batch: FeatureBatch, target: Target) -> tuple[Tensor, Tensor]:
        """(B,) sums and (B,) counts; the loss of a batch is the sum of the sums by the sum of the counts."""

    def fit_statistics(self, visual: Modal | None, audio: Modal | None) -> None:
        """Take statistics of the training split before training starts; none by default.

        Args:
            visual, audio: all rows of the split; None where there are no such features.
        """

    def scalars(self) -> dict[str, float]:
        """Learned numbers worth a line in the history of each epoch; none by default."""
        return {}

    def set_texts(self, texts_KD: Tensor, trained_K: Tensor | None = None) -> None:
        """Replace the vocabulary of a head whose spec has `needs_texts`; see `heads.blocks.class_texts`.

        Raises:
            ValueError: the head has no class texts, or not such ones.
        """
        raise ValueError(f"{type(self).__name__} has no class texts, got {tuple(texts_KD.shape)}")


@contextlib.contextmanager
def inference(module: nn.Module) -> Iterator[None]:
    """Without gradients and in evaluation mode; the module's mode is restored, whatever happens."""
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        module.train(was_training)
