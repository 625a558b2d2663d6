"""UnAV's whole model: its published size, its wiring against a slow composition of its blocks, and its config."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from heads.blocks.temporal_conv import sinusoid
from heads.features import FeatureBatch
from heads.models.unav import head as unav
from heads.models.unav.head import Unav
from heads.spec import HeadInput

PUBLISHED = unav.Head.Config.for_features(
    HeadInput(visual_shape=(2048,), audio_shape=(128,), num_classes=100, modality="both")
)
SMALL = replace(PUBLISHED, visual_width=6, audio_width=3, num_classes=4, width=8, hidden=8, class_width=4)


def count(config: Unav.Config) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Unav(config).parameters())


def test_unav_has_the_published_number_of_parameters() -> None:
    """Measured on the published code: 60.7 million without the dependency block, 139.5 with it."""
    assert count(replace(PUBLISHED, dependency=False)) == 60_696_882
    assert count(PUBLISHED) == 139_544_114
    one_peace = unav.Head.Config.for_features(
        HeadInput(visual_shape=(1536,), audio_shape=(1536,), num_classes=100, modality="both")
    )
    assert round(count(replace(one_peace, dependency=False)) / 1e6, 1) == 62.1


def seeded(config: Unav.Config) -> Unav:
    torch.manual_seed(0)
    head = Unav(config).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return head


def inputs(segments: int = 37) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(segments)
    mask_BT = torch.arange(segments) < torch.tensor([[segments], [segments // 2]])
    visual = torch.randn(2, segments, 6, generator=generator)
    return visual, torch.randn(2, segments, 3, generator=generator), mask_BT


@pytest.mark.parametrize("dependency", [False, True])
def test_unav_equals_slow_composition(dependency: bool) -> None:
    """One item at a time, each level written out as the paper draws it."""
    head = seeded(replace(SMALL, dependency=dependency, levels=3))
    visual, audio, mask_BT = inputs()
    with torch.no_grad():
        output = head(FeatureBatch.of(visual, audio, mask_BT))
        assert output.counts == (40, 20, 10)
        for b, length in enumerate(mask_BT.sum(dim=1).tolist()):
            padded = -(-length // 4) * 4
            real = torch.arange(padded)[None] < length
            streams: dict[str, Tensor] = {}
            for name, values in (("visual", visual), ("audio", audio)):
                x = torch.zeros(1, padded, values.shape[2])
                x[:, :length] = values[b, :length]
                stream: Any = getattr(head, name)
                x = stream.stack(x, real)
                x[:, :length] += sinusoid(length, 8)
                for block in stream.own:
                    x = block(x, real, x)
                streams[name] = x
            v, a, levels, masks = streams["visual"], streams["audio"], [], []
            cross_v: Any = head.visual.cross
            cross_a: Any = head.audio.cross
            mask = real
            for level in range(3):
                v, a = cross_v[level](v, mask, a), cross_a[level](a, mask, v)
                mask = real[:, :: 2**level]
                levels.append(torch.cat((v, a), dim=-1))
                masks.append(mask)
            if head.dependency is not None:
                levels = head.dependency(levels, masks)
            alone = head.decoder(levels, masks)
            for level in range(3):
                points = -(-length // 2**level)
                here, there = sum(output.counts[:level]), sum(alone.counts[:level])
                for got, want in ((output.logits_BPK, alone.logits_BPK), (output.offsets_BPC2, alone.offsets_BPC2)):
                    torch.testing.assert_close(
                        got[b, here : here + points], want[0, there : there + points], rtol=1e-4, atol=1e-4
                    )


def test_unav_both_modalities_reach_every_logit() -> None:
    head = seeded(replace(SMALL, levels=3))
    visual, audio, mask_BT = inputs(16)
    visual.requires_grad_()
    audio.requires_grad_()
    output = head(FeatureBatch.of(visual, audio, mask_BT))
    for at in (0, 20, 27):  # a point of each level
        seen, heard = torch.autograd.grad(output.logits_BPK[0, at].sum(), (visual, audio), retain_graph=True)
        assert seen[0].abs().sum() > 0
        assert heard[0].abs().sum() > 0
        assert not seen[1].any()  # other items are not looked at


def test_unav_class_agnostic_has_one_start_and_end() -> None:
    head = seeded(replace(SMALL, regression="class_agnostic", levels=2))
    assert head(FeatureBatch.of(*inputs(8))).offsets_BPC2.shape == (2, 12, 1, 2)


def test_unav_bfloat16_stays_near_float32() -> None:
    head = Unav(replace(SMALL, levels=3)).eval()
    one = head(FeatureBatch.of(*inputs(16)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        other = head(FeatureBatch.of(*inputs(16)))
    # bfloat16 has 8 bits.
    torch.testing.assert_close(other.logits_BPK.float(), one.logits_BPK, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"modality": "audio"}, "needs both"),
        ({"visual_width": 0}, "needs both, got modality both and widths 0"),
        ({"width": 30}, "width must be a multiple of num_heads"),
        ({"levels": 0}, "levels must be at least 1"),
        ({"levels": 13}, "levels must be at most 12"),
        ({"class_width": 0}, "class_width must be at least 1"),
        ({"self_blocks": -1}, "self_blocks"),
        ({"drop_path": 1.0}, "drop_path must be less than 1"),
        ({"center_radius": float("nan")}, "center_radius must be a finite number"),
        ({"center_radius": -1.0}, "center_radius must be more than 0"),
        ({"regression": "neither"}, "regression must be one of"),
        ({"iou_loss": "ciou"}, "iou_loss must be one of"),
    ],
)
def test_unav_bad_config_is_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PUBLISHED, **bad)


def test_unav_features_of_another_width_are_refused() -> None:
    head = seeded(replace(SMALL, levels=2))
    visual, audio, mask_BT = inputs(8)
    with pytest.raises(ValueError, match="visual features"):
        head(FeatureBatch.of(audio, audio, mask_BT))
    with pytest.raises(ValueError, match="audio features"):
        head(FeatureBatch.of(visual, None, mask_BT))
