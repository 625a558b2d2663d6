"""Clean sets of vectors of a segment: shapes, what is not valid, standardisation, and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from catalog.store.modal import Modal
from heads.blocks.segment_positions import PairedPositions, SegmentPositions
from heads.features import FeatureBatch

VALID = torch.tensor([[True, True, False], [True, False, False]])


def test_forward_vectors_sets_and_maps_become_sets() -> None:
    places = SegmentPositions("visual", 5, standardise=False)
    maps = torch.randn(2, 3, 2, 2, 5, dtype=torch.float16)
    got = places(maps, torch.ones(2, 3, dtype=torch.bool))
    assert torch.equal(got, maps.float().reshape(2, 3, 4, 5))
    assert torch.equal(places(got, VALID)[VALID], got[VALID])
    assert places(got[:, :, 0], VALID).shape == (2, 3, 1, 5)


@pytest.mark.parametrize("standardise", [True, False])
def test_forward_not_valid_is_zero_whatever_lay_there(standardise: bool) -> None:
    places = SegmentPositions("visual", 5, standardise=standardise)
    values = torch.randn(2, 3, 4, 5) * 2 + 3
    values[~VALID] = float("nan")
    places.fit(Modal(values=values.numpy(), valid=VALID.numpy()))
    got = places(values, VALID)
    assert not got[~VALID].any()
    real = values[VALID].numpy()
    wanted = (real - real.mean(axis=(0, 1))) / real.std(axis=(0, 1)) if standardise else real
    np.testing.assert_allclose(got[VALID].numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 6), (2, 4, 5), (2, 5), None])
def test_forward_wrong_features_raise(shape: tuple[int, ...] | None) -> None:
    told = r"visual features of \(2, 3\) segments, width 5, got " + ("none" if shape is None else "shape")
    with pytest.raises(ValueError, match=told):
        SegmentPositions("visual", 5, standardise=False)(None if shape is None else torch.zeros(shape), VALID)


class _Paired(PairedPositions):
    def forward(self, *features: Any) -> Tensor:
        raise NotImplementedError


def test_paired_inputs_are_the_pictures_set_and_the_sounds_mean() -> None:
    paired = _Paired(5, 4, standardise=True)
    visual, audio = torch.randn(2, 3, 2, 5), torch.randn(2, 3, 6, 4) + 2
    paired.fit_statistics(
        Modal(values=visual.numpy(), valid=VALID.numpy()), Modal(values=audio.numpy(), valid=VALID.numpy())
    )
    audio_valid = VALID & torch.tensor([[True, False, True], [True, True, True]])
    visual[~VALID], audio[~audio_valid] = float("nan"), float("nan")
    visual_BTRV, audio_BTA = paired.inputs(FeatureBatch.of(visual, audio, VALID, None, audio_valid))
    assert torch.equal(visual_BTRV, paired.visual_input(visual, VALID))
    torch.testing.assert_close(audio_BTA, paired.audio_input(audio, audio_valid).mean(dim=2))
    assert not audio_BTA[~audio_valid].any()
    assert set(paired.state_dict()) == {
        f"{name}_input.standard.{moment}_D" for name in ("visual", "audio") for moment in ("mean", "std")
    }
