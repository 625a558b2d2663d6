"""A batch of features checks itself, and its items are those of a slow loop; what counts as an event of a target."""

from __future__ import annotations

import pytest
import torch

from heads.features import FeatureBatch, Target

MASK_BT = torch.tensor([[True, True, True], [True, True, False]])
VISUAL = torch.arange(12.0).reshape(2, 3, 2)


def test_batch_is_valid_inside_the_mask_and_nowhere_without_features() -> None:
    batch = FeatureBatch.of(VISUAL, None, MASK_BT)
    assert torch.equal(batch.visual_valid_BT, MASK_BT)
    assert not batch.audio_valid_BT.any()
    some_BT = torch.tensor([[True, False, True], [False, True, True]])
    batch = FeatureBatch.of(VISUAL, VISUAL, MASK_BT, some_BT)
    assert batch.visual_valid_BT.tolist() == [[True, False, True], [False, True, False]]
    assert torch.equal(batch.audio_valid_BT, MASK_BT)


def test_items_of_a_batch_are_those_items_of_each_part() -> None:
    batch = FeatureBatch.of(VISUAL, None, MASK_BT).items(torch.tensor([1, 0, 1]))
    assert batch.visual is not None
    assert batch.audio is None
    assert torch.equal(batch.visual, torch.stack([VISUAL[1], VISUAL[0], VISUAL[1]]))
    for found in (batch.mask_BT, batch.visual_valid_BT):
        assert torch.equal(found, torch.stack([MASK_BT[1], MASK_BT[0], MASK_BT[1]]))
    assert batch.audio_valid_BT.shape == (3, 3)


@pytest.mark.parametrize("name", ["visual", "audio"])
def test_batch_of_parts_that_do_not_fit_is_refused(name: str) -> None:
    fields = {"visual": VISUAL, "audio": VISUAL, "visual_valid_BT": MASK_BT, "audio_valid_BT": MASK_BT}
    for wrong in ({name: VISUAL[:, :2]}, {name: VISUAL[:1]}, {name: MASK_BT.float()}):
        with pytest.raises(ValueError, match=rf"{name} features of \(2, 3\) segments needed"):
            FeatureBatch(mask_BT=MASK_BT, **{**fields, **wrong})
    for valid_BT in (MASK_BT[:, :2], MASK_BT.float()):
        with pytest.raises(ValueError, match=f"bool validity of {name} features"):
            FeatureBatch(mask_BT=MASK_BT, **{**fields, f"{name}_valid_BT": valid_BT})


def test_segments_with_an_event_are_real_and_not_background() -> None:
    one = Target(classes_BT=torch.tensor([[2, 0, 2], [1, 2, 1]]), background=2)
    assert one.has_event(MASK_BT).tolist() == [[False, True, False], [True, False, False]]
    labels_BTK = torch.tensor([[[0, 0], [1, 0], [1, 1]], [[0, 1], [0, 0], [1, 0]]], dtype=torch.bool)
    assert Target(labels_BTK=labels_BTK).has_event(MASK_BT).tolist() == [[False, True, True], [True, False, False]]
