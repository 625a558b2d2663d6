"""LoCo with an open vocabulary: a point's classes are the texts that its feature points to.

    levels = trunk(visual, audio)                                    as the head `loco` has it
    x, e = three convolutions, shared by the levels                  (B, P, D) and (B, P)
    logit of a class = scale cosine(x, its text - centre) + e        the scale learned, one for all classes
    offsets = relu(three convolutions)                               (B, P, 1, 2), for all classes together

So a class that was never trained on needs no more than its text: `set_texts`, at any time, with any number of classes.
There is no text of a background: e says whether there is any event. The centre is the mean of the first vocabulary's
trained texts and stays with the head: texts of one prompt lie in a narrow cone (ONE-PEACE's 100 of UnAV-100 have a mean
cosine of 0.56), in which a point moves all classes at once. On planted features of such texts (60 classes, 300 steps of
16 items, one seed) 49 % of the events got their class with the centre and 9 % without. Of texts in no cone, events of
classes never trained on got the right one of five in 69 % of the cases with e and in 30 % without (250 steps, mean of
two seeds); in a cone e changed nothing. The scale starts at 1 / 0.07, and e where a class far from x has a probability
of 1 %.

This is an extension of ours; the paper has a closed vocabulary.

B batch, T segments, P points of all levels, K classes, D width of the texts' space.

Source: the LoCo paper (locality-aware cross-modal correspondence learning for dense audio-visual events localization)
for all but the classes; cosine logits with a learned scale after Radford et al., ICML 2021 (CLIP).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from heads.blocks import loco_trunk
from heads.blocks.class_texts import ClassTexts
from heads.blocks.dense_decoder import PRIOR, Levels, PointConvs
from heads.blocks.dense_head import DenseHead
from heads.blocks.dense_output import DenseOutput
from heads.blocks.feature_config import MAX_WIDTH
from heads.blocks.loco_trunk import LocoConfig, LocoTrunk
from heads.model import Modality

if TYPE_CHECKING:
    from heads.batches import Target

SUMMARY = "LoCo with an open vocabulary: dense events of any classes that have a text; needs text features"
POOLS_PLACES = True
DENSE = True
NEEDS_TEXTS = True
TRAINING = loco_trunk.TRAINING

_SCALE = 1 / 0.07
# Of the scale: CLIP's. Beyond, a class far off would have a logit that no other feature could correct.
_MOST_SCALE = 100.0
# A logit whose probability, and the slope of whose loss, is 0 in float32.
_NEVER = -1e4


class LocoTexts(DenseHead):
    """Features of sound and picture to logits of the texts' classes and offsets at the points of a pyramid."""

    @dataclass(frozen=True, kw_only=True)
    class Config(LocoConfig):
        """See `LocoConfig`; `num_classes` follows the texts.

        Attributes:
            text_width: D; that of the features, unless told otherwise.
            regression: for all classes together, always.
        """

        text_width: int
        regression: Literal["class_agnostic"] = "class_agnostic"

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 1 <= self.text_width <= MAX_WIDTH:
                raise ValueError(f"text_width must lie in [1, {MAX_WIDTH}], got {self.text_width}")

        @classmethod
        def for_features(
            cls,
            *,
            visual_shape: Sequence[int] | None,
            audio_shape: Sequence[int] | None,
            num_classes: int,
            modality: Modality,
        ) -> Self:
            """The published sizes, and texts as wide as the features that are looked at (the pictures', of two)."""
            shapes = (visual_shape if modality != "audio" else None, audio_shape if modality != "visual" else None)
            return cls(
                visual_width=visual_shape[-1] if visual_shape else 0,
                audio_width=audio_shape[-1] if audio_shape else 0,
                num_classes=num_classes,
                modality=modality,
                text_width=next((shape[-1] for shape in shapes if shape), 1),
            )

    config: Config
    centre_D: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.trunk = LocoTrunk(config)
        width = self.trunk.out_width
        self.texts = ClassTexts(config.num_classes, config.text_width)
        self.register_buffer("centre_D", torch.zeros(config.text_width))
        self.classify = PointConvs(width, config.text_width + 1, hidden=config.width)
        assert self.classify.out.conv.bias is not None, "made with one"
        with torch.no_grad():
            self.classify.out.conv.bias[-1] = -math.log((1 - PRIOR) / PRIOR)
        self.log_scale = nn.Parameter(torch.tensor(math.log(_SCALE)))
        self.regress = PointConvs(width, 2, hidden=config.width)
        self.scale_L = nn.Parameter(torch.ones(config.levels))

    @property
    def sigma(self) -> float | None:
        """LCC's standard deviation as it stands, in grid steps; None without LCC."""
        return None if self.trunk.lcc is None else self.trunk.lcc.sigma

    def set_texts(self, texts_KD: Tensor, trained_K: Tensor | None = None) -> None:
        """Take a vocabulary, of any number of classes. In training mode the first of two trained classes
        or more sets the centre.

        Args:
            texts_KD: float, any length a row (only directions matter); no background.
            trained_K: bool, the classes that the training loss speaks of; None means all.

        Raises:
            ValueError: no text, another width, a row of zeros, NaN or infinity, or a wrong `trained_K`.
        """
        width = self.config.text_width
        if texts_KD.ndim != 2 or not len(texts_KD) or texts_KD.shape[1] != width:
            raise ValueError(
                f"class texts must be (K, {width}) with K of at least 1, got {tuple(texts_KD.shape)}; for texts of "
                "another width make the head with that text_width"
            )
        if trained_K is not None and (trained_K.shape != texts_KD.shape[:1] or trained_K.dtype != torch.bool):
            raise ValueError(
                f"trained must be bool, one for each of the {len(texts_KD)} texts, got {trained_K.dtype} "
                f"{tuple(trained_K.shape)}"
            )
        # `ClassTexts` knows vocabularies with a background at the end: a row stands in for it and goes again.
        self.texts.set(torch.cat([texts_KD, texts_KD[:1]]))
        trained_K = self.texts.trained_K[:-1] if trained_K is None else trained_K
        self.texts.texts_KD = self.texts.texts_KD[:-1].clone()
        self.texts.trained_K = trained_K.to(self.texts.texts_KD.device).clone()
        if self.training and not bool(self.centre_D.any()) and int(self.texts.trained_K.sum()) > 1:
            self.centre_D.copy_(self.texts.texts_KD[self.texts.trained_K].mean(dim=0))
        self.config = dataclasses.replace(self.config, num_classes=len(texts_KD))

    def fit_statistics(
        self,
        visual: NDArray[np.float32] | None,
        audio: NDArray[np.float32] | None,
        visual_valid_NT: NDArray[np.bool_],
        audio_valid_NT: NDArray[np.bool_],
    ) -> None:
        """Take the standardisation, if wanted, from the training split: features (N, T, ..., D), validity (N, T)."""
        self.trunk.fit_statistics(visual, audio, visual_valid_NT, audio_valid_NT)

    def forward(
        self,
        visual: Tensor | None,
        audio: Tensor | None,
        mask_BT: Tensor,
        visual_valid_BT: Tensor | None = None,
        audio_valid_BT: Tensor | None = None,
    ) -> DenseOutput:
        """Logits of all texts and offsets at the points; P covers T padded to a multiple of 2^(levels - 1).

        Args:
            visual, audio: (B, T, D) or maps (B, T, ..., D), averaged over the places; None if not used. What was not
                computed (NaN) is taken as zeros.
            mask_BT: bool, True where the segment is real.
            visual_valid_BT, audio_valid_BT: bool, True where the feature was computed; None means `mask_BT`.

        Raises:
            ValueError: no texts, or a modality that the head looks at is missing, or of another width or number of
                segments.
        """
        self.texts.require()
        levels, loss = self.trunk(visual, audio, mask_BT, visual_valid_BT, audio_valid_BT)
        counts = [level.x_BTF.shape[1] for level in levels]
        lay = Levels(counts, gap=1, device=mask_BT.device)
        x_BGF, mask_BG = lay.joined([level.x_BTF for level in levels]), lay.joined([level.mask_BT for level in levels])
        mask_BP = lay.points(mask_BG)
        logits_BPK = self._logits(lay.points(self.classify(x_BGF, mask_BG)))
        scale_P = torch.cat([scale.expand(count) for scale, count in zip(self.scale_L, counts, strict=True)])
        offsets_BP2 = F.relu(lay.points(self.regress(x_BGF, mask_BG)) * scale_P[:, None])
        return DenseOutput(
            logits_BPK=logits_BPK,  # 0 outside the mask: so are cosines of zeros
            offsets_BPC2=offsets_BP2[:, :, None],
            mask_BP=mask_BP,
            counts=lay.counts,
            auxiliary=loss,
        )

    def loss_of(self, output: DenseOutput, target: Target) -> tuple[Tensor, Tensor]:
        """As `DenseHead.loss_of`; in training mode classes that are not trained add nothing and learn nothing.

        Raises:
            ValueError: the target has no events' times, or in training one of a class that is not trained.
        """
        trained_K = self.texts.trained_K
        if self.training and not bool(trained_K.all()):
            if target.event_labels_BE is not None:
                self.texts.trained_index(target.event_labels_BE[target.event_labels_BE >= 0])
            output = dataclasses.replace(output, logits_BPK=output.logits_BPK.masked_fill(~trained_K, _NEVER))
        return super().loss_of(output, target)

    def _logits(self, x_BPE: Tensor) -> Tensor:
        """From the convolutions' D + 1 outputs."""
        scale = self.log_scale.clamp(max=math.log(_MOST_SCALE)).exp()
        directions_KD = F.normalize(self.texts.texts_KD - self.centre_D, dim=-1)
        logits_BPK: Tensor = scale * F.normalize(x_BPE[..., :-1], dim=-1) @ directions_KD.T + x_BPE[..., -1:]
        return logits_BPK


Head = LocoTexts
configure = LocoTexts.Config.for_features
