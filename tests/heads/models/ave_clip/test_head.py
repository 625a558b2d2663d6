"""AVE-CLIP against its equations written out for one item alone, its loss, its ablations, and the laws of a head."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from catalog.store.modal import Modal
from heads import registry as model
from heads.features import FeatureBatch, Target
from heads.models.ave_clip.head import SPEC, AveClip
from heads.spec import HeadInput

SMALL: dict[str, Any] = {"visual_width": 6, "audio_width": 5, "num_classes": 4, "modality": "both", "width": 8}
MASK = torch.arange(10) < torch.tensor([10, 7, 3, 1])[:, None]

# The rows of the paper's tables 1 and 3 to 6 that are this head.
ABLATIONS: dict[str, dict[str, Any]] = {
    "complete": {},
    "audio": {"modality": "audio"},
    "visual": {"modality": "visual"},
    "only fusion": {"egta": "off", "refiner": "", "last": "linear"},
    "fusion and refiner": {"egta": "off"},
    "no fusion": {"windows": ""},
    "temporal, 2 s": {"attention": "temporal", "windows": "2"},
    "feature, variable": {"attention": "feature", "windows": "3*"},
    "independent": {"shared": False, "windows": "10,5,3*"},
    "unsupervised": {"egta": "unsupervised"},
    "refiner 5 s": {"refiner": "5"},
    "refiner 10 s and 5 s": {"refiner": "10,5"},
    "literal": {"residual": False, "standardise": False},
    "places": {"places": 4, "agva_hidden": 7},
    "places as published": {"places": 4, "agva": "published"},
    "mean of places": {"places": 4, "agva": "off"},
}


def built(**options: Any) -> AveClip:
    head = model.build("ave_clip", AveClip.Config(**(SMALL | options)), seed=3)
    assert isinstance(head, AveClip)
    return head.eval()


def features(places: int = 1, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (4, 10, 6) if places == 1 else (4, 10, places, 6)
    return torch.randn(shape, generator=generator), torch.randn(4, 10, 5, generator=generator)


def lstm(module: Any, x: Tensor) -> Tensor:
    out: Tensor = module.lstm(x[None])[0][0]
    return out


def fused(module: Any, x: Tensor, windows: Sequence[Sequence[int]]) -> Tensor:
    """Equations 4 to 12 in matrices, for one item and given lengths of blocks."""
    p = module.projections[0]
    outputs = []
    for lengths in windows:
        blocks = []
        for block in torch.split(x, list(lengths)):
            one, three, five = p.inner.weight.chunk(3)
            norm = nn.functional.layer_norm(block, block.shape[1:], p.norm.weight, p.norm.bias)
            query = (norm @ one.T).tanh() @ p.query.weight.T
            key = (norm @ three.T).tanh() @ p.key.weight.T
            value = (norm @ five.T).relu() @ p.value.weight.T
            over_time = (query @ key.T / math.sqrt(query.shape[1])).softmax(dim=1)
            over_features = (key.T @ query / math.sqrt(len(block))).softmax(dim=0)
            blocks.append(over_time @ (value @ over_features) + block @ p.residual.weight.T)
        outputs.append(torch.cat(blocks))
    return torch.cat(outputs, dim=1)


def test_forward_equals_the_equations_for_each_item_alone() -> None:
    head = built(places=3)
    visual, audio = features(3)
    head.fit_statistics(rows_of(visual), rows_of(audio))
    got = head(FeatureBatch.of(visual, audio, MASK))
    windows = {
        10: [[10], [5, 5], [3, 3, 4], [2] * 5],
        7: [[7], [5, 2], [3, 4], [2, 2, 2, 1]],
        3: [[3], [3], [3], [2, 1]],
        1: [[1]] * 4,
    }
    real_v, real_a = visual[MASK], audio[MASK]
    mean_v, std_v = real_v.mean(dim=(0, 1)), real_v.std(dim=(0, 1), correction=0)
    mean_a, std_a = real_a.mean(dim=0), real_a.std(dim=0, correction=0)
    attend, refine = head.attend, head.refine
    assert attend is not None
    assert refine.event is not None
    for b, (count, lengths) in enumerate(windows.items()):
        places, heard = (visual[b, :count] - mean_v) / std_v, (audio[b, :count] - mean_a) / std_a
        content = attend.content(attend.visual(places).relu()) + attend.guide(attend.audio(heard).relu())[:, None]
        alpha = (content.tanh() @ attend.score.weight[0]).softmax(dim=1)
        seen = torch.stack([alpha[t] @ places[t] for t in range(count)])
        f = torch.cat([lstm(head.visual_lstm, seen), lstm(head.audio_lstm, heard)], dim=1)
        o = fused(head.fusion, f, lengths)
        event = refine.event.score(lstm(refine.event.lstm, refine.event.norm(o))).sigmoid()
        refined = fused(refine.fusion, o * event, [[count]])
        wanted = head.classify(lstm(head.last, head.norm(refined)))
        torch.testing.assert_close(got[b, :count], wanted, rtol=0, atol=1e-5)


def rows_of(values: Tensor) -> Modal:
    return Modal(values=values.numpy(), valid=MASK.numpy())


def target_of(classes: Tensor) -> Target:
    return Target(classes_BT=classes, background=3)


def slow_loss(logits: Tensor, event_logits: Tensor | None, classes: Tensor, b: int) -> Tensor:
    total = torch.zeros(())
    for t in range(10):
        if MASK[b, t]:
            cross = -(logits[b, t].exp() / logits[b, t].exp().sum())[classes[b, t]].log()
            if event_logits is None:
                total = total + cross
                continue
            p = event_logits[b, t].sigmoid()
            total = total + 0.3 * -(p if classes[b, t] != 3 else 1 - p).log() + 0.7 * cross
    return total


@pytest.mark.parametrize("egta", ["supervised", "unsupervised", "off"])
def test_loss_equals_equation_17_segment_by_segment(egta: str) -> None:
    head = built(egta=egta)
    visual, audio = features()
    classes = torch.randint(0, 4, (4, 10), generator=torch.Generator().manual_seed(1))
    sums, counts = head.loss(FeatureBatch.of(visual, audio, MASK), target_of(classes))
    logits = head(FeatureBatch.of(visual, audio, MASK))
    event_logits = None
    if egta == "supervised":
        assert head.fusion is not None
        assert head.refine.event is not None
        encoded = torch.cat([head.visual_lstm(visual, MASK), head.audio_lstm(audio, MASK)], dim=-1)
        event_logits = head.refine.event(head.fusion(encoded, MASK), MASK)
    for b in range(4):
        torch.testing.assert_close(sums[b], slow_loss(logits, event_logits, classes, b), rtol=0, atol=1e-4)
    assert counts.tolist() == [10, 7, 3, 1]


def test_loss_supervision_reaches_the_mask_alone_with_weight_1() -> None:
    head = built(event_weight=1.0)
    visual, audio = features()
    sums, _ = head.loss(FeatureBatch.of(visual, audio, MASK), target_of(torch.zeros(4, 10, dtype=torch.int64)))
    torch.autograd.backward(sums.sum())
    assert head.classify.weight.grad is None or not head.classify.weight.grad.any()
    assert head.refine.event is not None
    assert head.refine.event.score.weight.grad is not None
    assert head.refine.event.score.weight.grad.any()


def test_loss_several_labels_is_sigmoid_cross_entropy_over_classes() -> None:
    head = built()
    visual, audio = features()
    labels = torch.rand(4, 10, 4, generator=torch.Generator().manual_seed(2)) < 0.3
    sums, counts = head.loss(FeatureBatch.of(visual, audio, MASK), Target(labels_BTK=labels))
    rest, _ = built(event_weight=0.0).loss(FeatureBatch.of(visual, audio, MASK), Target(labels_BTK=labels))
    p = head(FeatureBatch.of(visual, audio, MASK)).sigmoid()
    for b in range(4):
        wanted = -torch.where(labels[b], p[b], 1 - p[b]).log().sum(dim=1)[MASK[b]].sum()
        torch.testing.assert_close(rest[b], wanted, rtol=0, atol=1e-4)
    assert bool((sums != 0.7 * rest).all())  # the mask's part is there too
    assert counts.tolist() == [10, 7, 3, 1]


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_keeps_the_laws_of_a_head(name: str) -> None:
    """Padding, NaN and the order of items change nothing; every parameter learns; the config survives JSON."""
    options = ABLATIONS[name]
    head = built(**options)
    assert model.read_config("ave_clip", dataclasses.asdict(head.config)) == head.config
    visual, audio = features(options.get("places", 1))
    got = head(FeatureBatch.of(visual, audio, MASK))
    assert got.shape == (4, 10, 4)
    assert got.dtype == torch.float32
    visual[~MASK], audio[~MASK] = float("nan"), 1e9
    torch.testing.assert_close(head(FeatureBatch.of(visual, audio, MASK))[MASK], got[MASK], rtol=0, atol=1e-6)
    for b, count in enumerate((10, 7, 3, 1)):
        alone = head(FeatureBatch.of(visual[b : b + 1, :count], audio[b : b + 1, :count], MASK[b : b + 1, :count]))
        torch.testing.assert_close(alone[0], got[b, :count], rtol=0, atol=1e-6)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        head(FeatureBatch.of(visual[order], audio[order], MASK[order]))[MASK[order]],
        got[order][MASK[order]],
        rtol=0,
        atol=1e-6,
    )
    torch.autograd.backward(
        head.loss(FeatureBatch.of(visual, audio, MASK), target_of(torch.zeros(4, 10, dtype=torch.int64)))[0].sum()
    )
    for parameter in head.parameters():
        assert parameter.grad is not None
        assert bool(torch.isfinite(parameter.grad).all())


def test_ablations_differ() -> None:
    """No option is taken and then ignored."""
    visual, audio = features()
    maps = features(4)[0]
    outputs = {
        name: built(**options)(FeatureBatch.of(maps if options.get("places") else visual, audio, MASK))[MASK]
        for name, options in ABLATIONS.items()
        if name != "unsupervised"  # differs in the loss alone
    }
    for one in outputs:
        for other in outputs:
            assert one == other or not torch.allclose(outputs[one], outputs[other], atol=1e-4), (one, other)


@pytest.mark.parametrize("standardise", [True, False])
def test_forward_features_not_computed_are_zeros_after_standardising(standardise: bool) -> None:
    head = built(standardise=standardise)
    visual, audio = features()
    head.fit_statistics(rows_of(visual + 3), rows_of(audio - 2))
    moved = head.visual_standard.mean_D.abs().max() > 1
    assert bool(moved) == standardise
    visual_valid, audio_valid = MASK.clone(), MASK.clone()
    visual_valid[0, 2:5], audio_valid[1] = False, False
    filled_v, filled_a = visual.clone(), audio.clone()
    filled_v[0, 2:5], filled_a[1] = head.visual_standard.mean_D, head.audio_standard.mean_D
    visual[0, 2:5], audio[1] = float("nan"), float("nan")
    got = head(FeatureBatch.of(visual, audio, MASK, visual_valid, audio_valid))
    assert bool(torch.isfinite(got).all())
    torch.testing.assert_close(got, head(FeatureBatch.of(filled_v, filled_a, MASK)), rtol=0, atol=1e-6)


def test_standardise_maps_have_one_mean_a_channel() -> None:
    head = built(places=4)
    visual, audio = features(4)
    head.fit_statistics(rows_of(visual), rows_of(audio))
    wanted = visual.numpy()[MASK.numpy()].reshape(-1, 6).mean(axis=0)
    np.testing.assert_allclose(head.visual_standard.mean_D.numpy(), wanted, atol=1e-6)
    assert torch.equal(
        head(FeatureBatch.of(visual.reshape(4, 10, 2, 2, 6), audio, MASK)), head(FeatureBatch.of(visual, audio, MASK))
    )


def test_one_vector_a_segment_makes_no_attention_and_equals_a_set_of_one() -> None:
    head = built()
    visual, audio = features()
    assert head.attend is None
    assert torch.equal(
        head(FeatureBatch.of(visual[:, :, None], audio, MASK)), head(FeatureBatch.of(visual, audio, MASK))
    )


def test_any_number_of_segments() -> None:
    head = built()
    for count in (1, 2, 7, 10, 13, 60):
        mask = torch.ones(1, count, dtype=torch.bool)
        got = head(FeatureBatch.of(torch.randn(1, count, 6), torch.randn(1, count, 5), mask))
        assert got.shape == (1, count, 4)
        assert bool(torch.isfinite(got).all())


def test_item_without_real_segments_is_finite_and_learns_nothing() -> None:
    head = built()
    visual, audio = features()
    mask = torch.zeros(4, 10, dtype=torch.bool)
    for real in (0, 1):
        mask[:real] = True
        target = Target(classes_BT=torch.zeros(4, 10, dtype=torch.int64), background=3)
        assert bool(torch.isfinite(head(FeatureBatch.of(visual, audio, mask))).all())
        sums, counts = head.loss(FeatureBatch.of(visual, audio, mask), target)
        assert not sums[real:].any()
        assert not counts[real:].any()
    torch.autograd.backward(sums.sum())
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in head.parameters())


def test_training_learns_events_that_need_both_modalities() -> None:
    """Sound alone tells the event, picture alone its class, a window's neighbours tell which noisy second is wrong."""
    torch.manual_seed(0)
    head = built(width=16, dropout=0.0).train()
    starts, kinds = torch.randint(0, 5, (64,)), torch.randint(0, 3, (64,))
    times = torch.arange(10)
    event = (times >= starts[:, None]) & (times < starts[:, None] + 5)
    classes = torch.where(event, kinds[:, None], 3)
    visual = 0.3 * torch.randn(64, 10, 6) + nn.functional.one_hot(kinds, 6)[:, None]
    audio = 0.3 * torch.randn(64, 10, 5) + event[..., None].float()
    mask = torch.ones(64, 10, dtype=torch.bool)
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(60):
        sums, counts = head.loss(FeatureBatch.of(visual, audio, mask), Target(classes_BT=classes, background=3))
        optimiser.zero_grad()
        torch.autograd.backward(sums.sum() / counts.sum())
        optimiser.step()
    assert float((head.eval()(FeatureBatch.of(visual, audio, mask)).argmax(dim=-1) == classes).float().mean()) > 0.97


@pytest.mark.parametrize("part", ["fusion", "classify"])
def test_dropout_acts_before_the_part_in_training_only(part: str) -> None:
    head = built(dropout=0.5, width=32)
    inputs: list[Tensor] = []
    head.get_submodule(part).register_forward_pre_hook(lambda _, given: inputs.append(given[0][0]))  # the full item's
    visual, audio = features()
    for training in (False, True):
        head.train(training)
        head(FeatureBatch.of(visual, audio, MASK))
    assert not (inputs[0] == 0).any()
    assert 0.3 < float((inputs[1] == 0).float().mean()) < 0.7


def test_options_of_fusion_reach_the_refiner_too() -> None:
    head = built(attention="feature", shared=False, residual=False, refiner="10,5")
    refiner = head.refine.fusion
    assert refiner is not None
    assert refiner.attention == "feature"
    assert len(refiner.projections) == 2
    assert not any("residual" in name for name, _ in head.named_parameters())


def test_configure_shapes_of_a_store_give_the_published_head() -> None:
    config = AveClip.Config.for_features(
        HeadInput(visual_shape=(7, 7, 512), audio_shape=(128,), num_classes=29, modality="both")
    )
    assert (config.places, config.visual_width, config.audio_width) == (49, 512, 128)
    assert (config.windows, config.shared, config.width, config.refiner) == ("10,5,3*,2", True, 256, "T")
    assert config.attends_to_places
    flat = AveClip.Config.for_features(
        HeadInput(visual_shape=(1024,), audio_shape=(1024,), num_classes=29, modality="both")
    )
    assert not flat.attends_to_places
    with torch.device("meta"):
        parameters = {name: sum(p.numel() for p in m.parameters()) for name, m in AveClip(flat).named_children()}
    gates = 4 * 128
    assert parameters["visual_lstm"] == 2 * gates * (1024 + 128 + 2)
    assert parameters["fusion"] == 2 * 512 + 512 * 768 + 3 * 256**2 + 512 * 256
    assert sum(parameters.values()) == 5_919_774
    assert AveClip.Config.for_features(
        HeadInput(visual_shape=None, audio_shape=(8,), num_classes=2, modality="both")
    ).uses_audio
    assert (SPEC.training["epochs"], SPEC.training["batch_size"], SPEC.training["learning_rate"]) == (300, 128, 1e-3)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"width": 7}, "width must be a multiple of 2"),
        ({"width": 0}, "width must be at least 2"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"places": 0}, "places must be at least 1"),
        ({"audio_width": -1}, "at least 0"),
        ({"width": 2**26}, "width must be at most 16777216"),
        ({"audio_width": 0, "modality": "audio"}, "nothing to look at: modality audio"),
        ({"windows": "10,x"}, "windows are lengths"),
        ({"refiner": "0"}, "windows are lengths"),
        ({"attention": "none"}, "attention must be one of both, temporal, feature"),
        ({"egta": "on"}, "egta must be one of"),
        ({"agva": "paper"}, "agva must be one of"),
        ({"last": "gru"}, "last must be one of"),
        ({"modality": "smell"}, "modality must be one of"),
        ({"dropout": 1.0}, "dropout must be less than 1"),
        ({"event_weight": 1.5}, "event_weight must be at most 1"),
        ({"event_weight": float("nan")}, "event_weight must be at most 1"),
    ],
)
def test_config_wrong_field_raises(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        AveClip.Config(**(SMALL | wrong))


def test_forward_wrong_features_raise() -> None:
    visual, audio = features()
    with pytest.raises(ValueError, match=r"visual features of \(4, 10\) segments, width 6, got none"):
        built()(FeatureBatch.of(None, audio, MASK))
    with pytest.raises(ValueError, match=r"audio features of \(4, 10\) segments, width 5, got shape \(4, 10, 6\)"):
        built()(FeatureBatch.of(visual, visual, MASK))
    with pytest.raises(ValueError, match="made for 4 places, got 9"):
        built(places=4, agva="published")(FeatureBatch.of(features(9)[0], audio, MASK))
