"""The registry of heads: every head of the folder, and what a stranger's config or checkpoint may not do."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from heads import registry as model
from heads.features import FeatureBatch
from heads.spec import Head, HeadConfig, HeadInput

# Dense heads have the same laws: test_dense_heads.py.
SEGMENT_HEADS = [name for name in model.names() if model.spec(name).task == "segments"]
GOOD = {"visual_width": 3, "audio_width": 2, "num_classes": 4, "modality": "both"}


def fresh(name: str) -> tuple[HeadConfig, Head]:
    """A head for widths that every head takes, with class texts where it asks for them."""
    config = model.configure(name, HeadInput(visual_shape=(4,), audio_shape=(4,), num_classes=4, modality="both"))
    head = model.build(name, config, seed=1)
    if model.spec(name).needs_texts:
        head.set_texts(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
    return config, head


@pytest.mark.parametrize("name", SEGMENT_HEADS)
def test_every_head_trains_saves_and_restores_equal_logits(name: str) -> None:
    head_plugin = model.plugin(name)
    assert head_plugin.SPEC.summary
    config, head = fresh(name)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    inputs = (torch.randn(2, 3, 4), torch.randn(2, 3, 4), mask, mask, mask)
    if head_plugin.SPEC.needs_training:
        head(FeatureBatch.of(*inputs))[mask].sum().backward()
        learnt = [p.grad for p in head.parameters() if p.grad is not None]
        assert learnt
        assert all(bool(torch.isfinite(gradient).all()) for gradient in learnt)
    head.eval()
    fields = dataclasses.asdict(config)
    again = model.restore(name, model.read_config(name, fields), head.state_dict())
    assert torch.equal(again(FeatureBatch.of(*inputs)), head(FeatureBatch.of(*inputs)))
    assert not again.training


@pytest.mark.parametrize("name", SEGMENT_HEADS)
def test_every_head_padding_changes_no_real_segment(name: str) -> None:
    _, head = fresh(name)
    head.eval()
    visual, audio = torch.randn(1, 5, 4), torch.randn(1, 5, 4)
    mask = torch.tensor([[True, True, True, False, False]])
    short = head(FeatureBatch.of(visual[:, :3], audio[:, :3], mask[:, :3]))
    visual[:, 3:], audio[:, 3:] = 1e6, float("nan")
    torch.testing.assert_close(head(FeatureBatch.of(visual, audio, mask))[:, :3], short)


@pytest.mark.parametrize("name", SEGMENT_HEADS)
def test_every_head_features_not_computed_spread_to_nothing(name: str) -> None:
    """What lies where a feature is not valid makes no difference, NaN or not; one item's does not reach another's."""
    _, head = fresh(name)
    head.eval()
    visual, audio = torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    mask = torch.arange(5) < torch.tensor([5, 3, 0])[:, None]
    seen, heard = mask.clone(), mask.clone()
    seen[0, 1], heard[0, 3], seen[1], heard[1] = False, False, False, False
    filled = head(
        FeatureBatch.of(
            torch.where(seen[..., None], visual, 7.0), torch.where(heard[..., None], audio, -7.0), mask, seen, heard
        )
    )
    visual[~seen], audio[~heard] = float("nan"), float("nan")
    logits = head(FeatureBatch.of(visual, audio, mask, seen, heard))
    assert logits.shape == (3, 5, 4)
    assert logits.dtype == torch.float32
    assert bool(torch.isfinite(logits[mask]).all())
    torch.testing.assert_close(logits[mask], filled[mask])
    if model.spec(name).needs_training:
        head.zero_grad()
        logits[mask].sum().backward()
        assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in head.parameters())


@pytest.mark.parametrize("name", SEGMENT_HEADS)
def test_every_head_items_in_any_order_or_alone_are_the_same(name: str) -> None:
    _, head = fresh(name)
    head.eval()
    visual, audio = torch.randn(4, 6, 4), torch.randn(4, 6, 4)
    mask = torch.arange(6) < torch.tensor([6, 2, 4, 1])[:, None]
    logits = head(FeatureBatch.of(visual, audio, mask))
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        head(FeatureBatch.of(visual[order], audio[order], mask[order]))[mask[order]], logits[order][mask[order]]
    )
    for i in range(4):
        alone = head(FeatureBatch.of(visual[i : i + 1], audio[i : i + 1], mask[i : i + 1]))
        torch.testing.assert_close(alone[0][mask[i]], logits[i][mask[i]])


def test_build_equal_seeds_equal_parameters_and_global_generator_untouched() -> None:
    config = model.read_config("linear", GOOD)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two, other = (model.build("linear", config, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one["classify.weight"], two["classify.weight"])
    assert not torch.equal(one["classify.weight"], other["classify.weight"])


@pytest.mark.parametrize("name", ["nosuch", "../run_folder", "linear.Head", "__init__", ""])
def test_plugin_unknown_name_raises(name: str) -> None:
    with pytest.raises(ValueError, match="there is no head"):
        model.plugin(name)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"visual_width": "3"}, "visual_width must be a whole number, got '3'"),
        ({"visual_width": True}, "visual_width must be a whole number"),
        ({"visual_width": -1}, "visual_width must be at least 0"),
        ({"modality": "smell"}, "modality must be one of both, audio, visual"),
        ({"depth": 3}, "unknown field 'depth'"),
        ({"audio_width": 10**30}, "audio_width must be at most 16777216"),
    ],
)
def test_read_config_wrong_field_raises(change: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        model.read_config("linear", GOOD | change)


def test_read_config_missing_field_raises() -> None:
    with pytest.raises(ValueError, match="'modality' is missing"):
        model.read_config("linear", {key: value for key, value in GOOD.items() if key != "modality"})


def test_restore_shapes_of_another_config_raises_without_taking_memory() -> None:
    state = model.build("linear", model.read_config("linear", GOOD)).state_dict()
    huge = model.read_config("linear", GOOD | {"visual_width": 2**24, "num_classes": 2**24})  # 1 PB, were it built
    with pytest.raises(ValueError, match="needs"):
        model.restore("linear", huge, state)


def test_restore_nan_missing_or_other_dtype_raises() -> None:
    config = model.read_config("linear", GOOD)
    state = dict(model.build("linear", config).state_dict())
    with pytest.raises(ValueError, match=r"classify.bias holds NaN"):
        model.restore("linear", config, state | {"classify.bias": torch.full((4,), float("nan"))})
    with pytest.raises(ValueError, match=r"classify.bias needs \(4,\) torch.float32, got \(4,\) torch.float64"):
        model.restore("linear", config, state | {"classify.bias": torch.zeros(4, dtype=torch.float64)})
    del state["classify.bias"]
    with pytest.raises(ValueError, match=r"missing or not wanted: classify.bias"):
        model.restore("linear", config, state)
