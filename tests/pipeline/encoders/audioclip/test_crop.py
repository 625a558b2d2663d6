"""The published crop of 5 s: its choice among start, centre and end, and its padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.encoders.audioclip.crop import evaluation_crop
from tests.pipeline import parity


@pytest.mark.parametrize("name", ["burst_at_start", "burst_at_end"])
def test_evaluation_crop_of_bursts_is_the_published(shared: Path, name: str) -> None:
    arrays, meta = parity.prepared(shared, "prep_audioclip_audio")
    assert meta["crop_cases"][name] == "start"
    sound = np.zeros(3000, np.float32)
    sound[slice(0, 300) if name == "burst_at_start" else slice(2700, 3000)] = np.sin(np.arange(300))
    np.testing.assert_array_equal(evaluation_crop(sound, 1000), sound[:1000])
    assert arrays[f"crop_{name}"].shape == (1000,)


def test_evaluation_crop_pads_with_the_edges() -> None:
    np.testing.assert_array_equal(evaluation_crop(np.array([1.0, 2.0], np.float32), 5), [1, 1, 2, 2, 2])
