"""LoCo as a whole: laws of its outputs and losses, its cost, and planted events that it has to find."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from catalog.store.modal import Modal
from heads.blocks.temporal_conv import sinusoid
from heads.dense.decode import Decoding, decode
from heads.dense.head import DenseHead
from heads.dense.nms import Suppression, suppress
from heads.dense.points import points
from heads.features import FeatureBatch, Target
from heads.models.loco.head import Loco
from heads.models.loco.trunk import TRAINING as PUBLISHED
from heads.registry import build, parse_field, plugin, read_config, restore
from heads.spec import HeadInput
from heads.training.settings import Settings

SMALL: dict[str, Any] = {"width": 16, "num_heads": 2, "levels": 3, "window": 4, "unimodal_layers": 1}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"cross": "fixed"},
    {"cross": "global", "lcc": "off", "attention_window": None},
    {"lcc": "diagonal", "iou_loss": "giou", "sinusoid": True},
    {"lcc": "softened", "lcc_stride": 2, "regression": "class_agnostic", "center_radius": 1.5},
    {"lcc": "fixed", "decoder_layers": 2, "unimodal_layers": 0, "standardise": True},
    {"modality": "audio"},
    {"modality": "visual", "decoder_layers": 0, "cross": "fixed"},
]


def made(**fields: Any) -> Loco:
    torch.manual_seed(0)
    given: dict[str, Any] = {"visual_width": 12, "audio_width": 10, "num_classes": 3, "modality": "both"}
    head = Loco(Loco.Config(**(given | SMALL | fields)))
    with torch.no_grad():  # away from where training starts: branches open, windows moved
        for parameter in head.trunk.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if head.trunk.lcc is not None:
            head.trunk.lcc.sigma_raw.fill_(1.0)
            head.trunk.lcc.tau_raw.fill_(0.1)
    return head.eval()


def random_input(count: int = 21, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Visual, audio, mask, validity of each; NaN where not valid. Item 2 has no sound at all."""
    rng = torch.Generator().manual_seed(seed)
    visual, audio = torch.randn(4, count, 12, generator=rng), torch.randn(4, count, 10, generator=rng)
    mask = torch.arange(count) < torch.tensor([count, count - 2, 9, 1])[:, None]
    visual_valid, audio_valid = (mask & (torch.rand(4, count, generator=rng) < 0.8) for _ in range(2))
    audio_valid[2] = False
    visual[~visual_valid] = float("nan")
    audio[~audio_valid] = float("nan")
    return visual, audio, mask, visual_valid, audio_valid


def target_of(mask: Tensor) -> Target:
    events = torch.tensor(
        [[[2.0, 9.5], [4.0, 18.0]], [[1.0, 3.0], [0, 0]], [[0.5, 7.0], [0, 0]], [[-0.4, 0.4], [0, 0]]]
    )
    labels = torch.tensor([[0, 2], [1, -1], [2, -1], [0, -1]])
    return Target(events_BE2=events, event_labels_BE=labels)


def flat(levels: Tensor, counts: tuple[int, ...]) -> list[Tensor]:
    return list(torch.split(levels, list(counts), dim=1))


def test_spec_is_that_of_a_dense_head() -> None:
    loco = plugin("loco")
    assert loco.SPEC.task == "events"
    assert loco.SPEC.pools_places
    assert issubclass(loco.Head, DenseHead)
    published: dict[str, Any] = dict(loco.SPEC.training)
    assert Settings(**published).epochs == 45
    assert loco.SPEC.training == PUBLISHED


def test_configure_takes_widths_from_the_store_and_published_sizes() -> None:
    config = Loco.Config.for_features(
        HeadInput(visual_shape=(1536,), audio_shape=(1536,), num_classes=100, modality="both")
    )
    assert (config.visual_width, config.audio_width, config.num_classes) == (1536, 1536, 100)
    assert (config.width, config.num_heads, config.unimodal_layers, config.levels, config.window) == (512, 4, 2, 6, 8)
    assert (config.lcc, config.lcc_weight, config.regression, config.cross) == ("gaussian", 0.1, "class_aware", "cdp")
    with torch.device("meta"):
        head = Loco(config)
    assert sum(p.numel() for p in head.parameters()) == 74_914_708
    assert read_config("loco", dataclasses.asdict(config)) == config
    assert parse_field("loco", "cross", "global") == "global"


@pytest.mark.parametrize("fields", VARIANTS)
def test_forward_gives_points_of_the_padded_length(fields: dict[str, Any]) -> None:
    head = made(**fields)
    visual, audio, mask, visual_valid, audio_valid = random_input()
    output = head(FeatureBatch.of(visual, audio, mask, visual_valid, audio_valid))
    assert output.counts == (24, 12, 6)
    own = 1 if fields.get("regression") == "class_agnostic" else 3
    assert output.logits_BPK.shape == (4, 42, 3)
    assert output.offsets_BPC2.shape == (4, 42, own, 2)
    assert bool(torch.isfinite(output.logits_BPK).all())
    assert float(output.offsets_BPC2.detach().min()) >= 0
    padded = torch.nn.functional.pad(mask, (0, 3))
    assert torch.equal(output.mask_BP, torch.cat([padded[:, :: 2**level] for level in range(3)], dim=1))


@pytest.mark.parametrize("fields", VARIANTS)
def test_padding_and_the_order_of_items_change_nothing(fields: dict[str, Any]) -> None:
    head = made(**fields)
    given = random_input()
    with torch.no_grad():
        wanted = head(FeatureBatch.of(*given))
        longer = [
            torch.cat([x, x.new_full((4, 40, *x.shape[2:]), float("nan") if x.is_floating_point() else 0)], dim=1)
            for x in given
        ]
        padded = head(FeatureBatch.of(*longer))
        turned = head(FeatureBatch.of(*[x[[3, 1, 0, 2]] for x in given]))
        alone = head(FeatureBatch.of(*[x[2:3, :9] for x in given]))
    for name in ("logits_BPK", "offsets_BPC2"):
        parts, more = flat(getattr(wanted, name), wanted.counts), flat(getattr(padded, name), padded.counts)
        masks = flat(wanted.mask_BP, wanted.counts)
        for one, other, here in zip(parts, more, masks, strict=True):
            torch.testing.assert_close(other[:, : one.shape[1]][here], one[here], rtol=1e-5, atol=2e-6)
        torch.testing.assert_close(getattr(turned, name), getattr(wanted, name)[[3, 1, 0, 2]], rtol=1e-5, atol=2e-6)
        real = flat(alone.mask_BP, alone.counts)
        for one, other, of_level in zip(flat(getattr(alone, name), alone.counts), parts, real, strict=True):
            torch.testing.assert_close(one[of_level], other[2:3, : one.shape[1]][of_level], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("count", [1, 2, 5, 32, 33])
def test_any_length_works(count: int) -> None:
    head = made()
    visual, audio = torch.randn(1, count, 12), torch.randn(1, count, 10)
    mask = torch.ones(1, count, dtype=torch.bool)
    output = head(FeatureBatch.of(visual, audio, mask))
    assert output.counts[0] == -(-count // 4) * 4
    loss, number = head.loss(
        FeatureBatch.of(visual, audio, mask),
        dataclasses.replace(target_of(mask), events_BE2=torch.zeros(1, 1, 2), event_labels_BE=torch.full((1, 1), -1)),
    )
    assert math.isfinite(loss.sum().item() / number.sum().item())


@pytest.mark.parametrize("fields", VARIANTS)
def test_every_parameter_learns_and_missing_features_spread_no_nan(fields: dict[str, Any]) -> None:
    head = made(**fields).train()
    visual, audio, mask, visual_valid, audio_valid = random_input()
    sums, counts = head.loss(FeatureBatch.of(visual, audio, mask, visual_valid, audio_valid), target_of(mask))
    torch.autograd.backward(sums.sum() / counts.sum())
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        # A coarse level without a positive point teaches its scale nothing; softmax is blind to a key's bias.
        if "scale_L" not in name and not name.endswith("key.bias"):
            assert bool(parameter.grad.any()), name


def test_loss_adds_weighted_lcc_in_training_only() -> None:
    head, without = made(drop_path=0.0), made(drop_path=0.0, lcc="off")
    without.load_state_dict({k: v for k, v in head.state_dict().items() if ".lcc." not in k})
    given = random_input()
    mask, target = given[2], target_of(given[2])
    totals = []
    for one in (head.train(), without.train()):
        sums, counts = one.loss(FeatureBatch.of(given[0], given[1], mask, *given[3:]), target)
        totals.append((sums.sum() / counts.sum()).item())
    streams = head.trunk.encoded(FeatureBatch.of(given[0], given[1], mask, *given[3:]))
    assert head.trunk.lcc is not None
    lcc = head.trunk.lcc(streams["visual"], streams["audio"], given[3] & given[4]).item()
    assert totals[0] - totals[1] == pytest.approx(0.1 * lcc, rel=1e-3)
    assert without(FeatureBatch.of(*given)).auxiliary is None
    assert head.eval()(FeatureBatch.of(*given)).auxiliary is None


def test_lcc_takes_only_segments_with_both_modalities() -> None:
    head = made(drop_path=0.0).train()
    visual, audio, mask, visual_valid, _ = random_input()
    nothing = torch.zeros_like(mask)
    found = head(FeatureBatch.of(visual, audio, mask, visual_valid, nothing)).auxiliary
    assert found is not None
    assert found.item() == 0


def test_standardised_features_are_those_of_the_training_split() -> None:
    """A head that standardises sees what another sees of features standardised by hand; gaps stay zeros."""
    head, plain = made(standardise=True), made()
    plain.load_state_dict(head.state_dict())
    visual, audio, mask, visual_valid, audio_valid = random_input()
    visual, audio = 50 * visual + 7, 0.01 * audio - 3
    visual_rows = Modal(values=visual.numpy(), valid=visual_valid.numpy())
    audio_rows = Modal(values=audio.numpy(), valid=audio_valid.numpy())
    head.fit_statistics(visual_rows, audio_rows)
    by_hand_visual, by_hand_audio = (
        (x - x[valid].mean(dim=0)) / x[valid].std(dim=0, unbiased=False)
        for x, valid in ((visual, visual_valid), (audio, audio_valid))
    )
    by_hand = FeatureBatch.of(by_hand_visual, by_hand_audio, mask, visual_valid, audio_valid)
    wanted = plain(by_hand)
    found = head(FeatureBatch.of(visual, audio, mask, visual_valid, audio_valid))
    torch.testing.assert_close(found.logits_BPK, wanted.logits_BPK, rtol=1e-3, atol=1e-4)
    plain.fit_statistics(visual_rows, audio_rows)  # wants none
    assert torch.equal(plain(by_hand).logits_BPK, wanted.logits_BPK)


def test_sinusoid_is_added_after_the_convolutions() -> None:
    fields: dict[str, Any] = {"unimodal_layers": 0, "lcc": "off"}
    head, plain = made(sinusoid=True, **fields), made(**fields)
    plain.load_state_dict(head.state_dict())
    given = random_input()
    with_places, without = head.trunk.encoded(FeatureBatch.of(*given)), plain.trunk.encoded(FeatureBatch.of(*given))
    places = sinusoid(21, 16) * given[2][..., None]
    for name in ("visual", "audio"):
        torch.testing.assert_close(with_places[name] - without[name], places, rtol=0, atol=1e-5)


def test_lccs_numbers_are_told() -> None:
    assert made(lcc_sigma=2.0).scalars() == pytest.approx({"lcc_sigma": 1.0, "lcc_tau": 0.1})  # as `made` sets them
    assert made(lcc="off").scalars() == {}
    assert made(modality="audio").scalars() == {}


def test_cdp_before_training_equals_fixed() -> None:
    """The whole head, to the bit."""
    torch.manual_seed(0)
    fields: dict[str, Any] = {"visual_width": 12, "audio_width": 10, "num_classes": 3, "modality": "both"} | SMALL
    cdp = Loco(Loco.Config(**fields)).eval()
    fixed = Loco(Loco.Config(**fields, cross="fixed")).eval()
    fixed.load_state_dict({k: v for k, v in cdp.state_dict().items() if ".adaptation." not in k})
    given = FeatureBatch.of(*random_input())
    assert torch.equal(cdp(given).logits_BPK, fixed(given).logits_BPK)
    assert torch.equal(cdp(given).offsets_BPC2, fixed(given).offsets_BPC2)


def test_modality_that_is_not_looked_at_changes_nothing() -> None:
    visual, audio, mask, visual_valid, audio_valid = random_input()
    head = made(modality="audio")
    wanted = head(FeatureBatch.of(visual, audio, mask, visual_valid, audio_valid))
    other = head(FeatureBatch.of(None, audio, mask, None, audio_valid))
    assert torch.equal(other.logits_BPK, wanted.logits_BPK)
    with pytest.raises(ValueError, match="needs audio features"):
        head(FeatureBatch.of(visual, None, mask))


def test_both_streams_see_each_other_but_only_nearby() -> None:
    """A change of sound far off does not reach the picture's half at the finest level, one nearby does."""
    head = made(levels=1, unimodal_layers=0, decoder_layers=0, cross="fixed")
    visual, audio = torch.randn(1, 64, 12), torch.randn(1, 64, 10)
    mask = torch.ones(1, 64, dtype=torch.bool)
    near, far = audio.clone(), audio.clone()
    near[0, 30] += 1
    far[0, 50] += 1
    with torch.no_grad():
        wanted, one, other = (
            head.trunk(FeatureBatch.of(visual, x, mask))[0][0].x_BTF[0, 30] for x in (audio, near, far)
        )
    assert not torch.allclose(one, wanted)
    assert torch.equal(other, wanted)


def test_restored_head_gives_the_same_numbers() -> None:
    head = made()
    again = restore("loco", head.config, head.state_dict())
    given = random_input()
    assert torch.equal(again(FeatureBatch.of(*given)).logits_BPK, head(FeatureBatch.of(*given)).logits_BPK)


def test_cost_is_linear_in_time() -> None:
    """No term grows with the square, once a sequence is longer than the unimodal blocks' window."""
    head = made(attention_window=16)

    def flops(count: int) -> int:
        plain = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
        visual, audio = torch.randn(1, count, 12), torch.randn(1, count, 10)
        with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
            head(FeatureBatch.of(visual, audio, torch.ones(1, count, dtype=torch.bool)))
        return int(counter.get_total_flops())

    # Exactly 2 but for the zeros between the levels in the decoder.
    assert flops(4096) / flops(2048) == pytest.approx(2, abs=2e-3)


def test_largest_tensor_of_a_long_video_is_linear_in_time() -> None:
    """Every tensor that the forward pass makes for 4096 segments is smaller than half a matrix of 4096 x 4096."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own base class
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in torch.utils._pytree.tree_leaves(out):
                if isinstance(tensor, Tensor) and tensor._base is None:
                    largest = max(largest, tensor.numel())
            return out

    head = made()
    found = []
    for count in (2048, 4096):
        visual, audio = torch.randn(1, count, 12), torch.randn(1, count, 10)
        largest = 0
        with torch.inference_mode(), Watch():  # type: ignore[no-untyped-call]  # as above
            head(FeatureBatch.of(visual, audio, torch.ones(1, count, dtype=torch.bool)))
        found.append(largest)
    assert found[1] <= 2 * found[0]
    assert found[1] < 4096 * 4096 / 2


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"width": 15, "num_heads": 3}, "width must be a multiple of 2"),
        ({"num_heads": 3}, "width must be a multiple of num_heads"),
        ({"levels": 0}, "levels must be at least 1"),
        ({"levels": 17}, "levels"),
        ({"unimodal_layers": -1}, "unimodal_layers must be at least 0"),
        ({"decoder_layers": 257}, "decoder_layers must be at most 256"),
        ({"attention_window": -1}, "attention_window must be at least 1"),
        ({"dropout": 1.0}, "dropout"),
        ({"lcc_weight": -0.1}, "lcc_weight"),
        ({"lcc_sigma": 0.2}, "lcc_sigma"),
        ({"tau": float("nan")}, "tau"),
        ({"center_radius": 0.0}, "center_radius"),
        ({"cross": "nearby"}, "cross must be one of"),
        ({"lcc": "none"}, "lcc must be one of"),
        ({"modality": "visual", "visual_width": 0}, "nothing to look at"),
    ],
)
def test_config_out_of_range_is_an_error(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        made(**fields)


def planted(count: int, seed: int) -> tuple[Tensor, Tensor, Target]:
    """Events are where audio and frames say the same class; either alone says more."""
    rng = torch.Generator().manual_seed(seed)
    visual, audio = 0.3 * torch.randn(count, 48, 12, generator=rng), 0.3 * torch.randn(count, 48, 10, generator=rng)
    events, labels = torch.zeros(count, 2, 2), torch.full((count, 2), -1)
    for b in range(count):
        for e, begin in enumerate((2, 26)):
            start = begin + int(torch.randint(6, (1,), generator=rng))
            end = start + 4 + int(torch.randint(10, (1,), generator=rng))
            k = int(torch.randint(3, (1,), generator=rng))
            visual[b, start:end, k] += 2
            audio[b, start:end, k] += 2
            events[b, e], labels[b, e] = torch.tensor([start - 0.5, end - 0.5]), k
    return (
        visual,
        audio,
        Target(events_BE2=events, event_labels_BE=labels),
    )


@pytest.mark.slow
def test_training_finds_planted_events() -> None:
    head: Any = build("loco", Loco.Config(visual_width=12, audio_width=10, num_classes=3, modality="both", **SMALL))
    stepper = torch.optim.AdamW(head.parameters(), lr=5e-3)
    head.train()
    torch.manual_seed(0)
    for step in range(80):
        visual, audio, target = planted(8, seed=step)
        sums, counts = head.loss(FeatureBatch.of(visual, audio, torch.ones(visual.shape[:2], dtype=torch.bool)), target)
        stepper.zero_grad()
        (sums.sum() / counts.sum()).backward()
        stepper.step()
    head.eval()
    visual, audio, target = planted(16, seed=1000)
    assert target.events_BE2 is not None
    assert target.event_labels_BE is not None
    with torch.inference_mode():
        output = head(FeatureBatch.of(visual, audio, torch.ones(visual.shape[:2], dtype=torch.bool)))
    found = [suppress(one, Suppression()) for one in decode(output, points(48, 3), Decoding())]
    right = 0
    for b, one in enumerate(found):
        for (start, end), label in zip(target.events_BE2[b].tolist(), target.event_labels_BE[b].tolist(), strict=True):
            # The two best of an item should be its two events.
            for (low, high), k in zip(one.segments_N2[:2].tolist(), one.labels_N[:2].tolist(), strict=True):
                shared = min(high, end) - max(low, start)
                right += k == label and shared / (max(high, end) - min(low, start)) > 0.6
    assert right >= 26  # of 32
