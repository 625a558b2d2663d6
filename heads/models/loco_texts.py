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
from dataclasses import dataclass
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalog.fields import Size
from heads.blocks.class_texts import ClassTexts
from heads.dense.output import DenseOutput
from heads.features import Target
from heads.models.loco.base import LocoHead
from heads.models.loco.trunk import TRAINING, LocoConfig
from heads.spec import HeadInput, HeadSpec

SPEC = HeadSpec(
    summary="LoCo with an open vocabulary: dense events of any classes that have a text; needs text features",
    task="events",
    pools_places=True,
    needs_texts=True,
    training=TRAINING,
)

_SCALE = 1 / 0.07
# Of the scale: CLIP's. Beyond, a class far off would have a logit that no other feature could correct.
_MOST_SCALE = 100.0
# A logit whose probability, and the slope of whose loss, is 0 in float32.
_NEVER = -1e4


class LocoTexts(LocoHead):
    """Features of audio and frames to logits of the texts' classes and offsets at the points of a pyramid."""

    @dataclass(frozen=True, kw_only=True)
    class Config(LocoConfig):
        """See `LocoConfig`; `num_classes` follows the texts.

        Attributes:
            text_width: D; that of the features, unless told otherwise.
            regression: for all classes together, always.
        """

        text_width: Size
        regression: Literal["class_agnostic"] = "class_agnostic"

        @classmethod
        def for_features(cls, given: HeadInput) -> Self:
            """The published sizes, and texts as wide as the features that are looked at (the pictures', of two)."""
            visual = given.visual_shape if given.modality != "audio" else None
            audio = given.audio_shape if given.modality != "visual" else None
            return cls(**cls._sizes(given), text_width=next((shape[-1] for shape in (visual, audio) if shape), 1))

    config: Config
    centre_D: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.text_width + 1)
        self.texts = ClassTexts(config.num_classes, config.text_width, background=False)
        self.register_buffer("centre_D", torch.zeros(config.text_width))
        bias = self.decoder.classify.out.conv.bias
        assert bias is not None, "made with one"
        with torch.no_grad():
            bias[:-1] = 0  # x is a direction; only e is a logit
        self.log_scale = nn.Parameter(torch.tensor(math.log(_SCALE)))

    def set_texts(self, texts_KD: Tensor, trained_K: Tensor | None = None) -> None:
        """Take a vocabulary, of any number of classes. In training mode the first of two trained classes
        or more sets the centre.

        Args:
            texts_KD: float, any length a row (only directions matter); no background.
            trained_K: bool, the classes that the training loss speaks of; None means all.

        Raises:
            ValueError: no text, another width, a row of zeros, NaN or infinity, or a wrong `trained_K`.
        """
        self.texts.set(texts_KD, trained_K)
        if self.training and not bool(self.centre_D.any()) and int(self.texts.trained_K.sum()) > 1:
            self.centre_D.copy_(self.texts.texts_KD[self.texts.trained_K].mean(dim=0))
        self.config = dataclasses.replace(self.config, num_classes=len(texts_KD))

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

    def logits(self, raw_BPO: Tensor) -> Tensor:
        """(B, P, K) of the decoder's D + 1 outputs; 0 stays 0: so are cosines of zeros.

        Raises:
            ValueError: there are no texts yet.
        """
        self.texts.require()
        # In reduced precision a cosine has three digits, and the scale multiplies what is lost.
        with torch.autocast(raw_BPO.device.type, enabled=False):
            raw_BPO = raw_BPO.float()
            scale = self.log_scale.clamp(max=math.log(_MOST_SCALE)).exp()
            directions_KD = F.normalize(self.texts.texts_KD - self.centre_D, dim=-1)
            logits_BPK: Tensor = scale * F.normalize(raw_BPO[..., :-1], dim=-1) @ directions_KD.T + raw_BPO[..., -1:]
        return logits_BPK


Head = LocoTexts
