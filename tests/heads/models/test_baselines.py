"""What all baseline heads for AVE have in common: the laws of padding, order and validity, and that they learn."""

from __future__ import annotations

import dataclasses
import functools
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from catalog.store.modal import Modal
from heads import registry as model
from heads.features import FeatureBatch, Target
from heads.spec import HeadInput

HEADS: dict[str, dict[str, Any]] = {
    "avel": {"hidden": 4, "agva_hidden": 6},
    "psp": {"hidden": 4, "agva_hidden": 6},
    "cmbs": {"visual_hidden": 8, "width": 8, "feedforward": 12, "attention_hidden": 6},
    "av_transformer": {"width": 8, "feedforward": 12},
}
ATTEND_TO_PLACES = ("avel", "psp")
MASK = torch.arange(10) < torch.tensor([10, 7, 3, 1])[:, None]


@pytest.fixture(params=HEADS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def built(name: str, *, places: int = 4, seed: int = 3, **options: Any) -> Any:
    shape = (6,) if places == 1 else (places, 6)
    config = model.configure(name, HeadInput(visual_shape=shape, audio_shape=(5,), num_classes=4, modality="both"))
    return model.build(name, dataclasses.replace(config, **(HEADS[name] | options)), seed=seed).eval()


def features(places: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 10, places, 6, generator=generator), torch.randn(4, 10, 5, generator=generator)


def target(classes: Tensor | None = None) -> Target:
    if classes is None:
        classes = torch.randint(0, 4, (4, 10), generator=torch.Generator().manual_seed(1))
    return Target(classes_BT=classes, background=3)


def test_padding_nan_and_order_of_items_change_nothing(name: str) -> None:
    head = built(name)
    visual, audio = features()
    got = head(FeatureBatch.of(visual, audio, MASK))
    assert got.shape == (4, 10, 4)
    assert got.dtype == torch.float32
    visual[~MASK], audio[~MASK] = float("nan"), 1e9
    torch.testing.assert_close(head(FeatureBatch.of(visual, audio, MASK))[MASK], got[MASK], rtol=0, atol=1e-6)
    for b, count in enumerate((10, 7, 3, 1)):
        alone = head(FeatureBatch.of(visual[b : b + 1, :count], audio[b : b + 1, :count], MASK[b : b + 1, :count]))
        torch.testing.assert_close(alone[0], got[b, :count], rtol=0, atol=1e-6)
    order = torch.tensor([2, 0, 3, 1])
    again = head(FeatureBatch.of(visual[order], audio[order], MASK[order]))
    torch.testing.assert_close(again[MASK[order]], got[order][MASK[order]], rtol=0, atol=1e-6)


def test_loss_padding_changes_nothing(name: str) -> None:
    loss = built(name).loss
    visual, audio = features()
    sums, counts = loss(FeatureBatch.of(visual, audio, MASK), target())
    classes = target().classes_BT
    assert classes is not None
    assert counts.tolist() == [10, 7, 3, 1]
    for b, count in enumerate((10, 7, 3, 1)):
        cut = slice(b, b + 1), slice(0, count)
        alone, _ = loss(FeatureBatch.of(visual[cut], audio[cut], MASK[cut]), target(classes[cut]))
        torch.testing.assert_close(alone[0], sums[b], rtol=1e-5, atol=1e-5)
    visual[~MASK], audio[~MASK], classes = float("nan"), 1e9, torch.where(MASK, classes, 0)
    torch.testing.assert_close(
        loss(FeatureBatch.of(visual, audio, MASK), target(classes))[0], sums, rtol=1e-5, atol=1e-5
    )


def test_features_not_computed_are_zeros(name: str) -> None:
    head = built(name, standardise=False)
    visual, audio = features()
    visual_valid, audio_valid = MASK.clone(), MASK.clone()
    visual_valid[0, 2:5], audio_valid[1] = False, False
    visual[~visual_valid], audio[~audio_valid] = float("nan"), float("nan")
    got = head(FeatureBatch.of(visual, audio, MASK, visual_valid, audio_valid))
    assert bool(torch.isfinite(got[MASK]).all())
    if name != "av_transformer":  # which does not look there at all
        filled = (
            torch.where(visual_valid[..., None, None], visual, 0.0),
            torch.where(audio_valid[..., None], audio, 0.0),
        )
        torch.testing.assert_close(got[MASK], head(FeatureBatch.of(*filled, MASK))[MASK], rtol=0, atol=1e-6)
    nothing = torch.zeros_like(MASK)
    blank = head(
        FeatureBatch.of(torch.full_like(visual, torch.nan), torch.full_like(audio, torch.nan), MASK, nothing, nothing)
    )
    assert bool(torch.isfinite(blank[MASK]).all())


def test_standardise_is_by_channel_of_valid_training_features(name: str) -> None:
    visual, audio = features()
    visual, audio = 3 * visual + 2, audio - 5
    heads = [built(name, standardise=wanted) for wanted in (True, False)]
    for head in heads:
        head.fit_statistics(*(Modal(values=x.numpy(), valid=MASK.numpy()) for x in (visual, audio)))

    def normal(x: Tensor) -> Tensor:
        real = x[MASK].reshape(-1, x.shape[-1])
        return (x - real.mean(dim=0)) / real.std(dim=0, correction=0)

    got = heads[0](FeatureBatch.of(visual, audio, MASK))
    wanted = heads[1](FeatureBatch.of(normal(visual), normal(audio), MASK))
    torch.testing.assert_close(got[MASK], wanted[MASK], rtol=0, atol=1e-4)


def test_maps_sets_and_single_vectors_are_taken(name: str) -> None:
    head = built(name)
    visual, audio = features()
    assert torch.equal(
        head(FeatureBatch.of(visual.reshape(4, 10, 2, 2, 6), audio, MASK)), head(FeatureBatch.of(visual, audio, MASK))
    )
    single = built(name, places=1)
    one_place, vector = (FeatureBatch.of(x, audio, MASK) for x in (visual[:, :, :1], visual[:, :, 0]))
    assert torch.equal(single(one_place), single(vector))
    assert torch.equal(
        head(FeatureBatch.of(visual, audio[:, :, None].expand(-1, -1, 2, -1), MASK)),
        head(FeatureBatch.of(visual, audio, MASK)),
    )


def test_any_number_of_segments(name: str) -> None:
    head = built(name)
    for count in (1, 2, 13, 60):
        mask = torch.ones(1, count, dtype=torch.bool)
        got = head(FeatureBatch.of(torch.randn(1, count, 4, 6), torch.randn(1, count, 5), mask))
        assert got.shape == (1, count, 4)
        assert bool(torch.isfinite(got).all())


def test_item_without_real_segments_is_finite_and_learns_nothing(name: str) -> None:
    head = built(name)
    visual, audio = features()
    mask = torch.zeros(4, 10, dtype=torch.bool)
    mask[0] = True
    assert bool(torch.isfinite(head(FeatureBatch.of(visual, audio, mask))).all())
    sums, counts = head.loss(FeatureBatch.of(visual, audio, mask), target())
    assert not sums[1:].any()
    assert counts.tolist() == [10, 0, 0, 0]
    torch.autograd.backward(sums.sum())
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in head.parameters())


def test_config_survives_json_and_every_parameter_learns(name: str) -> None:
    head = built(name)
    assert model.read_config(name, dataclasses.asdict(head.config)) == head.config
    visual, audio = features()
    torch.autograd.backward(head.loss(FeatureBatch.of(visual, audio, MASK), target())[0].sum())
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert bool(torch.isfinite(parameter.grad).all()), key
        # A bias of keys drops out of their softmax.
        assert parameter.grad.any() or key.endswith("key.bias"), key


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_one_modality_alone_raises_and_says_what_to_take(name: str, modality: Any) -> None:
    configure = functools.partial(model.configure, name)
    if name != "avel":  # which has published numbers of either
        with pytest.raises(ValueError, match=rf"needs both, got modality {modality} .* ave_clip or linear"):
            configure(HeadInput(visual_shape=(6,), audio_shape=(5,), num_classes=4, modality=modality))
    with pytest.raises(ValueError, match="needs both, got modality both and widths 6"):
        configure(HeadInput(visual_shape=(6,), audio_shape=None, num_classes=4, modality="both"))
    with pytest.raises(ValueError, match="needs both, got modality both and widths 0"):
        configure(HeadInput(visual_shape=None, audio_shape=(5,), num_classes=4, modality="both"))


def test_forward_wrong_features_raise(name: str) -> None:
    head = built(name)
    visual, audio = features()
    with pytest.raises(ValueError, match=r"visual features of \(4, 10\) segments, width 6, got none"):
        head(FeatureBatch.of(None, audio, MASK))
    with pytest.raises(ValueError, match=r"audio features of \(4, 10\) segments, width 5, got shape \(4, 10, 6\)"):
        head(FeatureBatch.of(visual, visual[:, :, 0], MASK))


@pytest.mark.parametrize("name", ATTEND_TO_PLACES)
def test_attention_over_places_variants_differ_and_off_is_the_mean(name: str) -> None:
    visual, audio = features()
    with pytest.raises(ValueError, match="made for 4 places, got 3"):
        built(name)(FeatureBatch.of(visual[:, :, :3], audio, MASK))
    assert built(name, agva="formula")(FeatureBatch.of(visual[:, :, :3], audio, MASK)).shape == (4, 10, 4)
    off = built(name, agva="off")
    mean = FeatureBatch.of(visual.mean(dim=2), audio, MASK)
    torch.testing.assert_close(off(FeatureBatch.of(visual, audio, MASK)), off(mean))
    assert off.attend is None
    assert built(name, places=1).attend is None
    with pytest.raises(ValueError, match="agva must be one of"):
        built(name, agva="paper")


def planted_batch(planted: ModuleType) -> tuple[Tensor, Tensor, Target]:
    """The planted items with maps of four places, of which one shows the event."""
    data, made_with = planted.dataset(items_a_class=16), planted.recipe()
    rows = [planted.rows_of(item, made_with) for item in data.items]
    times = np.arange(10)
    classes = np.full((len(rows), 10), 3)
    for row, item in zip(classes, data.items, strict=True):
        (event,) = item.events
        row[(times >= event.start_s) & (times < event.end_s)] = data.classes.index(event.label)
    seen = torch.from_numpy(np.stack([r.visual.values for r in rows]))
    visual = 0.5 * torch.randn(len(rows), 10, 4, 6, generator=torch.Generator().manual_seed(0))
    visual[:, :, 1] = seen
    audio = torch.from_numpy(np.stack([r.audio.values for r in rows]))
    return visual, audio, Target(classes_BT=torch.from_numpy(classes), background=3)


@pytest.mark.slow  # `test_every_head_learns_by_its_own_loss` learns the like in the ordinary run
def test_training_learns_planted_events(name: str, planted: ModuleType) -> None:
    sizes: dict[str, dict[str, Any]] = {"avel": {"hidden": 16}, "psp": {"hidden": 16}, "cmbs": {"width": 32}}
    options = sizes.get(name, {"width": 32, "feedforward": 64})
    if name == "avel":
        options["loss"] = "cross-entropy"  # the published one needs hundreds of steps
    head = built(name, **options)
    visual, audio, truth = planted_batch(planted)
    batch = FeatureBatch.of(visual, audio, torch.ones(visual.shape[:2], dtype=torch.bool))
    head.fit_statistics(*(Modal(values=x.numpy(), valid=batch.mask_BT.numpy()) for x in (visual, audio)))
    assert truth.classes_BT is not None
    optimiser = torch.optim.Adam(head.train().parameters(), lr=5e-3)
    losses = []
    torch.manual_seed(0)
    for _ in range(60):
        sums, counts = head.loss(batch, truth)
        optimiser.zero_grad()
        torch.autograd.backward(sums.sum() / counts.sum())
        nn.utils.clip_grad_norm_(head.parameters(), 5.0)
        optimiser.step()
        losses.append((sums.sum() / counts.sum()).item())
    accuracy = (head.eval()(batch).argmax(dim=-1) == truth.classes_BT).float().mean().item()
    assert losses[-1] < 0.5 * losses[0]
    assert accuracy > 0.9
