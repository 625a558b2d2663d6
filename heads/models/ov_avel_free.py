"""OV-AVEL without training: a segment is an event where audio and frames are nearest to the same class text.

The class of the item is the agreed one of the **first** agreeing segment, and all agreeing segments get it; no
agreement anywhere is an item of background.

With the text of the background ("other") among the candidates the published script takes an agreement on it for an
event: such a first agreement makes all agreeing segments "other", and after another first agreement the segments that
agree on "other" get that one's class. `published=True` decides so. The default does not count such agreements, which is
what the paper describes. (The script's F1 measures then leave the segments flagged as "other" out of every row: give
`Decision.event_BT` to `heads.metrics.ovavebench.video_scores`.)

B batch, T segments, K classes with background as the last one, D width of the space that sound, picture and text share.

Source: Zhou et al., CVPR 2025, section 4 (training-free baseline), and the code's strategies "v01" (`other=True`, 68
texts) and "v0" (`other=False`, 67). There is no place for one modality alone in it: with `modality` audio or visual
each segment simply has its nearest text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heads.blocks.class_texts import ClassTexts, SharedSpaceConfig
from heads.blocks.segment_head import SegmentHead
from heads.blocks.segment_vectors import segment_vectors
from heads.features import FeatureBatch
from heads.spec import HeadSpec

SPEC = HeadSpec(
    summary="OV-AVEL's training-free baseline: audio and frames agree on the nearest class text; needs text features",
    pools_places=True,
    needs_texts=True,
    needs_training=False,
)
# Lifts the decided class above any mean of two cosines, which lies in [-1, 1].
_LIFT = 4.0


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the agreement comes to.

    Attributes:
        event_BT: bool, the segments flagged as events.
        class_B: int64, the item's class; K - 1 where it has none.
    """

    event_BT: Tensor
    class_B: Tensor


class OvAvelFree(SegmentHead):
    """Cosines with the class texts and a rule; no parameters, only the buffers of the texts."""

    @dataclass(frozen=True, kw_only=True)
    class Config(SharedSpaceConfig):
        """What the rule looks at.

        Attributes:
            other: is the background's text a candidate?
            published: decide as the published script does, agreements on "other" being events.
        """

        other: bool = True
        published: bool = False

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.texts = ClassTexts(config.num_classes, config.width)

    def set_texts(self, texts_KD: Tensor, trained_K: Tensor | None = None) -> None:
        """Take a vocabulary; see `ClassTexts.set`. The background's text is a row of it also where it is not used."""
        self.texts.set(texts_KD, trained_K)

    def forward(self, batch: FeatureBatch) -> Tensor:
        """Logits (B, T, K) float32 whose arg-max is the decision.

        They are the mean cosine of the modalities (-1 for the background where its text is not a candidate), plus 4
        for the decided class. A segment without the features of a modality looked at agrees on nothing.

        Raises:
            ValueError: no texts, or a modality that the head looks at is missing or of another width.
        """
        cosines, known_BT = self._cosines(batch)
        mean_BTK = torch.stack(cosines).mean(dim=0)
        if not self.config.other:
            mean_BTK = torch.cat([mean_BTK[..., :-1], torch.full_like(mean_BTK[..., -1:], -1.0)], dim=-1)
        background = mean_BTK.shape[-1] - 1
        if len(cosines) == 2:
            decision = self._agree(cosines[0], cosines[1], known_BT)
            classes_BT = torch.where(decision.event_BT, decision.class_B[:, None], background)
        else:
            classes_BT = torch.where(known_BT, self._nearest(cosines[0]), background)
        return mean_BTK.scatter_add(-1, classes_BT[..., None], torch.full_like(mean_BTK[..., :1], _LIFT))

    def decide(self, batch: FeatureBatch) -> Decision:
        """Which segments are events and of which class the item is.

        Raises:
            ValueError: as `forward`, or the head looks at one modality only.
        """
        cosines, known_BT = self._cosines(batch)
        if len(cosines) != 2:
            raise ValueError(f"agreement needs both modalities, the head looks at {self.config.modality}")
        return self._agree(cosines[0], cosines[1], known_BT)

    def flags(self, batch: FeatureBatch) -> Tensor | None:
        """(B, T) bool, the segments flagged as events, where some may have the background's class; else None."""
        if not self.config.published or self.config.modality != "both":
            return None
        return self.decide(batch).event_BT

    def _cosines(self, batch: FeatureBatch) -> tuple[list[Tensor], Tensor]:
        """Cosines of each modality looked at, and the segments that have all of them."""
        self.texts.require()
        cosines, known_BT = [], batch.mask_BT
        for name in ("audio", "visual"):
            if self.config.modality in ("both", name):
                values, valid_BT = batch.modality(name)
                cosines.append(self.texts.cosines(segment_vectors(name, values, valid_BT, self.config.width)))
                known_BT = known_BT & valid_BT
        return cosines, known_BT

    def _nearest(self, cosines_BTK: Tensor) -> Tensor:
        """(B, T) int64; the first index wins a tie."""
        candidates_BTK = cosines_BTK if self.config.other else cosines_BTK[..., :-1]
        return candidates_BTK.argmax(dim=-1)

    def _agree(self, audio_BTK: Tensor, visual_BTK: Tensor, known_BT: Tensor) -> Decision:
        background = audio_BTK.shape[-1] - 1
        nearest_BT = self._nearest(audio_BTK)
        event_BT = (nearest_BT == self._nearest(visual_BTK)) & known_BT
        if not self.config.published:
            event_BT = event_BT & (nearest_BT != background)
        first_B1 = event_BT.int().argmax(dim=1, keepdim=True)  # of equal numbers the first
        class_B = nearest_BT.gather(1, first_B1)[:, 0]
        return Decision(event_BT=event_BT, class_B=torch.where(event_BT.any(dim=1), class_B, background))


Head = OvAvelFree
