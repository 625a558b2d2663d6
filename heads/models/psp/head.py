"""PSP: audio-guided attention, a BiLSTM a modality, positive sample propagation, one classifier.

    a' = L2 L1 a                                      two linear maps without bias and nothing between
    v' = M2 M1 (attention of a' over the places of a segment), likewise
    fused, v, a = propagation(BiLSTM(v'), BiLSTM(a'))
    logits = W2 relu(W1 fused)
    loss = CE(logits, class) + 100 x pair similarity(v, a)

At AVE's sizes 1,548,657 parameters. The published code counts 1,667,251: 118,594 are of layers that it makes and never
uses (a map of the picture, a classifier a modality, an event branch).

Where several labels may hold at once the first term is a sigmoid's cross-entropy summed over classes. With one vector a
segment sound has nothing to choose from: no attention is made.

B batch, T segments, R places, K outputs.

Source: Zhou et al., CVPR 2021 (PSP), fully supervised, and its published code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from catalog.fields import Dropout, Size, Weight
from heads.blocks.agva import HIDDEN, AudioGuidedAttention
from heads.blocks.feature_config import PlacesConfig
from heads.blocks.item_slices import in_item_slices
from heads.blocks.losses import segment_loss
from heads.blocks.masked_lstm import MaskedLSTM
from heads.blocks.segment_positions import PairedPositions
from heads.features import FeatureBatch, Target
from heads.models.psp.pair_similarity import pair_similarity, pair_similarity_loss, pair_target
from heads.models.psp.propagation import PositiveSamplePropagation
from heads.spec import HeadSpec

SPEC = HeadSpec(
    summary="PSP: positive sample propagation between audio and frames",
    pools_places=False,
    training={
        "epochs": 300,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "optimiser": "adam",
        "schedule": "0.8@60,120",
    },
)
# Between the classifier's two linear maps.
_INNER = 64


class Psp(PairedPositions):
    """Features of audio and frames to logits a segment, and PSP's loss."""

    @dataclass(frozen=True, kw_only=True)
    class Config(PlacesConfig):
        """The architecture; defaults as published.

        Attributes:
            agva: attention over the places as the published code has it (R fixed) or by the paper's formula (any R),
                or their mean.
            agva_hidden: width of that attention's hidden layer.
            hidden: of both modalities after their maps and of the BiLSTMs a direction.
            threshold: of the propagation, for 10 segments (0.095 for weak supervision).
            similarity_weight: of the pair similarity in the loss.
            dropout: inside the propagation.
            standardise: features by channel, by the training split; published: as they are.
        """

        agva: Literal["published", "formula", "off"] = "published"
        agva_hidden: Size = HIDDEN
        hidden: Size = 128
        threshold: Weight = 0.099
        similarity_weight: Weight = 100.0
        dropout: Dropout = 0.1
        standardise: bool = False

        def __post_init__(self) -> None:
            super().__post_init__()
            self.need_both()

    def __init__(self, config: Config) -> None:
        super().__init__(config.visual_width, config.audio_width, standardise=config.standardise)
        self.config = config
        hidden = config.hidden
        self.audio_map, self.visual_map = (
            nn.Sequential(nn.Linear(width, 2 * hidden, bias=False), nn.Linear(2 * hidden, hidden, bias=False))
            for width in (config.audio_width, config.visual_width)
        )
        self.attend: AudioGuidedAttention | None = None
        if config.agva != "off" and config.places > 1:
            self.attend = AudioGuidedAttention(
                config.visual_width, hidden, variant=config.agva, places=config.places, hidden=config.agva_hidden
            )
        self.visual_lstm, self.audio_lstm = MaskedLSTM(hidden, hidden), MaskedLSTM(hidden, hidden)
        self.propagate = PositiveSamplePropagation(2 * hidden, threshold=config.threshold, dropout=config.dropout)
        self.inner = nn.Linear(2 * hidden, _INNER, bias=False)
        self.classify = nn.Linear(_INNER, config.num_classes, bias=False)
        # All but the two maps begin as Xavier says; the propagation has done so itself.
        for module in [self.inner, self.classify, *(self.attend.modules() if self.attend is not None else ())]:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, batch: FeatureBatch) -> Tensor:
        """Logits of the fused vectors."""
        return self._outputs(batch)[0]

    def loss(self, batch: FeatureBatch, target: Target) -> tuple[Tensor, Tensor]:
        """Both losses as (B,) weighted sums and (B,) counts of an item's real segments."""
        logits_BTK, similarity_BT = self._outputs(batch)
        sums_B, counts_B = segment_loss(logits_BTK, target, batch.mask_BT)
        pair_sums_B, _ = pair_similarity_loss(
            similarity_BT, pair_target(target.has_event(batch.mask_BT)), batch.mask_BT
        )
        return sums_B + self.config.similarity_weight * pair_sums_B, counts_B

    def _outputs(self, batch: FeatureBatch) -> tuple[Tensor, Tensor]:
        """Logits (B, T, K) and the cosine of each segment's two vectors after the propagation (B, T)."""
        mask_BT = batch.mask_BT
        visual_BTRV, audio_BTA = self.inputs(batch)
        audio_BTD = self.audio_map(audio_BTA)
        if self.attend is not None:
            visual_BTV = in_item_slices(self.attend, visual_BTRV, audio_BTD, width=self.config.agva_hidden)
        else:
            visual_BTV = visual_BTRV.mean(dim=2)
        fused_BTE, visual_BTE, audio_BTE = self.propagate(
            self.visual_lstm(self.visual_map(visual_BTV), mask_BT), self.audio_lstm(audio_BTD, mask_BT), mask_BT
        )
        logits_BTK: Tensor = self.classify(torch.relu(self.inner(fused_BTE)))
        return logits_BTK, pair_similarity(visual_BTE, audio_BTE)


Head = Psp
