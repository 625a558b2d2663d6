"""OV-AVEL, fine-tuned: a temporal layer after each frozen tower, cosines with the class texts, their geometric mean.

For each segment the score of a class is sqrt(relu(cos(audio, text) * cos(visual, text))); the scores of a segment are
brought to [0, 1] over its classes (their least becomes 0, their greatest 1), and that is the logit: cross-entropy
without a temperature cannot fall under ln(46 + e) - 1 = 2.886 for 47 classes. Trained on the seen classes and the
background ("other"), it chooses among all texts it is given.

B batch, T segments, K classes with background as the last one, D width of the space that sound, picture and text share.

Where this differs from the published code: the slope of the root at 0 is taken as 0, so no batch turns to NaN (there
such batches are skipped); a segment that lacks a feature is background unless the layer can take it from its
neighbours.

Source: Zhou et al., CVPR 2025, and github.com/jasongief/OV-AVEL. Readings of what they leave open: without "other" a
background segment is neither trained on nor ever predicted; the linear variant is one map D to D a modality; the
cross-modal one lets each modality ask the other with the same layer, "both" adds up the two layers' outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from catalog.fields import Dropout, Size, Weight
from heads.blocks.class_texts import ClassTexts, SharedSpaceConfig
from heads.blocks.segment_head import SegmentHead
from heads.blocks.segment_vectors import segment_vectors
from heads.features import FeatureBatch, Target
from heads.models.ov_avel.temporal_layer import TemporalLayer
from heads.spec import HeadSpec

# The paper's; its script runs 10 epochs and lowers the rate at 10, 20 and 30, which 5 epochs never reach.
SPEC = HeadSpec(
    summary="OV-AVEL: a temporal layer a modality, geometric mean of the cosines with class texts; needs text features",
    pools_places=True,
    needs_texts=True,
    training={
        "epochs": 5,
        "batch_size": 32,
        "learning_rate": 5e-5,
        "weight_decay": 0.0,
        "optimiser": "adam",
        "schedule": "constant",
        "clip_norm": 0.8,
    },
)
# Keeps the min-max of equal scores finite; the published value.
_EPS = 1e-8
# A head from a damaged file must not take all memory; nobody has found more than one layer to help.
MAX_LAYERS = 64
# Below every logit of a class, for a background that is not among the candidates.
_NEVER = -1.0


class OvAvel(SegmentHead):
    """Unit-length towers, layers over time, cosines with the class texts, fused."""

    @dataclass(frozen=True, kw_only=True)
    class Config(SharedSpaceConfig):
        """The architecture and its ablations.

        Attributes:
            layer: "temporal", "linear" (ablation), or "none": the towers as they are.
            num_layers: L, layers a modality.
            interaction: "self", "cross" or "both": which modality a temporal layer attends to.
            fusion: of the two cosines.
            other: is the background's text a candidate?
            hidden, num_attention_heads, feedforward, dropout: of a temporal layer.
            audio_scale, visual_scale: the length that each feature vector is brought to; 0 keeps the stored one.
                ImageBind's audio output has length 20 and its visual output 1, and the layer's behaviour hangs on it;
                a store may hold either, so the length is set here.
        """

        layer: Literal["temporal", "linear", "none"] = "temporal"
        num_layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)] = 1
        interaction: Literal["self", "cross", "both"] = "self"
        fusion: Literal["geometric", "arithmetic"] = "geometric"
        other: bool = True
        hidden: Size = 256
        num_attention_heads: Size = 1
        feedforward: Size = 512
        dropout: Dropout = 0.1
        audio_scale: Weight = 20.0
        visual_scale: Weight = 1.0

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.hidden % self.num_attention_heads:
                raise ValueError(
                    f"hidden must be a multiple of num_attention_heads, got {self.hidden} and "
                    f"{self.num_attention_heads}"
                )
            if self.interaction != "self" and (self.layer != "temporal" or self.modality != "both"):
                raise ValueError(
                    f"interaction {self.interaction} needs temporal layers and both modalities, got layer {self.layer},"
                    f" modality {self.modality}"
                )

        @property
        def modalities(self) -> tuple[str, ...]:
            return ("audio", "visual") if self.modality == "both" else (self.modality,)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.texts = ClassTexts(config.num_classes, config.width)
        self.own = _layers(config, wanted=config.interaction != "cross")
        self.crossed = _layers(config, wanted=config.interaction != "self")

    def set_texts(self, texts_KD: Tensor, trained_K: Tensor | None = None) -> None:
        """Take a vocabulary; see `ClassTexts.set`. The background's text is a row of it also where it is not used.

        K may be 47 in training (all of them trained) and 68 afterwards; or 68 all along with `trained_K` saying which
        47 the training loss chooses among: the same loss.
        """
        self.texts.set(texts_KD, trained_K)

    def forward(self, batch: FeatureBatch) -> Tensor:
        """Logits (B, T, K) float32 in [0, 1] over all texts; the background's is -1 where it is not a candidate.

        A segment that has nothing to go by in a modality (outside the mask; no feature there, and none in the whole
        item that a temporal layer could take up) is background: 1 there, 0 elsewhere.

        Raises:
            ValueError: no texts, or a modality that the head looks at is missing or of another width.
        """
        scores_BTK, known_BT = self._scores(batch)
        return self._logits(scores_BTK, known_BT)

    def loss(self, batch: FeatureBatch, target: Target) -> tuple[Tensor, Tensor]:
        """Cross-entropy in nats, as (B,) sums and (B,) counts of an item's real segments.

        In training mode the candidates are the trained classes alone (`set_texts`): the min-max is taken over them
        too. In evaluation mode they are all. Without `other`, segments of background are not counted.

        Raises:
            ValueError: as `forward`, or a target of a class that is not trained, in training mode.
        """
        scores_BTK, known_BT = self._scores(batch)
        assert target.classes_BT is not None, "a vocabulary with a background is for one class a segment"
        classes_BT, counted_BT = target.classes_BT, batch.mask_BT
        if not self.config.other:
            counted_BT = counted_BT & (classes_BT != scores_BTK.shape[-1] - 1)
        if self.training:
            scores_BTK = scores_BTK[..., self.texts.trained_K]
            classes_BT = self.texts.trained_index(classes_BT.where(batch.mask_BT, len(self.texts.trained_K) - 1))
        loss_BT = F.cross_entropy(self._logits(scores_BTK, known_BT).movedim(-1, 1), classes_BT, reduction="none")
        return torch.where(counted_BT, loss_BT, 0.0).sum(dim=1), counted_BT.sum(dim=1)

    def _scores(self, batch: FeatureBatch) -> tuple[Tensor, Tensor]:
        """Fused scores (B, T, K) and the segments that have something to go by in each modality."""
        self.texts.require()
        scales = {"audio": self.config.audio_scale, "visual": self.config.visual_scale}
        vectors, valid = {}, {}
        known_BT = batch.mask_BT
        for name in self.config.modalities:
            values, valid[name] = batch.modality(name)
            vectors[name] = segment_vectors(name, values, valid[name], self.config.width)
            if scales[name]:
                vectors[name] = scales[name] * F.normalize(vectors[name], dim=-1)
            layer_reaches = self.config.layer == "temporal"
            known_BT = known_BT & (valid[name].any(dim=1, keepdim=True) if layer_reaches else valid[name])
        for level in range(self.config.num_layers if self.config.layer != "none" else 0):
            vectors = self._level(level, vectors, valid)
        cosines = [self.texts.cosines(vectors[name]) for name in self.config.modalities]
        return fuse(cosines, self.config.fusion), known_BT

    def _level(self, level: int, vectors: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = {}
        for name, x_BTD in vectors.items():
            if self.config.layer == "linear":
                outputs[name] = self.own[f"{name}_{level}"](x_BTD)
                continue
            parts = []
            if self.config.interaction != "cross":
                parts.append(self.own[f"{name}_{level}"](x_BTD, valid[name]))
            if self.config.interaction != "self":
                other = "visual" if name == "audio" else "audio"
                parts.append(self.crossed[f"{name}_{level}"](x_BTD, valid[other], vectors[other]))
            outputs[name] = torch.stack(parts).sum(dim=0)
        return outputs

    def _logits(self, scores_BTK: Tensor, known_BT: Tensor) -> Tensor:
        if self.config.other:
            logits_BTK = min_max(scores_BTK)
        else:
            events_BTC = min_max(scores_BTK[..., :-1])
            logits_BTK = torch.cat([events_BTC, torch.full_like(scores_BTK[..., -1:], _NEVER)], dim=-1)
        background_K = torch.zeros_like(logits_BTK[0, 0])
        background_K[-1] = 1
        return torch.where(known_BT[..., None], logits_BTK, background_K)


Head = OvAvel


def fuse(cosines: Sequence[Tensor], fusion: Literal["geometric", "arithmetic"]) -> Tensor:
    """One score from the cosines (same shapes) of one or both modalities.

    Geometric: sqrt(relu(product)), so two negative cosines make a positive score, as published. One is taken as it is.
    """
    if len(cosines) == 1:
        return cosines[0]
    audio, visual = cosines
    if fusion == "arithmetic":
        return (audio + visual) / 2
    product = audio * visual
    positive = product > 0
    # The inner `where` keeps the infinite slope of the root at 0 from meeting the 0 of the outer one: that is NaN.
    return torch.where(positive, torch.where(positive, product, 1.0).sqrt(), 0.0)


def min_max(scores_BTK: Tensor) -> Tensor:
    """Scores brought to [0, 1] over the last axis; all 0 where they are equal."""
    least, greatest = scores_BTK.aminmax(dim=-1, keepdim=True)
    return (scores_BTK - least) / (greatest - least + _EPS)


def _layers(config: OvAvel.Config, *, wanted: bool) -> nn.ModuleDict:
    if config.layer == "none" or not wanted:
        return nn.ModuleDict()

    def layer() -> nn.Module:
        if config.layer == "linear":
            return nn.Linear(config.width, config.width)
        return TemporalLayer(
            config.width,
            hidden=config.hidden,
            num_heads=config.num_attention_heads,
            feedforward=config.feedforward,
            dropout=config.dropout,
        )

    return nn.ModuleDict(
        {f"{name}_{level}": layer() for name in config.modalities for level in range(config.num_layers)}
    )
