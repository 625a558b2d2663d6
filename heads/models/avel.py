"""AVEL: audio-guided attention, a BiLSTM a modality, and two linear maps: the first published head for AVE.

    o = attention of sound over the places of a segment
    x = [BiLSTM(audio), BiLSTM(o)], logits = W2 relu(W1 relu(x))

The published loss is the multi-label soft margin of the **softmax's** outputs: a sigmoid on numbers in [0, 1], so
gradients are weak and a segment's loss never falls under about 0.69. It is the default here; `loss="cross-entropy"` is
the plain one. Where several labels may hold at once, either is a sigmoid's cross-entropy over the logits.

With one vector a segment sound has nothing to choose from: no attention is made. With one modality there is its BiLSTM
alone, over the mean of the places: the uni-modal rows that later papers print.

B batch, T segments, R places, K outputs.

Source: Tian et al., ECCV 2018 (AVE), "A+V-att", and its published code (Xavier everywhere but in the LSTMs). There the
learning rate falls to a tenth after 15,000 of about 15,700 steps, which is left out of the training settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalog.fields import Size
from heads.blocks.agva import HIDDEN, AudioGuidedAttention
from heads.blocks.feature_config import PlacesConfig
from heads.blocks.item_slices import in_item_slices
from heads.blocks.losses import segment_loss
from heads.blocks.masked_lstm import MaskedLSTM
from heads.blocks.segment_positions import PairedPositions
from heads.features import FeatureBatch, Target
from heads.spec import HeadSpec

SPEC = HeadSpec(
    summary="AVEL: audio-guided attention over places and a BiLSTM a modality",
    pools_places=False,
    training={
        "epochs": 300,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "optimiser": "adam",
        "schedule": "constant",
    },
)
# Between the two linear maps.
_INNER = 64


class Avel(PairedPositions):
    """Features of audio and frames to logits a segment, and the published loss."""

    @dataclass(frozen=True, kw_only=True)
    class Config(PlacesConfig):
        """The architecture; defaults as published.

        Attributes:
            agva: attention over the places as the published code has it (R fixed) or by the paper's formula (any R),
                or their mean.
            agva_hidden: width of that attention's hidden layer.
            hidden: of the BiLSTMs, a direction.
            loss: of one label a segment.
            standardise: features by channel, by the training split; published: as they are.
        """

        agva: Literal["published", "formula", "off"] = "published"
        agva_hidden: Size = HIDDEN
        hidden: Size = 128
        loss: Literal["soft-margin", "cross-entropy"] = "soft-margin"
        standardise: bool = False

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.modality == "both":
                self.need_both()

    def __init__(self, config: Config) -> None:
        super().__init__(config.visual_width, config.audio_width, standardise=config.standardise)
        self.config = config
        self.attend: AudioGuidedAttention | None = None
        if config.agva != "off" and config.places > 1 and config.modality == "both":
            self.attend = AudioGuidedAttention(
                config.visual_width,
                config.audio_width,
                variant=config.agva,
                places=config.places,
                hidden=config.agva_hidden,
            )
        encoded = 0
        if config.uses_visual:
            self.visual_lstm = MaskedLSTM(config.visual_width, config.hidden)
            encoded += 2 * config.hidden
        if config.uses_audio:
            self.audio_lstm = MaskedLSTM(config.audio_width, config.hidden)
            encoded += 2 * config.hidden
        self.inner, self.classify = nn.Linear(encoded, _INNER), nn.Linear(_INNER, config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, batch: FeatureBatch) -> Tensor:
        """Logits, before the published net\'s softmax."""
        mask_BT = batch.mask_BT
        if self.config.modality == "both":
            visual_BTRV, audio_BTA = self.inputs(batch)
            if self.attend is not None:
                visual_BTV = in_item_slices(self.attend, visual_BTRV, audio_BTA, width=self.config.agva_hidden)
            else:
                visual_BTV = visual_BTRV.mean(dim=2)
            x_BTE = torch.cat([self.audio_lstm(audio_BTA, mask_BT), self.visual_lstm(visual_BTV, mask_BT)], dim=-1)
        elif self.config.modality == "audio":
            x_BTE = self.audio_lstm(self.audio_input(batch.audio, batch.audio_valid_BT).mean(dim=2), mask_BT)
        else:
            x_BTE = self.visual_lstm(self.visual_input(batch.visual, batch.visual_valid_BT).mean(dim=2), mask_BT)
        logits_BTK: Tensor = self.classify(torch.relu(self.inner(torch.relu(x_BTE))))
        return logits_BTK

    def loss(self, batch: FeatureBatch, target: Target) -> tuple[Tensor, Tensor]:
        """The configured loss as (B,) sums in nats and (B,) counts of an item's real segments."""
        logits_BTK = self(batch)
        if target.classes_BT is None or self.config.loss == "cross-entropy":
            return segment_loss(logits_BTK, target, batch.mask_BT)
        return soft_margin(logits_BTK.softmax(dim=-1), target.classes_BT, batch.mask_BT)


Head = Avel


def soft_margin(scores_BTK: Tensor, classes_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Multi-label soft margin: the sigmoid's cross-entropy of each output against the one-hot class, mean over outputs.

    Args:
        scores_BTK: what the sigmoid is taken of; the published head gives probabilities.
        classes_BT: int64 in [0, K).
        mask_BT: bool; the rest weighs nothing.

    Returns:
        (B,) sums over an item's real segments in nats, and (B,) counts of them.
    """
    labels_BTK = F.one_hot(classes_BT, scores_BTK.shape[-1]).to(scores_BTK.dtype)
    loss_BT = F.binary_cross_entropy_with_logits(scores_BTK, labels_BTK, reduction="none").mean(dim=-1)
    return torch.where(mask_BT, loss_BT, 0.0).sum(dim=1), mask_BT.sum(dim=1)
