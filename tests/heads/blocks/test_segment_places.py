"""Clean sets of vectors of a segment: shapes, what is not valid, standardisation, and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from heads.blocks.segment_places import SegmentPlaces, check_both

VALID = torch.tensor([[True, True, False], [True, False, False]])


def test_forward_vectors_sets_and_maps_become_sets() -> None:
    places = SegmentPlaces("visual", 5, standardise=False)
    maps = torch.randn(2, 3, 2, 2, 5, dtype=torch.float16)
    got = places(maps, torch.ones(2, 3, dtype=torch.bool))
    assert torch.equal(got, maps.float().reshape(2, 3, 4, 5))
    assert torch.equal(places(got, VALID)[VALID], got[VALID])
    assert places(got[:, :, 0], VALID).shape == (2, 3, 1, 5)


@pytest.mark.parametrize("standardise", [True, False])
def test_forward_not_valid_is_zero_whatever_lay_there(standardise: bool) -> None:
    places = SegmentPlaces("visual", 5, standardise=standardise)
    values = torch.randn(2, 3, 4, 5) * 2 + 3
    values[~VALID] = float("nan")
    places.fit(values.numpy(), VALID.numpy())
    got = places(values, VALID)
    assert not got[~VALID].any()
    real = values[VALID].numpy()
    wanted = (real - real.mean(axis=(0, 1))) / real.std(axis=(0, 1)) if standardise else real
    np.testing.assert_allclose(got[VALID].numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 6), (2, 4, 5), (2, 5), None])
def test_forward_wrong_features_raise(shape: tuple[int, ...] | None) -> None:
    told = r"visual features of \(2, 3\) segments, width 5, got " + ("none" if shape is None else "shape")
    with pytest.raises(ValueError, match=told):
        SegmentPlaces("visual", 5, standardise=False)(None if shape is None else torch.zeros(shape), VALID)


@pytest.mark.parametrize(
    ("modality", "visual", "audio", "told"),
    [
        ("audio", 3, 2, "PSP relates sound to picture and needs both, got modality audio"),
        ("smell", 3, 2, "modality must be both, audio or visual, got 'smell'"),
        ("both", 0, 2, "needs visual features of a width from 1"),
        ("both", 3, 2**25, "needs audio features of a width from 1 to 16777216"),
    ],
)
def test_check_both_raises(modality: str, visual: int, audio: int, told: str) -> None:
    check_both("PSP", modality="both", visual_width=3, audio_width=2)
    with pytest.raises(ValueError, match=told):
        check_both("PSP", modality=modality, visual_width=visual, audio_width=audio)
