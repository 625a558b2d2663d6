"""PSP against its parts joined by hand for each item alone, its loss and size; see also test_baselines."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from heads import registry as model
from heads.blocks.losses import binary_cross_entropy
from heads.features import FeatureBatch, Target
from heads.models.psp.head import SPEC, Psp
from heads.spec import HeadInput

SMALL: dict[str, Any] = {"visual_width": 6, "audio_width": 5, "num_classes": 4, "modality": "both", "hidden": 4}
COUNTS = (10, 7, 1)
MASK = torch.arange(10) < torch.tensor(COUNTS)[:, None]


def built(**options: Any) -> Psp:
    head = model.build("psp", Psp.Config(**(SMALL | {"places": 4, "agva_hidden": 6} | options)), seed=1)
    assert isinstance(head, Psp)
    return head.eval()


def features() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(3, 10, 4, 6), torch.randn(3, 10, 5), torch.randint(0, 4, (3, 10))


def by_hand(head: Psp, visual: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
    """One item without padding: logits (T, K) and similarities (T,)."""
    assert head.attend is not None
    heard = head.audio_map[1](head.audio_map[0](audio))
    seen = []
    for t in range(len(visual)):
        content = head.attend.content(torch.relu(head.attend.visual(visual[t])))
        guide = head.attend.guide(torch.relu(head.attend.audio(heard[t])))
        scores = torch.tanh(content + guide[:, None]) @ head.attend.score.weight[0]
        seen.append(scores.softmax(dim=0) @ visual[t])
    pictured = head.visual_map[1](head.visual_map[0](torch.stack(seen)))
    v, a = head.visual_lstm.lstm(pictured[None])[0], head.audio_lstm.lstm(heard[None])[0]
    fused, v, a = head.propagate(v, a, torch.ones(1, len(visual), dtype=torch.bool))
    logits = torch.relu(fused[0] @ head.inner.weight.T) @ head.classify.weight.T
    return logits, (v[0] * a[0]).sum(dim=1) / (v[0].norm(dim=1) * a[0].norm(dim=1))


def test_forward_and_loss_equal_each_item_by_hand() -> None:
    head = built()
    visual, audio, classes = features()
    got = head(FeatureBatch.of(visual, audio, MASK))
    sums, counts = head.loss(FeatureBatch.of(visual, audio, MASK), Target(classes_BT=classes, background=3))
    for b, count in enumerate(COUNTS):
        logits, similarity = by_hand(head, visual[b, :count], audio[b, :count])
        torch.testing.assert_close(got[b, :count], logits, rtol=0, atol=1e-5)
        probabilities = logits.softmax(dim=1)
        cross = sum(-probabilities[t, classes[b, t]].log() for t in range(count))
        events = classes[b, :count] != 3
        wanted = events / events.sum().clamp(min=1)
        share = torch.relu(similarity) / torch.relu(similarity).sum().clamp(min=1e-8)
        torch.testing.assert_close(sums[b], cross + 100 * (share - wanted).square().sum(), rtol=1e-4, atol=1e-4)
    assert counts.tolist() == list(COUNTS)


def test_loss_similarity_weight_0_is_the_classes_alone() -> None:
    head = built(similarity_weight=0.0)
    visual, audio, _ = features()
    labels = torch.rand(3, 10, 4) < 0.3
    got, _ = head.loss(FeatureBatch.of(visual, audio, MASK), Target(labels_BTK=labels))
    torch.testing.assert_close(got, binary_cross_entropy(head(FeatureBatch.of(visual, audio, MASK)), labels, MASK)[0])


def test_threshold_and_dropout_reach_the_propagation() -> None:
    head = built(threshold=0.3, dropout=0.4)
    assert (head.propagate.threshold, head.propagate.dropout.p) == (0.3, 0.4)


def test_init_linear_maps_begin_as_xavier_says() -> None:
    head = built(hidden=32, agva_hidden=32)
    assert head.attend is not None
    for linear in (head.attend.visual, head.attend.guide, head.propagate.visual_first, head.inner):
        bound = (6 / sum(linear.weight.shape)) ** 0.5
        assert 0.9 * bound < linear.weight.abs().max().item() <= bound


def test_size_is_the_published_one_less_its_unused_layers() -> None:
    config = Psp.Config.for_features(
        HeadInput(visual_shape=(7, 7, 512), audio_shape=(128,), num_classes=29, modality="both")
    )
    assert (config.places, config.threshold, config.similarity_weight) == (49, 0.099, 100.0)
    with torch.device("meta"):
        used = sum(p.numel() for p in Psp(config).parameters())
    picture, classifiers, event = 512 * 128 + 128, 2 * (256 * 64 + 64 * 28), 256 * 64 + 64 + 64 * 2 + 2
    assert used == 1_548_657
    assert round((used + picture + classifiers + event) / 1e6, 2) == 1.67  # measured of the published code
    assert (SPEC.training["epochs"], SPEC.training["batch_size"], SPEC.training["schedule"]) == (300, 128, "0.8@60,120")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"threshold": -0.1}, "threshold must be at least 0"),
        ({"similarity_weight": float("inf")}, "similarity_weight must be a finite number"),
        ({"dropout": 1.0}, "dropout must be less than 1"),
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"agva": "paper"}, "agva must be one of"),
    ],
)
def test_config_wrong_field_raises(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Psp.Config(**(SMALL | wrong))
