"""LoCo with class texts: against logits made by hand, vocabularies that change, classes that were never trained on."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from heads.blocks.class_texts import ClassTexts
from heads.dense.level_sequence import LevelSequence
from heads.features import FeatureBatch, Target
from heads.models.loco_texts import LocoTexts
from heads.registry import build, read_config, restore, spec
from heads.spec import HeadInput

SMALL: dict[str, Any] = {"width": 16, "num_heads": 2, "levels": 3, "window": 4, "unimodal_layers": 1, "text_width": 6}


def texts_of(num_classes: int, seed: int = 5) -> Tensor:
    return torch.randn(num_classes, 6, generator=torch.Generator().manual_seed(seed)) * 3


def made(*, with_texts: bool = True, **fields: Any) -> LocoTexts:
    torch.manual_seed(0)
    given: dict[str, Any] = {"visual_width": 12, "audio_width": 10, "num_classes": 5, "modality": "both"}
    head = LocoTexts(LocoTexts.Config(**(given | SMALL | fields)))
    with torch.no_grad():
        for parameter in head.trunk.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if head.trunk.lcc is not None:
            head.trunk.lcc.sigma_raw.fill_(1.0)
            head.trunk.lcc.tau_raw.fill_(0.1)
    if with_texts:
        head.set_texts(texts_of(5))
    return head.eval()


def random_input(count: int = 21) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    mask = torch.arange(count) < torch.tensor([count, count - 2, 9, 1])[:, None]
    visual, audio = torch.randn(4, count, 12, generator=rng), torch.randn(4, count, 10, generator=rng)
    return visual.masked_fill(~mask[..., None], float("nan")), audio, mask


def target_of(mask: Tensor, labels: list[int]) -> Target:
    events = torch.tensor([[[2.0, 9.5]], [[4.0, 18.0]], [[0.5, 7.0]], [[-0.4, 0.4]]])
    return Target(events_BE2=events, event_labels_BE=torch.tensor(labels)[:, None])


def test_spec_is_that_of_a_dense_head_of_texts() -> None:
    assert spec("loco_texts").task == "events"
    assert spec("loco_texts").needs_texts
    assert isinstance(made().texts, ClassTexts)


@pytest.mark.parametrize(
    ("modality", "width"),
    [("both", 1024), ("visual", 1024), ("audio", 768)],
)
def test_configure_takes_the_texts_to_be_as_wide_as_the_features(modality: Any, width: int) -> None:
    config = LocoTexts.Config.for_features(
        HeadInput(visual_shape=(4, 1024), audio_shape=(768,), num_classes=7, modality=modality)
    )
    assert (config.text_width, config.regression, config.num_classes) == (width, "class_agnostic", 7)
    assert read_config("loco_texts", dataclasses.asdict(config)) == config


def test_logits_are_scaled_cosines_and_what_is_said_of_any_event() -> None:
    head = made()
    classify: Any = head.decoder.classify
    visual, audio, mask = random_input()
    units = texts_of(5) / texts_of(5).norm(dim=1, keepdim=True)
    texts = units - units.mean(dim=0)
    with torch.no_grad():
        head.log_scale.fill_(1.2)
        output = head(FeatureBatch.of(visual, audio, mask))
        levels, _ = head.trunk(FeatureBatch.of(visual, audio, mask))
        first = 0
        for level in levels:
            lay = LevelSequence([level.x_BTF.shape[1]], gap=1, device=mask.device)
            points_BTD = classify(lay.joined([level.x_BTF]), lay.joined([level.mask_BT]))
            for t in range(lay.counts[0]):
                for b in range(4):
                    x, logits = points_BTD[b, t], output.logits_BPK[b, first + t]
                    if not level.mask_BT[b, t]:
                        assert not logits.any()
                        continue
                    x, event = x[:-1], float(x[-1])
                    cosines = [float(x @ text / x.norm() / text.norm()) for text in texts]
                    wanted = torch.tensor([2.718281828**1.2 * cosine + event for cosine in cosines])
                    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
            first += lay.counts[0]
    assert output.offsets_BPC2.shape == (4, 42, 1, 2)
    assert float(output.offsets_BPC2.min()) >= 0
    assert float(output.offsets_BPC2.max()) > 0


def test_logits_in_reduced_precision_are_those_of_the_numbers_given() -> None:
    """A cosine of three digits, times a scale of 14 to 100, would be off by a tenth and more."""
    head = made()
    raw = torch.randn(2, 9, 7).bfloat16()
    with torch.no_grad():
        head.log_scale.fill_(4.6)
        with torch.autocast("cpu", torch.bfloat16):
            reduced = head.logits(raw)
        torch.testing.assert_close(reduced, head.logits(raw.float()))


def test_logits_begin_at_one_percent() -> None:
    torch.manual_seed(0)
    head: Any = build("loco_texts", made().config)
    head.set_texts(texts_of(5))
    assert torch.sigmoid(head.decoder.classify.out.conv.bias[-1]).item() == pytest.approx(0.01)
    assert head.log_scale.exp().item() == pytest.approx(1 / 0.07)


def test_vocabulary_may_change_in_size_and_order_without_training() -> None:
    """A class's logits hang on its own text alone, and offsets on none."""
    head = made()
    given = random_input()
    with torch.no_grad():
        wanted = head(FeatureBatch.of(*given))
        head.set_texts(torch.cat([texts_of(3, seed=9), texts_of(5)[[4, 1]]]))
        more = head(FeatureBatch.of(*given))
        torch.testing.assert_close(more.logits_BPK[..., 3:], wanted.logits_BPK[..., [4, 1]])
        assert torch.equal(more.offsets_BPC2, wanted.offsets_BPC2)
        head.set_texts(texts_of(5)[2:3])
        one = head(FeatureBatch.of(*given))
    assert one.logits_BPK.shape[-1] == 1
    torch.testing.assert_close(one.logits_BPK, wanted.logits_BPK[..., 2:3])
    assert head.config.num_classes == 1


def test_centre_is_that_of_the_first_trained_texts_and_stays() -> None:
    head = made(with_texts=False)
    head.set_texts(texts_of(5))
    assert not head.centre_D.any()  # not in training
    head.train()
    head.set_texts(texts_of(5)[:1])
    assert not head.centre_D.any()  # the centre of one text is that text
    head.set_texts(texts_of(5), torch.tensor([True, True, False, True, False]))
    units = texts_of(5) / texts_of(5).norm(dim=1, keepdim=True)
    torch.testing.assert_close(head.centre_D, units[[0, 1, 3]].mean(dim=0))
    head.set_texts(texts_of(4, seed=8))
    torch.testing.assert_close(head.centre_D, units[[0, 1, 3]].mean(dim=0))


def test_only_directions_of_texts_matter() -> None:
    head = made()
    given = random_input()
    wanted = head(FeatureBatch.of(*given)).logits_BPK
    head.set_texts(texts_of(5) * torch.tensor([[0.1], [1], [5], [100], [2]]))
    torch.testing.assert_close(head(FeatureBatch.of(*given)).logits_BPK, wanted)


def test_classes_that_are_not_trained_add_nothing_and_learn_nothing() -> None:
    """The loss of 5 texts of which 3 are trained is that of the 3 alone, to the gradient."""
    some, few = made(drop_path=0.0).train(), made(drop_path=0.0).train()
    some.set_texts(texts_of(5), torch.tensor([True, False, True, True, False]))
    few.set_texts(texts_of(5)[[0, 2, 3]])
    few.centre_D.copy_(some.centre_D)
    visual, audio, mask = random_input()
    losses, gradients = [], []
    for head, labels in ((some, [0, 2, 3, 0]), (few, [0, 1, 2, 0])):
        sums, counts = head.loss(FeatureBatch.of(visual, audio, mask), target_of(mask, labels))
        losses.append(sums.sum() / counts.sum())
        last: Any = head.decoder.classify.out
        gradients.append(torch.autograd.grad(losses[-1], [head.log_scale, last.conv.weight]))
    torch.testing.assert_close(losses[0], losses[1])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_event_of_a_class_that_is_not_trained_is_an_error_in_training_only() -> None:
    head = made().train()
    head.set_texts(texts_of(5), torch.tensor([True, True, True, True, False]))
    visual, audio, mask = random_input()
    with pytest.raises(ValueError, match="4, which set_texts was not told are trained"):
        head.loss(FeatureBatch.of(visual, audio, mask), target_of(mask, [0, 1, 4, -1]))
    sums, _ = head.eval().loss(FeatureBatch.of(visual, audio, mask), target_of(mask, [0, 1, 4, -1]))
    assert bool(torch.isfinite(sums).all())


def test_every_parameter_learns() -> None:
    head = made().train()
    visual, audio, mask = random_input()
    sums, counts = head.loss(FeatureBatch.of(visual, audio, mask), target_of(mask, [0, 1, 2, 3]))
    torch.autograd.backward(sums.sum() / counts.sum())
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        if not name.endswith("scale_L") and not name.endswith("key.bias"):
            assert bool(parameter.grad.any()), name


def test_restored_head_holds_its_vocabulary_whatever_its_config_says() -> None:
    head = made()
    config = head.config
    head.set_texts(texts_of(8))
    again: Any = restore("loco_texts", config, head.state_dict())
    given = random_input()
    assert torch.equal(again(FeatureBatch.of(*given)).logits_BPK, head(FeatureBatch.of(*given)).logits_BPK)


@pytest.mark.parametrize(
    ("texts", "trained", "told"),
    [
        (torch.ones(3, 7), None, r"\(K, 6\)"),
        (torch.ones(0, 6), None, "at least 1"),
        (torch.ones(6), None, r"\(K, 6\)"),
        (torch.zeros(2, 6), None, "finite and not zero"),
        (torch.full((2, 6), float("nan")), None, "finite and not zero"),
        (torch.ones(2, 6), torch.ones(3, dtype=torch.bool), "one for each of the 2"),
        (torch.ones(2, 6), torch.ones(2), "bool"),
    ],
)
def test_texts_that_do_not_fit_are_errors(texts: Tensor, trained: Tensor | None, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        made().set_texts(texts, trained)


def test_head_without_texts_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="set_texts"):
        made(with_texts=False)(FeatureBatch.of(*random_input()))


def test_config_out_of_range_is_an_error() -> None:
    with pytest.raises(ValueError, match="text_width"):
        made(text_width=0)
    with pytest.raises(ValueError, match="regression must be one of"):
        made(regression="class_aware")


def planted(count: int, classes: list[int], texts: Tensor, seed: int) -> tuple[Tensor, Tensor, Target]:
    """One event an item, in which audio and frames hold turned texts of its class."""
    rng, fixed = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(77)
    turns = [torch.linalg.qr(torch.randn(48, 48, generator=fixed))[0][:, : texts.shape[1]] for _ in range(2)]
    units = texts / texts.norm(dim=1, keepdim=True)
    visual, audio = (0.1 * torch.randn(count, 24, 48, generator=rng) for _ in range(2))
    events, labels = torch.zeros(count, 1, 2), torch.zeros(count, 1, dtype=torch.long)
    for b in range(count):
        start = int(torch.randint(2, 8, (1,), generator=rng))
        end = start + int(torch.randint(5, 12, (1,), generator=rng))
        k = classes[int(torch.randint(len(classes), (1,), generator=rng))]
        for x, turn in ((visual, turns[0]), (audio, turns[1])):
            x[b, start:end] += 2 * turn @ units[k]
        events[b, 0], labels[b, 0] = torch.tensor([start - 0.5, end - 0.5]), k
    return visual, audio, Target(events_BE2=events, event_labels_BE=labels)


@pytest.mark.slow
def test_classes_never_trained_on_are_found_by_their_texts() -> None:
    texts = torch.randn(65, 32, generator=torch.Generator().manual_seed(1))
    seen = list(range(60))
    config = LocoTexts.Config(
        visual_width=48,
        audio_width=48,
        num_classes=65,
        modality="both",
        **(SMALL | {"text_width": 32, "width": 32, "levels": 2}),
    )
    head: Any = build("loco_texts", config)
    head.set_texts(texts, torch.arange(65) < 60)
    stepper = torch.optim.AdamW(head.parameters(), lr=5e-3)
    head.train()
    torch.manual_seed(0)
    for step in range(450):
        visual, audio, target = planted(16, seen, texts, seed=step)
        sums, counts = head.loss(FeatureBatch.of(visual, audio, torch.ones(visual.shape[:2], dtype=torch.bool)), target)
        stepper.zero_grad()
        torch.autograd.backward(sums.sum() / counts.sum())
        stepper.step()
    head.eval()
    head.set_texts(texts[60:])
    visual, audio, target = planted(200, list(range(5)), texts[60:], seed=999)
    assert target.event_labels_BE is not None
    with torch.inference_mode():
        logits = head(FeatureBatch.of(visual, audio, torch.ones(visual.shape[:2], dtype=torch.bool))).logits_BPK
    best = logits.amax(dim=1).argmax(dim=-1)
    share = float((best == target.event_labels_BE[:, 0]).float().mean())
    assert share > 0.3, share  # chance is 0.2; three seeds gave 0.41 to 0.80
