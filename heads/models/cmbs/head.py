"""CMBS: background suppression across modalities, in two branches: is a second an event, and which class is the video.

    o_v = attention of sound over places, r_v, r_a = BiLSTM(o_v), BiLSTM(a)
    k_v, k_a = 2 transformer layers over r_v, r_a            q_a = layer(r_a over [k_v, r_a]), q_v likewise
    g_v, g_a = sigmoid(linear(k_v)), sigmoid(linear(k_a))    q_v += alpha g_a q_v, q_a += alpha g_v q_a
    s = mean of both modalities' class scores (CAS), each the mean of a class's 4 best seconds
    f = mean of both interactions of q_v and q_a
    event logit a second = linear(f), class logits of the video = linear(max over time of f) + gamma s
    loss = BCE(event) + BCE(g_v g_a) + CE(class) + CE(s)

`forward` gives K numbers a segment whose arg-max is the published decision, see `two_branch_logits`.

As the published code has it, also where that is odd: the BCE of the gates takes their product as a logit; the second
interaction is given the first one's output. Layers that it makes and never uses are left out, and all is float32 where
that code trains in float64.

Readings:
- with fewer than 4 real seconds the CAS mean is over those there are;
- the class losses weigh an item by its real segments, and an item without events weighs nothing in them (there it
  counts as class 0; AVE has one such video). Of several event classes an item's commonest counts.

B batch, T segments, R places, V and A feature widths, D width, K outputs, C = K - 1 event classes.

Source: Xia and Zhao, CVPR 2022 (CMBS), fully supervised, and its published code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalog.fields import Count, Dropout, EvenSize, Finite, Size
from heads.blocks.cross_modal_layer import CrossModalLayer, ModalityInteraction
from heads.blocks.feature_config import ClassesAndBackground, FeatureConfig
from heads.blocks.item_slices import in_item_slices
from heads.blocks.masked_lstm import MaskedLSTM
from heads.blocks.segment_positions import PairedPositions
from heads.features import FeatureBatch, Target
from heads.models.cmbs.channel_spatial_attention import ChannelSpatialAttention
from heads.spec import HeadSpec

# Published: the rate is halved after epochs 10, 20 and 30.
SPEC = HeadSpec(
    summary="CMBS: cross-modal background suppression, an event branch a second and one class a video",
    pools_places=False,
    one_label=True,
    training={
        "epochs": 200,
        "batch_size": 64,
        "learning_rate": 7e-4,
        "weight_decay": 0.0,
        "optimiser": "adam",
        "schedule": "0.5@10,20,30",
        "clip_norm": 0.5,
    },
)
# The seconds whose scores stand for a video's.
_BEST = 4


class Branches(NamedTuple):
    """What CMBS computes: event logits (B, T), the gates' product (B, T) in (0, 1), class logits and CAS (B, C)."""

    event_BT: Tensor
    gate_BT: Tensor
    class_BC: Tensor
    scores_BC: Tensor


class Cmbs(PairedPositions):
    """Features of audio and frames to logits a segment, and CMBS's loss."""

    @dataclass(frozen=True, kw_only=True)
    class Config(FeatureConfig):
        """The architecture; defaults as published.

        Attributes:
            num_classes: K, background included, as the last.
            visual_hidden: width that visual features are mapped to.
            width: D, even.
            num_heads, feedforward, encoder_layers: of the transformer layers.
            attention_hidden: of the attention over places.
            alpha: of the gates. beta: of the attention over places. gamma: of the CAS in the class logits.
            dropout: of the visual map and the attention over places; the transformer layers have half of it.
            standardise: features by channel, by the training split; published: as they are.
        """

        num_classes: ClassesAndBackground
        visual_hidden: Size = 512
        width: EvenSize = 256
        num_heads: Size = 4
        feedforward: Size = 1024
        encoder_layers: Count = 2
        attention_hidden: Size = 256
        alpha: Finite = 0.1
        beta: Finite = 0.4
        gamma: Finite = 0.3
        dropout: Dropout = 0.2
        standardise: bool = False

        def __post_init__(self) -> None:
            super().__post_init__()
            self.need_both()
            self.need_heads(self.num_heads, self.width)

    def __init__(self, config: Config) -> None:
        super().__init__(config.visual_width, config.audio_width, standardise=config.standardise)
        self.config = config
        width, visual, classes = config.width, config.visual_hidden, config.num_classes - 1
        self.visual_map = nn.Linear(config.visual_width, visual)
        self.dropout = nn.Dropout(config.dropout)
        self.attend = ChannelSpatialAttention(
            visual, config.audio_width, hidden=config.attention_hidden, beta=config.beta, dropout=config.dropout
        )
        # The picture's states are twice as wide as the sound's.
        self.visual_lstm, self.audio_lstm = MaskedLSTM(visual, width), MaskedLSTM(config.audio_width, width // 2)
        self.visual_encoder, self.audio_encoder = _Encoder(2 * width, config), _Encoder(width, config)
        self.visual_query, self.audio_query = nn.Linear(2 * width, width), nn.Linear(width, width)
        self.visual_decoder, self.audio_decoder = _layer(config), _layer(config)
        self.visual_gate, self.audio_gate = nn.Linear(width, 1), nn.Linear(width, 1)
        self.visual_scores, self.audio_scores = nn.Linear(width, classes), nn.Linear(width, classes)
        self.visual_interaction, self.audio_interaction = (
            ModalityInteraction(width, num_heads=config.num_heads) for _ in range(2)
        )
        self.event, self.classify = nn.Linear(width, 1), nn.Linear(width, classes)

    def forward(self, batch: FeatureBatch) -> Tensor:
        """`two_branch_logits` of both branches."""
        branches = self.branches(batch)
        return two_branch_logits(branches.event_BT, branches.class_BC)

    def loss(self, batch: FeatureBatch, target: Target) -> tuple[Tensor, Tensor]:
        """The four losses with weight 1, as (B,) sums in nats and (B,) counts of an item's real segments.

        Raises:
            ValueError: the data set has several labels a segment: CMBS names one class a video.
        """
        if target.classes_BT is None:
            raise ValueError("CMBS names one class a video; this data set has several labels a segment")
        mask_BT = batch.mask_BT
        branches = self.branches(batch)
        event_BT = target.has_event(mask_BT)
        segments_BT = sum(
            F.binary_cross_entropy_with_logits(logits_BT, event_BT.float(), reduction="none")
            for logits_BT in (branches.event_BT, branches.gate_BT)
        )
        class_B, has_event_B = item_classes(target.classes_BT, event_BT, self.config.num_classes - 1)
        items_B = sum(
            F.cross_entropy(logits_BC, class_B, reduction="none")
            for logits_BC in (branches.class_BC, branches.scores_BC)
        )
        counts_B = mask_BT.sum(dim=1)
        sums_B = torch.where(mask_BT, segments_BT, 0.0).sum(dim=1) + counts_B * torch.where(has_event_B, items_B, 0.0)
        return sums_B, counts_B

    def branches(self, batch: FeatureBatch) -> Branches:
        """Both branches and what else the loss looks at; arguments as of `forward`."""
        mask_BT = batch.mask_BT
        visual_BTE, audio_BTD = self._encoded(batch)
        visual_key_BTD = self.visual_encoder(visual_BTE, mask_BT)
        audio_key_BTD = self.audio_encoder(audio_BTD, mask_BT)
        visual_BTD = self.visual_decoder(self.visual_query(visual_BTE), mask_BT, audio_key_BTD)
        audio_BTD = self.audio_decoder(self.audio_query(audio_BTD), mask_BT, visual_key_BTD)

        visual_gate_BT1 = self.visual_gate(visual_key_BTD).sigmoid()
        audio_gate_BT1 = self.audio_gate(audio_key_BTD).sigmoid()
        visual_BTD = visual_BTD + self.config.alpha * audio_gate_BT1 * visual_BTD
        audio_BTD = audio_BTD + self.config.alpha * visual_gate_BT1 * audio_BTD
        scores_BC = 0.5 * (
            _best_mean(self.visual_scores(visual_BTD), mask_BT) + _best_mean(self.audio_scores(audio_BTD), mask_BT)
        )

        visual_BTD = self.visual_interaction(visual_BTD, audio_BTD, mask_BT)
        audio_BTD = self.audio_interaction(audio_BTD, visual_BTD, mask_BT)
        fused_BTD = 0.5 * (visual_BTD + audio_BTD)
        lowest = torch.finfo(fused_BTD.dtype).min
        highest_BD = fused_BTD.masked_fill(~mask_BT[..., None], lowest).amax(dim=1)
        highest_BD = torch.where(mask_BT.any(dim=1)[:, None], highest_BD, 0.0)
        return Branches(
            event_BT=self.event(fused_BTD)[..., 0],
            gate_BT=(audio_gate_BT1 * visual_gate_BT1)[..., 0],
            class_BC=self.classify(highest_BD) + self.config.gamma * scores_BC,
            scores_BC=scores_BC,
        )

    def _encoded(self, batch: FeatureBatch) -> tuple[Tensor, Tensor]:
        """Each modality's BiLSTM: (B, T, 2D) and (B, T, D)."""
        visual_BTRV, audio_BTA = self.inputs(batch)
        visual_BTV = in_item_slices(self._attended, visual_BTRV, audio_BTA, width=self.config.visual_hidden)
        return self.visual_lstm(visual_BTV, batch.mask_BT), self.audio_lstm(audio_BTA, batch.mask_BT)

    def _attended(self, visual_BTRV: Tensor, audio_BTA: Tensor) -> Tensor:
        attended_BTV: Tensor = self.attend(self.dropout(torch.relu(self.visual_map(visual_BTRV))), audio_BTA)
        return attended_BTV


Head = Cmbs


def two_branch_logits(event_BT: Tensor, class_BC: Tensor) -> Tensor:
    """(B, T, C + 1) whose arg-max is the two branches' decision.

    A segment is an event where sigmoid(event logit) > 0.5, strictly; all events of an item have the arg-max of its
    class logits; the other segments are background, the last. Classes get their logit less the item's highest, so 0 is
    the best class's, and background the event logit's negative.
    """
    class_B1C = (class_BC - class_BC.amax(dim=-1, keepdim=True))[:, None]
    # At exactly 0 the best class would win the tie.
    tiny = torch.finfo(event_BT.dtype).tiny
    background_BT = torch.where(event_BT > 0, -event_BT, (-event_BT).clamp(min=tiny))
    return torch.cat([class_B1C.expand(-1, event_BT.shape[1], -1), background_BT[..., None]], dim=-1)


def item_classes(classes_BT: Tensor, event_BT: Tensor, num_events: int) -> tuple[Tensor, Tensor]:
    """An item's commonest event class (B,) int64, the first of equals, 0 without any; and whether it has one, bool.

    Args:
        classes_BT: int64, below `num_events` where `event_BT`.
        event_BT: bool.
        num_events: C.
    """
    counts_BC = torch.zeros(len(classes_BT), num_events, device=classes_BT.device)
    counts_BC.scatter_add_(1, torch.where(event_BT, classes_BT, 0), event_BT.float())
    return counts_BC.argmax(dim=1), event_BT.any(dim=1)


class _Encoder(nn.Module):
    """A linear map to D and transformer layers over a modality's own segments."""

    def __init__(self, input_width: int, config: Cmbs.Config) -> None:
        super().__init__()
        self.input = nn.Linear(input_width, config.width)
        self.layers = nn.ModuleList(_layer(config) for _ in range(config.encoder_layers))

    def forward(self, x_BTI: Tensor, mask_BT: Tensor) -> Tensor:
        x_BTD: Tensor = self.input(x_BTI)
        for layer in self.layers:
            x_BTD = layer(x_BTD, mask_BT)
        return x_BTD


def _layer(config: Cmbs.Config) -> CrossModalLayer:
    return CrossModalLayer(
        config.width, num_heads=config.num_heads, feedforward=config.feedforward, dropout=config.dropout / 2
    )


def _best_mean(scores_BTC: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean of a class's 4 highest scores among the real segments, (B, C); 0 for an item without any."""
    best = min(_BEST, scores_BTC.shape[1])
    lowest = torch.finfo(scores_BTC.dtype).min
    highest_BSC = scores_BTC.masked_fill(~mask_BT[..., None], lowest).topk(best, dim=1).values
    taken_BS = torch.arange(best, device=mask_BT.device) < mask_BT.sum(dim=1)[:, None]
    total_BC = torch.where(taken_BS[..., None], highest_BSC, 0.0).sum(dim=1)
    return total_BC / taken_BS.sum(dim=1).clamp(min=1)[:, None]
