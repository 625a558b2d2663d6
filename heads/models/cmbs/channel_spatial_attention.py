"""CMBS's attention over the places of a segment: sound says which channels and which places matter, the picture helps.

    s = LN(v + dropout(softmax(Q v (K v)^T) V v))                    places among themselves, logits not scaled
    m = sum_r softmax(tanh(w1 . (relu(A s_r) * relu(B mean_r s))))_r s_r            what stands out by itself
    c = v * (1 + sigmoid(D relu(C mean_r(relu(E a) * relu(F s_r)))))                channels, chosen by sound
    o = sum_r softmax(tanh(w2 . (relu(G c_r) * relu(H a))))_r c_r                   places, chosen by sound
    output = o + beta sigmoid(m) o

B batch, T segments, R places, V and A visual and audio width, H hidden width.

Source: Xia and Zhao, CVPR 2022 (CMBS), after CMRA (Xu et al., ACM MM 2020); as the published code has it, which says of
itself that it differs from the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Queries and keys are this much narrower than the places.
_LATENT = 4


class ChannelSpatialAttention(nn.Module):
    """(B, T, R, V) and (B, T, A) to (B, T, V); any R.

    Args:
        visual_width, audio_width: V and A.
        hidden: H.
        beta: weight of what stands out by itself.
        dropout: of the places' attention among themselves.

    Raises:
        ValueError: a width is below 1, or dropout not in [0, 1).
    """

    def __init__(
        self, visual_width: int, audio_width: int, *, hidden: int = 256, beta: float = 0.4, dropout: float = 0.2
    ) -> None:
        super().__init__()
        if min(visual_width, audio_width, hidden) < 1 or not 0 <= dropout < 1:
            raise ValueError(
                "channel and spatial attention needs widths of at least 1 and dropout in [0, 1), got "
                f"visual {visual_width}, audio {audio_width}, hidden {hidden}, dropout {dropout}"
            )
        latent = max(1, visual_width // _LATENT)
        self.beta = beta
        self.query, self.key = nn.Linear(visual_width, latent), nn.Linear(visual_width, latent)
        self.value, self.norm = nn.Linear(visual_width, visual_width), nn.LayerNorm(visual_width)
        self.dropout = nn.Dropout(dropout)
        self.own_places, self.own_mean = nn.Linear(visual_width, hidden), nn.Linear(visual_width, hidden)
        self.own_score = nn.Linear(hidden, 1)
        self.channel_audio = nn.Linear(audio_width, visual_width)
        self.channel_places = nn.Linear(visual_width, visual_width)
        self.channel_inner, self.channel_gate = nn.Linear(visual_width, hidden), nn.Linear(hidden, visual_width)
        self.audio_places, self.audio = nn.Linear(visual_width, hidden), nn.Linear(audio_width, hidden)
        self.audio_score = nn.Linear(hidden, 1)

    def forward(self, visual_BTRV: Tensor, audio_BTA: Tensor) -> Tensor:
        """The attended vectors (B, T, V); finite input everywhere."""
        logits_BTRR = self.query(visual_BTRV) @ self.key(visual_BTRV).transpose(-1, -2)
        mixed_BTRV = logits_BTRR.softmax(dim=-1) @ self.value(visual_BTRV)
        mixed_BTRV = self.norm(visual_BTRV + self.dropout(mixed_BTRV))

        mean_BT1H = torch.relu(self.own_mean(mixed_BTRV.mean(dim=2, keepdim=True)))
        own_BTV = _pooled(self.own_score(torch.relu(self.own_places(mixed_BTRV)) * mean_BT1H), mixed_BTRV)

        heard_BTV = torch.relu(self.channel_audio(audio_BTA))
        together_BTV = heard_BTV * torch.relu(self.channel_places(mixed_BTRV)).mean(dim=2)
        gate_BTV = self.channel_gate(torch.relu(self.channel_inner(together_BTV))).sigmoid()
        chosen_BTRV = visual_BTRV * (1 + gate_BTV[:, :, None])

        heard_BT1H = torch.relu(self.audio(audio_BTA))[:, :, None]
        places_BTRH = torch.relu(self.audio_places(chosen_BTRV))
        output_BTV = _pooled(self.audio_score(places_BTRH * heard_BT1H), chosen_BTRV)
        return output_BTV + self.beta * own_BTV.sigmoid() * output_BTV


def _pooled(scores_BTR1: Tensor, values_BTRV: Tensor) -> Tensor:
    weights_BT1R = torch.tanh(scores_BTR1).softmax(dim=2).transpose(2, 3)
    return (weights_BT1R @ values_BTRV)[:, :, 0]
