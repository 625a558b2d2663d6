"""The published preparation of optical flow for I3D; flow of pairs that share frames, against each by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.encoders.i3d_vggish.flow import padded, pair_flows, prepared, quantised
from pipeline.networks.raft import Raft
from pipeline.unit import one_thread
from tests.pipeline import parity


def test_flow_equals_the_published(shared: Path) -> None:
    want, meta = parity.prepared(shared, "prep_i3d_flow")
    drawn = meta | {"input": meta["input"] | {"shift": 0.0}}
    flow = torch.from_numpy(parity.seeded_input(shared, drawn))
    flow[0, 0, 100, 100:103] = torch.tensor([20.0, -20.0, 35.0])
    np.testing.assert_array_equal(quantised(flow).numpy(), want["quantised"])
    final = prepared(flow).transpose(0, 1)[None]
    assert list(final.shape) == want["final_shape"].tolist()
    np.testing.assert_allclose(final.flatten()[::997].numpy(), want["final_probe"], rtol=0, atol=1e-6)


def test_rounding_is_half_to_even_and_reaches_256() -> None:
    flow = torch.zeros(1, 2, 224, 224)
    # 128 + 6.375 f: exact halves at f = 4 (153.5), 12 (204.5), -4 (102.5), -12 (51.5).
    flow[0, 0, 0, :7] = torch.tensor([4.0, 12.0, -4.0, -12.0, 99.0, -99.0, 0.0])
    assert quantised(flow)[0, 0, 0, :7].tolist() == [154, 204, 102, 52, 256, 0, 128]
    assert prepared(flow)[0, 0, 0, 4].item() == pytest.approx(257 / 255, abs=1e-6)


def test_crop_is_the_centre_rounded_to_the_start() -> None:
    flow = torch.arange(227.0).expand(1, 2, 225, 227) / 51 - 2
    want = torch.round(128 + 255 / 40 * flow[:, :, :224, 1:225])
    torch.testing.assert_close(quantised(flow), want, rtol=0, atol=0)
    with pytest.raises(ValueError, match="at least 224 x 224 pixels, got 224 x 223"):
        quantised(torch.zeros(1, 2, 224, 223))


@pytest.mark.parametrize(("size", "before", "after"), [(8, 0, 0), (9, 3, 4), (10, 3, 3), (15, 0, 1), (162, 3, 3)])
def test_padding_repeats_the_edges_to_multiples_of_8(size: int, before: int, after: int) -> None:
    ramp = torch.arange(float(size))
    want = torch.cat([torch.zeros(before), ramp, torch.full((after,), size - 1.0)])
    torch.testing.assert_close(padded(ramp.expand(1, 1, 16, size)), want.expand(1, 1, 16, -1), rtol=0, atol=0)
    torch.testing.assert_close(
        padded(ramp[:, None].expand(1, 1, size, 16)), want[:, None].expand(1, 1, -1, 16), rtol=0, atol=0
    )


@pytest.fixture(scope="module")
def raft() -> Raft:
    torch.manual_seed(0)
    return Raft().eval()


def test_pairs_equal_each_by_itself_over_the_end_of_a_batch(raft: Raft) -> None:
    # Not only neighbours: a pair may skip a frame, and the second batch needs a frame of the first.
    frames = np.random.default_rng(0).integers(0, 256, (4, 224, 230, 3), dtype=np.uint8)
    pairs = np.array([[0, 1], [0, 2], [1, 3]])
    with one_thread():
        made = pair_flows(raft, frames, pairs, iterations=1, device="cpu", precision="float32", batch_pairs=2)
    assert made.shape == (3, 2, 224, 224)
    shown = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    with one_thread(), torch.inference_mode():
        for number, (a, b) in enumerate(pairs.tolist()):
            want = prepared(raft(padded(shown[a : a + 1]), padded(shown[b : b + 1]), 1))[0]
            apart = (made[number] - want).abs()
            # A flow on the edge between two of the 256 steps may fall to either: one step, seldom.
            assert apart.max() <= 2 / 255 + 1e-6
            assert (apart > 1e-6).float().mean() < 1e-3
            assert want.std() > 1e-3
    assert (made[0] - made[1]).abs().max() > 2 / 255
