"""AVE-CLIP: sound guides what is looked at, windows of several lengths fuse both, an event mask refines.

    visual = BiLSTM(attention of sound over the R vectors of a segment), audio = BiLSTM(audio)
    F = [visual, audio]                        (T x 2D)
    O = multi-window temporal fusion of F      (T x N D)
    O_w = fusion of (O x event mask) over the whole item
    logits = W8 BiLSTM(Norm(O_w))
    loss = 0.3 BCE(event mask, event) + 0.7 CE(logits, class)

No code was ever published. Readings of what the paper leaves open, besides those in the blocks:

- one width D = 256 for all but the input, the number that appears in the text; the last BiLSTM gives D too;
- the loss takes logits (the paper's softmax and cross-entropy are one log-softmax); without supervision it is the plain
  cross-entropy, of weight 1;
- Adam with 1e-3, PSP's decay and batches of 128; dropout on F and before W8, 0.1 as PSP's;
- features are standardised by channel with the training split's moments, which the paper does not speak of (encoders
  differ in scale by orders of magnitude); `standardise=False` is the literal form;
- with one vector a segment (AudioCLIP's) sound has nothing to choose from: no attention is made. Its results then rest
  on the rest of the head.

The run filter after the arg-max is in `heads.evaluation.run_filter`: it works on predictions of any head.

B batch, T segments, R vectors or places a segment, D width, N windows, K outputs.

Source: Mahmud and Marculescu, WACV 2023 (AVE-CLIP), figures 2 to 4, equations 4 to 17, tables 1 to 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from catalog.fields import Dropout, EvenSize, Share, Size
from catalog.store.modal import Modal
from heads.blocks.agva import HIDDEN, AudioGuidedAttention
from heads.blocks.feature_config import PlacesConfig
from heads.blocks.losses import segment_loss
from heads.blocks.masked_lstm import MaskedLSTM
from heads.blocks.segment_head import SegmentHead
from heads.blocks.standardise import Standardise
from heads.features import FeatureBatch, Target
from heads.models.ave_clip.egta import EventRefinement, event_cross_entropy
from heads.models.ave_clip.mwtf import Attention, MultiWindowFusion, parse_windows
from heads.spec import HeadSpec

SPEC = HeadSpec(
    summary="AVE-CLIP: audio-guided attention, multi-window temporal fusion, event-guided refinement",
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


class AveClip(SegmentHead):
    """Features of audio and frames to logits a segment, and AVE-CLIP's loss."""

    @dataclass(frozen=True, kw_only=True)
    class Config(PlacesConfig):
        """The architecture and the ablations of the paper's tables.

        Attributes:
            modality: which features are looked at. With one, F is its BiLSTM alone, and places are averaged.
            agva: attention over the places by the formula (any R) or as the published code of earlier heads has it
                (R fixed), or their mean.
            agva_hidden: width of that attention's hidden layer.
            width: D, even.
            windows: of the fusion (tables 4 and 5); empty: one linear map and relu in its place.
            attention: over time, channels or both, in every fusion (table 4).
            shared: one set of weights for all windows of a fusion (table 5).
            residual: adds a linear residual to every fusion; False is the paper to the letter.
            egta: the event mask learns from event labels, or without them, or there is none (tables 3 and 6).
            refiner: windows of the refiner (table 6), T the whole item; empty: a linear map (table 3).
            last: what is before W8. "linear" is the "simple fully connected layers" of tables 3 and 4.
            event_weight: of the mask's loss; the classes' is 1 less it.
            dropout: on F and before W8.
            standardise: features by channel, by the training split.
        """

        agva: Literal["formula", "published", "off"] = "formula"
        agva_hidden: Size = HIDDEN
        width: EvenSize = 256
        windows: str = "10,5,3*,2"
        attention: Attention = "both"
        shared: bool = True
        residual: bool = True
        egta: Literal["supervised", "unsupervised", "off"] = "supervised"
        refiner: str = "T"
        last: Literal["bilstm", "linear"] = "bilstm"
        event_weight: Share = 0.3
        dropout: Dropout = 0.1
        standardise: bool = True

        def __post_init__(self) -> None:
            super().__post_init__()
            for text in (self.windows, self.refiner):
                if text:
                    parse_windows(text)

        @property
        def attends_to_places(self) -> bool:
            return self.agva != "off" and self.places > 1 and self.uses_visual and self.uses_audio

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width, half = config.width, config.width // 2
        self.attend: AudioGuidedAttention | None = None
        if config.attends_to_places:
            self.attend = AudioGuidedAttention(
                config.visual_width,
                config.audio_width,
                variant="published" if config.agva == "published" else "formula",
                places=config.places,
                hidden=config.agva_hidden,
            )
        encoded = 0
        if config.uses_visual:
            self.visual_standard = Standardise(config.visual_width)
            self.visual_lstm = MaskedLSTM(config.visual_width, half)
            encoded += width
        if config.uses_audio:
            self.audio_standard = Standardise(config.audio_width)
            self.audio_lstm = MaskedLSTM(config.audio_width, half)
            encoded += width
        self.dropout = nn.Dropout(config.dropout)
        self.fusion: MultiWindowFusion | None = None
        if config.windows:
            self.fusion = MultiWindowFusion(
                encoded,
                width,
                windows=config.windows,
                attention=config.attention,
                shared=config.shared,
                residual=config.residual,
            )
        self.unfused = None if config.windows else nn.Linear(encoded, width)
        fused = self.fusion.output_width if self.fusion is not None else width
        self.refine = EventRefinement(
            fused,
            width,
            masked=config.egta != "off",
            windows=config.refiner,
            attention=config.attention,
            shared=config.shared,
            residual=config.residual,
        )
        refined = self.refine.output_width
        self.norm = nn.LayerNorm(refined)
        self.last = MaskedLSTM(refined, half) if config.last == "bilstm" else nn.Linear(refined, width)
        self.classify = nn.Linear(width, config.num_classes)

    def fit_statistics(self, visual: Modal | None, audio: Modal | None) -> None:
        """Take the standardisation, if wanted, from the training split; a channel's moments are over the places too."""
        if not self.config.standardise:
            return
        if self.config.uses_visual and visual is not None:
            self.visual_standard.fit(visual.values, visual.valid)
        if self.config.uses_audio and audio is not None:
            self.audio_standard.fit(audio.values, audio.valid)

    def forward(self, batch: FeatureBatch) -> Tensor:
        """Logits of the refined features."""
        return self._outputs(batch)[0]

    def loss(self, batch: FeatureBatch, target: Target) -> tuple[Tensor, Tensor]:
        """Equation 17 as (B,) sums in nats and (B,) counts of an item's real segments.

        Where several labels may hold at once, the classes' part is a sigmoid's cross-entropy summed over classes.
        """
        logits_BTK, event_logits_BT = self._outputs(batch)
        sums_B, counts_B = segment_loss(logits_BTK, target, batch.mask_BT)
        if self.config.egta == "supervised":
            assert event_logits_BT is not None, "made unless egta is off"
            event_sums_B, _ = event_cross_entropy(event_logits_BT, target.has_event(batch.mask_BT), batch.mask_BT)
            sums_B = self.config.event_weight * event_sums_B + (1 - self.config.event_weight) * sums_B
        return sums_B, counts_B

    def _outputs(self, batch: FeatureBatch) -> tuple[Tensor, Tensor | None]:
        """Logits (B, T, K), and those of the event mask (B, T) where there is one."""
        mask_BT = batch.mask_BT
        encoded_BTE = self.dropout(self._encoded(batch))
        if self.fusion is not None:
            fused_BTE = self.fusion(encoded_BTE, mask_BT)
        else:
            assert self.unfused is not None, "made where there is no fusion"
            fused_BTE = torch.relu(self.unfused(encoded_BTE))
        refined_BTE, event_logits_BT = self.refine(fused_BTE, mask_BT)
        normed_BTE = self.norm(refined_BTE)
        bilstm = self.config.last == "bilstm"
        last_BTD = self.last(normed_BTE, mask_BT) if bilstm else torch.relu(self.last(normed_BTE))
        return self.classify(self.dropout(last_BTD)), event_logits_BT

    def _encoded(self, batch: FeatureBatch) -> Tensor:
        """F: each modality's BiLSTM, joined."""
        config, mask_BT, parts = self.config, batch.mask_BT, []
        visual_BTRV, audio_BTA = None, None
        if config.uses_audio:
            audio_BTRA = _vectors("audio", batch, config.audio_width, self.audio_standard)
            audio_BTA = audio_BTRA.mean(dim=2)
        if config.uses_visual:
            visual_BTRV = _vectors("visual", batch, config.visual_width, self.visual_standard)
            if self.attend is not None:
                assert audio_BTA is not None, "attention is made where both are used"
                visual_BTV = self.attend(visual_BTRV, audio_BTA)
            else:
                visual_BTV = visual_BTRV.mean(dim=2)
            parts.append(self.visual_lstm(visual_BTV, mask_BT))
        if audio_BTA is not None:
            parts.append(self.audio_lstm(audio_BTA, mask_BT))
        return torch.cat(parts, dim=-1)


Head = AveClip


def _vectors(name: str, batch: FeatureBatch, width: int, standard: Standardise) -> Tensor:
    """(B, T, R, D) standardised; exactly 0 where not valid."""
    values, valid_BT = batch.modality(name)
    if values is None or values.shape[-1] != width:
        got = "none" if values is None else f"shape {tuple(values.shape)}"
        raise ValueError(
            f"AVE-CLIP looks at {name} features of {tuple(valid_BT.shape)} segments, width {width}, got {got}"
        )
    values_BTRD = values[:, :, None] if values.ndim == 3 else values.flatten(2, -2)
    standard_BTRD: Tensor = standard(values_BTRD.float(), valid_BT)
    return standard_BTRD
