"""The linear probe against a loop of plain numpy, segment by segment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from catalog.store.modal import Modal
from heads.features import FeatureBatch
from heads.models.linear import LinearProbe
from heads.spec import HeadInput, Modality


def test_forward_maps_and_gaps_equal_slow_loop() -> None:
    rng = np.random.default_rng(0)
    visual = rng.normal(size=(2, 4, 3, 3, 5)).astype(np.float32)
    audio = rng.normal(size=(2, 4, 2)).astype(np.float32)
    mask = np.array([[True, True, True, False], [True, True, False, False]])
    visual_valid = mask & (rng.random((2, 4)) < 0.7)
    audio_valid = mask & (rng.random((2, 4)) < 0.7)
    torch.manual_seed(0)
    head = LinearProbe(LinearProbe.Config(visual_width=5, audio_width=2, num_classes=4, modality="both"))
    head.fit_statistics(
        Modal(values=visual.mean(axis=(2, 3)), valid=visual_valid), Modal(values=audio, valid=audio_valid)
    )
    tensors = [torch.from_numpy(x) for x in (visual, audio, mask, visual_valid, audio_valid)]
    with torch.inference_mode():
        logits = head(FeatureBatch.of(*tensors)).numpy()

    pooled = visual.mean(axis=(2, 3)).astype(np.float64)
    seen, heard = pooled[visual_valid], audio[audio_valid].astype(np.float64)
    weight, bias = head.classify.weight.detach().numpy(), head.classify.bias.detach().numpy()
    for b in range(2):
        for t in range(4):
            x = np.zeros(5 + 1 + 2 + 1)
            if visual_valid[b, t]:
                x[:5] = (pooled[b, t] - seen.mean(axis=0)) / seen.std(axis=0)
                x[5] = 1
            if audio_valid[b, t]:
                x[6:8] = (audio[b, t] - heard.mean(axis=0)) / heard.std(axis=0)
                x[8] = 1
            np.testing.assert_allclose(logits[b, t], weight @ x + bias, atol=1e-5)  # float32 sums


def test_forward_without_validity_takes_the_mask() -> None:
    head = LinearProbe(LinearProbe.Config(visual_width=2, audio_width=0, num_classes=3, modality="both"))
    visual, mask = torch.randn(1, 2, 2), torch.tensor([[True, False]])
    assert torch.equal(head(FeatureBatch.of(visual, None, mask)), head(FeatureBatch.of(visual, None, mask, mask, None)))


@pytest.mark.parametrize(("modality", "inputs"), [("both", 7 + 1 + 3 + 1), ("audio", 3 + 1), ("visual", 7 + 1)])
def test_configure_shapes_of_a_store_give_inputs(modality: Modality, inputs: int) -> None:
    config = LinearProbe.Config.for_features(
        HeadInput(visual_shape=(7, 7, 7), audio_shape=(3,), num_classes=5, modality=modality)
    )
    assert LinearProbe(config).classify.in_features == inputs


def test_configure_modality_that_the_recipe_lacks_raises() -> None:
    with pytest.raises(ValueError, match="nothing to look at: modality audio"):
        LinearProbe.Config.for_features(HeadInput(visual_shape=(4,), audio_shape=None, num_classes=2, modality="audio"))


def test_forward_features_of_another_width_raises() -> None:
    head = LinearProbe(LinearProbe.Config(visual_width=2, audio_width=0, num_classes=3, modality="visual"))
    with pytest.raises(ValueError, match="visual features of width 2, got width 4"):
        head(FeatureBatch.of(torch.zeros(1, 1, 4), None, torch.ones(1, 1, dtype=torch.bool)))
