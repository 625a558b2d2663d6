"""The published preparation of optical flow for I3D."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pipeline.i3d_flow import prepared, quantised
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
