"""Instance attention: sound looks at the places of its own segment and of the neighbouring ones together.

    z(o, r) = (Q a_t) . (K v_{t+o, r}) / sqrt(A) + b_o,   o = -reach..reach, for each head
    y_t = LN(M mean_r v_{t, r} + O sum over (o, r) of softmax(z)(o, r) V v_{t+o, r})

An instance that sounds is so followed over consecutive seconds, also where it is hidden or out of frame in one.

There is one query a segment and many places: the key's map is put on the query and the value's on the weighted mean of
the places, which is the same and spares a product a place. (A bias of the keys would drop out of the softmax.)

B batch, T segments, R places, V and A' visual and audio width, D width, H attention heads, A width of one, O offsets.

Source: the idea of Lin and Wang, ACCV 2020 (audio-visual transformer with instance attention), as its abstract tells
it. No code is public; the equations are this project's reading.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InstanceAttention(nn.Module):
    """(B, T, R, V) and (B, T, A') to (B, T, D); any R.

    Args:
        visual_width, audio_width: V and A'.
        width: D.
        num_heads: H, divides D.
        reach: segments looked at on either side.
        dropout: of what is taken up.

    Raises:
        ValueError: a width is below 1, `width` no multiple of `num_heads`, `reach` negative or dropout not in [0, 1).
    """

    def __init__(
        self,
        visual_width: int,
        audio_width: int,
        width: int,
        *,
        num_heads: int = 4,
        reach: int = 1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if min(visual_width, audio_width, width, num_heads) < 1 or width % num_heads or reach < 0:
            raise ValueError(
                "instance attention needs widths of at least 1, width a multiple of num_heads and a reach of at least "
                f"0, got visual {visual_width}, audio {audio_width}, width {width}, {num_heads} heads, reach {reach}"
            )
        self.num_heads, self.reach = num_heads, reach
        self.query = nn.Linear(audio_width, width)
        self.key, self.value = nn.Linear(visual_width, width, bias=False), nn.Linear(visual_width, width)
        self.output, self.mean = nn.Linear(width, width), nn.Linear(visual_width, width)
        self.offset_OH = nn.Parameter(torch.zeros(2 * reach + 1, num_heads))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)

    def forward(self, visual_BTRV: Tensor, audio_BTA: Tensor, seen_BT: Tensor) -> Tensor:
        """What each segment looks like where it sounds, (B, T, D).

        Args:
            visual_BTRV, audio_BTA: finite everywhere.
            seen_BT: bool, the segments whose places may be looked at; where there are none nothing is taken up.
        """
        weights_OBTHR = self._weights(visual_BTRV, audio_BTA, seen_BT)
        means_BTHV = sum(
            _shifted(_shifted(weights_BTHR, -offset) @ visual_BTRV, offset)
            for offset, weights_BTHR in zip(self._offsets(), weights_OBTHR, strict=True)
        )
        value_HAV = self.value.weight.view(self.num_heads, -1, visual_BTRV.shape[-1])
        values_BTD = torch.einsum("bthv,hav->btha", means_BTHV, value_HAV).flatten(2) + self.value.bias
        taken_BTD = torch.where(self._any(seen_BT), self.output(values_BTD), 0.0)
        y_BTD: Tensor = self.norm(self.mean(visual_BTRV.mean(dim=2)) + self.dropout(taken_BTD))
        return y_BTD

    def _weights(self, visual_BTRV: Tensor, audio_BTA: Tensor, seen_BT: Tensor) -> Tensor:
        """The softmax over all offsets' places, (O, B, T, H, R); 0 where not seen, if any is."""
        key_HAV = self.key.weight.view(self.num_heads, -1, visual_BTRV.shape[-1])
        query_BTHA = self.query(audio_BTA).reshape(*audio_BTA.shape[:2], self.num_heads, -1)
        query_BTHV = torch.einsum("btha,hav->bthv", query_BTHA, key_HAV) * query_BTHA.shape[-1] ** -0.5
        logits: list[Tensor] = []
        seen: list[Tensor] = []
        for offset, offset_H in zip(self._offsets(), self.offset_OH, strict=True):
            # The query goes to its neighbour and the logits come back: moving the places would copy them.
            logits_BTHR = _shifted(_shifted(query_BTHV, -offset) @ visual_BTRV.transpose(2, 3), offset)
            logits.append(logits_BTHR + offset_H[:, None])
            seen.append(_shifted(seen_BT, offset)[..., None, None].expand_as(logits[-1]))
        logits_OBTHR, seen_OBTHR = torch.stack(logits), torch.stack(seen)
        # The lowest finite number and not -inf: where nothing is seen it would be NaN.
        logits_OBTHR = logits_OBTHR.masked_fill(~seen_OBTHR, torch.finfo(logits_OBTHR.dtype).min)
        spread_BTHOR = logits_OBTHR.movedim(0, -2)
        return spread_BTHOR.flatten(-2).softmax(dim=-1).reshape(spread_BTHOR.shape).movedim(-2, 0)

    def _any(self, seen_BT: Tensor) -> Tensor:
        return torch.stack([_shifted(seen_BT, offset) for offset in self._offsets()]).any(dim=0)[..., None]

    def _offsets(self) -> range:
        return range(-self.reach, self.reach + 1)


def _shifted(x_BT: Tensor, offset: int) -> Tensor:
    """x[t + offset] at t, zeros beyond both ends."""
    if not offset:
        return x_BT
    count = x_BT.shape[1]
    kept = x_BT[:, max(0, offset) : max(0, count + min(0, offset))]
    before = min(count, max(0, -offset))
    after = count - before - kept.shape[1]
    return F.pad(kept, (*(0, 0) * (x_BT.ndim - 2), before, after))
