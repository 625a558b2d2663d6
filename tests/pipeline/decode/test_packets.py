"""How much of a track may be damaged."""

from __future__ import annotations

import pytest

from pipeline.decode.packets import too_damaged


@pytest.mark.parametrize(
    ("num_packets", "most"),
    [
        (1, 1),  # a single damaged packet is always borne
        (20, 1),
        (39, 1),  # 1.95 is not 2
        (40, 2),
        (59, 2),
        (250, 12),
        (1000, 50),
    ],
)
def test_one_packet_in_twenty_may_be_damaged_and_no_more(num_packets: int, most: int) -> None:
    assert [n for n in range(num_packets + 1) if not too_damaged(n, num_packets)] == list(range(most + 1))
