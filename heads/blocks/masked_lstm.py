"""A bidirectional LSTM over padded batches: a real segment's output never depends on padding.

B batch, T segments, D input width, H hidden width a direction.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class MaskedLSTM(nn.Module):
    """One layer, both directions, joined: (B, T, D) to (B, T, 2H).

    Where all items are equally long the LSTM runs on the batch as it is; else on packed sequences. The two differ by
    the order of float32 sums only.

    Args:
        width: D.
        hidden: H.

    Raises:
        ValueError: a width is below 1.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        if min(width, hidden) < 1:
            raise ValueError(f"an LSTM needs widths of at least 1, got width {width}, hidden {hidden}")
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """The states of both directions, forward's first; 0 where not real.

        Args:
            x_BTD: what lies outside the mask does not matter, NaN included.
            mask_BT: bool, True where real. The LSTM steps from one real segment to the next one: a gap between two
                is skipped as if they were neighbours.
        """
        if bool(mask_BT.all()):
            return self._run(x_BTD)
        counts_B = mask_BT.sum(dim=1)
        # Real segments to the front, in their order.
        order_BT = (~mask_BT).to(torch.uint8).argsort(dim=1, stable=True)
        front_BT = torch.arange(mask_BT.shape[1], device=mask_BT.device) < counts_B[:, None]
        # A product with the mask would keep NaN.
        x_BTD = torch.where(front_BT[..., None], _taken(x_BTD, order_BT), 0.0)
        longest = int(counts_B.max())
        if bool((counts_B == longest).all()):
            y_BTE = nn.functional.pad(self._run(x_BTD[:, :longest]), (0, 0, 0, mask_BT.shape[1] - longest))
        else:
            # Packing knows no empty item: it gets one segment of zeros, which the mask drops again.
            lengths_B = counts_B.clamp(min=1).cpu()
            packed = pack_padded_sequence(x_BTD, lengths_B, batch_first=True, enforce_sorted=False)
            y_BTE = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=mask_BT.shape[1])[0]
        return torch.where(mask_BT[..., None], _taken(y_BTE, order_BT.argsort(dim=1)), 0.0)

    def _run(self, x_BTD: Tensor) -> Tensor:
        if not x_BTD.numel():  # no step to take
            return x_BTD.new_zeros((*x_BTD.shape[:2], 2 * self.lstm.hidden_size))
        y_BTE: Tensor = self.lstm(x_BTD)[0]
        return y_BTE


def _taken(x_BTD: Tensor, order_BT: Tensor) -> Tensor:
    return x_BTD.gather(1, order_BT[..., None].expand(-1, -1, x_BTD.shape[-1]))
