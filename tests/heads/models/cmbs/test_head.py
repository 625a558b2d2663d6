"""CMBS against published decisions and targets, and its equations by hand for each item; see also test_baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heads import registry as model
from heads.features import FeatureBatch, Target
from heads.metrics import ave
from heads.models.cmbs.head import SPEC, Cmbs, item_classes, two_branch_logits
from heads.spec import HeadInput

SMALL: dict[str, Any] = {
    "visual_width": 6,
    "audio_width": 5,
    "num_classes": 4,
    "modality": "both",
    "visual_hidden": 8,
    "width": 8,
    "num_heads": 2,
    "feedforward": 12,
    "attention_hidden": 6,
}
COUNTS = (10, 7, 3, 1)
MASK = torch.arange(10) < torch.tensor(COUNTS)[:, None]


def built(**options: Any) -> Cmbs:
    head = model.build("cmbs", Cmbs.Config(**(SMALL | options)), seed=1)
    assert isinstance(head, Cmbs)
    return head.eval()


def features() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    classes = torch.where(torch.rand(4, 10) < 0.4, 3, torch.tensor([0, 2, 1, 0])[:, None])
    classes[3] = 3
    return torch.randn(4, 10, 4, 6), torch.randn(4, 10, 5), classes


def test_two_branch_logits_arg_max_equals_golden_decisions(shared: Path) -> None:
    with np.load(shared / "parity" / "heads" / "ave" / "ave.npz", allow_pickle=False) as arrays:
        event, classes = (torch.from_numpy(arrays[name]) for name in ("is_event", "event_class"))
        wanted, labels = arrays["two_branch_pred"], arrays["labels"].argmax(axis=-1)
    got = two_branch_logits(event, classes)
    assert got.shape == (60, 10, 29)
    decided = ave.decide(got.numpy())
    np.testing.assert_array_equal(decided, wanted)
    assert float((decided == labels).mean()) == pytest.approx(0.45833333333333326, abs=1e-12)


def test_two_branch_logits_ties_and_extremes_keep_the_decision() -> None:
    tiny = torch.finfo(torch.float32).tiny
    event = torch.tensor([[0.0, -0.0, tiny, -tiny, 1e-3, -1e-3, 60.0, -60.0, 3e38, -3e38]])
    for classes in ([0.0, 0.0, -1.0], [-5.0, 2.0, 2.0], [1e6, 1e6 + 0.0625, 0.0], [3.0, 3.0000002, -3e38]):
        logits = two_branch_logits(event, torch.tensor([classes]))
        best = int(torch.tensor(classes).argmax())
        wanted = [best if float(e) > 0 else 3 for e in event[0]]
        assert logits.argmax(dim=-1)[0].tolist() == wanted
        assert ave.decide(logits.numpy())[0].tolist() == wanted


def test_item_classes_equal_golden(shared: Path) -> None:
    with np.load(shared / "parity" / "heads" / "ave" / "ave.npz", allow_pickle=False) as arrays:
        classes = torch.from_numpy(arrays["labels"]).argmax(dim=-1)
        event, wanted = arrays["cmbs/is_event"], arrays["cmbs/video_class"]
    got, has_event = item_classes(classes, classes != 28, 28)
    np.testing.assert_array_equal(got.numpy(), wanted)
    np.testing.assert_array_equal((classes != 28).numpy(), event.astype(bool))
    assert bool(has_event.all())


def test_item_classes_takes_the_commonest_event() -> None:
    classes = torch.tensor([[3, 3, 3, 2, 2, 1], [3, 3, 3, 3, 3, 3], [2, 0, 2, 0, 3, 3]])
    got, has_event = item_classes(classes, classes != 3, 3)
    assert got.tolist() == [2, 0, 0]
    assert has_event.tolist() == [True, False, True]


def by_hand(
    head: Cmbs, visual: Tensor, audio: Tensor, *, alpha: float = 0.1, gamma: float = 0.3
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One item without padding: event logits (T,), gates (T,), class logits (C,), CAS (C,)."""
    mask = torch.ones(1, len(visual), dtype=torch.bool)
    places = torch.relu(head.visual_map(visual))
    r_v = head.visual_lstm.lstm(head.attend(places[None], audio[None]))[0]
    r_a = head.audio_lstm.lstm(audio[None])[0]
    k_v, k_a = head.visual_encoder.input(r_v), head.audio_encoder.input(r_a)
    for i in range(head.config.encoder_layers):
        k_v, k_a = head.visual_encoder.layers[i](k_v, mask), head.audio_encoder.layers[i](k_a, mask)
    q_v = head.visual_decoder(head.visual_query(r_v), mask, k_a)
    q_a = head.audio_decoder(head.audio_query(r_a), mask, k_v)
    g_v, g_a = head.visual_gate(k_v).sigmoid(), head.audio_gate(k_a).sigmoid()
    q_v, q_a = q_v * (1 + alpha * g_a), q_a * (1 + alpha * g_v)
    both = head.visual_scores(q_v)[0], head.audio_scores(q_a)[0]
    cas = [[scores[:, c].sort(descending=True).values[:4].mean() for c in range(3)] for scores in both]
    s = (torch.stack(cas[0]) + torch.stack(cas[1])) / 2
    f_v = head.visual_interaction(q_v, q_a, mask)
    f = (f_v + head.audio_interaction(q_a, f_v, mask))[0] / 2
    return head.event(f)[:, 0], (g_v * g_a)[0, :, 0], head.classify(f.max(dim=0).values) + gamma * s, s


@pytest.mark.parametrize("weights", [{}, {"alpha": 0.7, "beta": 1.3, "gamma": 2.0}])
def test_branches_and_loss_equal_each_item_by_hand(weights: dict[str, float]) -> None:
    """With the published weights, and with others: each one reaches the place that it weighs."""
    head = built(**weights)
    assert head.attend.beta == weights.get("beta", 0.4)
    visual, audio, classes = features()
    got = head.branches(FeatureBatch.of(visual, audio, MASK))
    sums, counts = head.loss(FeatureBatch.of(visual, audio, MASK), Target(classes_BT=classes, background=3))
    bce, ce = nn.BCEWithLogitsLoss(reduction="sum"), nn.CrossEntropyLoss()
    for b, count in enumerate(COUNTS):
        event, gate, kinds, scores = by_hand(
            head,
            visual[b, :count],
            audio[b, :count],
            alpha=weights.get("alpha", 0.1),
            gamma=weights.get("gamma", 0.3),
        )
        torch.testing.assert_close(got.event_BT[b, :count], event, rtol=0, atol=1e-5)
        torch.testing.assert_close(got.gate_BT[b, :count], gate, rtol=0, atol=1e-5)
        torch.testing.assert_close(got.class_BC[b], kinds, rtol=0, atol=1e-5)
        torch.testing.assert_close(got.scores_BC[b], scores, rtol=0, atol=1e-5)
        true = (classes[b, :count] != 3).float()
        wanted = bce(event, true) + bce(gate, true)
        if true.any():
            kind = classes[b, :count][true.bool()][0]
            wanted = wanted + count * (ce(kinds, kind) + ce(scores, kind))
        torch.testing.assert_close(sums[b], wanted, rtol=1e-5, atol=1e-4)
    assert counts.tolist() == list(COUNTS)


def test_loss_of_full_items_is_the_published_sum_of_batch_means() -> None:
    head = built()
    visual, audio, classes = features()
    classes[3] = torch.tensor([0] * 4 + [3] * 6)
    full = torch.ones(4, 10, dtype=torch.bool)
    sums, counts = head.loss(FeatureBatch.of(visual, audio, full), Target(classes_BT=classes, background=3))
    branches, event = head.branches(FeatureBatch.of(visual, audio, full)), (classes != 3).float()
    kinds = torch.tensor([0, 2, 1, 0])
    wanted = (
        nn.BCEWithLogitsLoss()(branches.event_BT, event)
        + nn.BCEWithLogitsLoss()(branches.gate_BT, event)
        + nn.CrossEntropyLoss()(branches.class_BC, kinds)
        + nn.CrossEntropyLoss()(branches.scores_BC, kinds)
    )
    torch.testing.assert_close(sums.sum() / counts.sum(), wanted)


def test_forward_is_the_decision_of_the_branches() -> None:
    head = built()
    visual, audio, _ = features()
    branches = head.branches(FeatureBatch.of(visual, audio, MASK))
    decided = head(FeatureBatch.of(visual, audio, MASK)).argmax(dim=-1)
    wanted = torch.where(branches.event_BT.sigmoid() > 0.5, branches.class_BC.argmax(dim=-1)[:, None], 3)
    assert torch.equal(decided[MASK], wanted[MASK])
    assert len(set(decided[0].tolist()) - {3}) <= 1


def test_item_without_real_segments_has_finite_class_logits() -> None:
    head = built()
    nn.init.constant_(head.classify.weight, 2.0)  # the lowest number times 2 would be infinite
    visual, audio, _ = features()
    branches = head.branches(FeatureBatch.of(visual, audio, torch.zeros(4, 10, dtype=torch.bool)))
    torch.testing.assert_close(branches.class_BC, head.classify.bias.expand(4, 3))
    assert not branches.scores_BC.any()


def test_loss_several_labels_raises() -> None:
    visual, audio, _ = features()
    with pytest.raises(ValueError, match="one class a video"):
        built().loss(FeatureBatch.of(visual, audio, MASK), Target(labels_BTK=torch.zeros(4, 10, 4, dtype=torch.bool)))


def test_dropouts_are_the_published_ones() -> None:
    head = built()
    assert head.dropout.p == head.attend.dropout.p == 0.2
    assert head.visual_decoder.dropout.p == head.visual_decoder.attention.dropout.p == 0.1
    assert head.visual_interaction.attention.dropout.p == 0.2
    assert head.visual_interaction.dropout.p == 0.1


def test_configure_shapes_of_a_store_give_the_published_head() -> None:
    config = Cmbs.Config.for_features(
        HeadInput(visual_shape=(7, 7, 512), audio_shape=(128,), num_classes=29, modality="both")
    )
    assert (config.alpha, config.beta, config.gamma, config.encoder_layers) == (0.1, 0.4, 0.3, 2)
    with torch.device("meta"):
        head = Cmbs(config)
    assert (head.visual_lstm.lstm.hidden_size, head.audio_lstm.lstm.hidden_size) == (256, 128)
    assert head.classify.out_features == 28
    assert (SPEC.training["epochs"], SPEC.training["batch_size"], SPEC.training["clip_norm"]) == (200, 64, 0.5)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"width": 7}, "width must be a multiple of 2"),
        ({"width": 6, "num_heads": 4}, "width must be a multiple of num_heads, got 6 and 4"),
        ({"encoder_layers": -1}, "encoder_layers must be at least 0"),
        ({"feedforward": 2**25}, "feedforward must be at most 16777216"),
        ({"alpha": float("nan")}, "alpha must be a finite number"),
        ({"dropout": 1.0}, "dropout must be less than 1"),
    ],
)
def test_config_wrong_field_raises(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Cmbs.Config(**(SMALL | wrong))
