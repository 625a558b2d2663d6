"""AVEL against the published net's outputs and torch's own soft margin; what all heads share is in test_baselines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heads import registry as model
from heads.blocks.losses import binary_cross_entropy, cross_entropy
from heads.features import FeatureBatch, Target
from heads.models.avel import SPEC, Avel, soft_margin
from heads.spec import HeadInput

SMALL: dict[str, Any] = {"visual_width": 6, "audio_width": 5, "num_classes": 4, "modality": "both", "hidden": 4}
MASK = torch.arange(10) < torch.tensor([10, 7, 0])[:, None]
# The golden's names and ours.
NAMES = {
    "affine_audio": "attend.audio",
    "affine_video": "attend.visual",
    "affine_v": "attend.content",
    "affine_g": "attend.guide",
    "affine_h": "attend.score",
    "lstm_audio": "audio_lstm.lstm",
    "lstm_video": "visual_lstm.lstm",
    "L1": "inner",
    "L2": "classify",
}


def built(**options: Any) -> Avel:
    head = model.build("avel", Avel.Config(**(SMALL | options)), seed=1)
    assert isinstance(head, Avel)
    return head.eval()


def features() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(3, 10, 6), torch.randn(3, 10, 5), torch.randint(0, 4, (3, 10))


def test_forward_published_weights_equal_golden(shared: Path) -> None:
    with np.load(shared / "parity" / "heads" / "agva" / "agva_psp.npz", allow_pickle=False) as arrays:
        golden = {k.removeprefix("att_net/"): torch.from_numpy(arrays[k]) for k in arrays if k.startswith("att_net/")}
    config = Avel.Config.for_features(
        HeadInput(visual_shape=(7, 7, 512), audio_shape=(128,), num_classes=29, modality="both")
    )
    head = Avel(Avel.Config(**(vars(config) | {"hidden": 8, "agva_hidden": 8}))).eval()
    state = {}
    for key, value in golden.items():
        if key.startswith("w/"):
            layer, kind = key.removeprefix("w/").split(".")
            state[f"{NAMES[layer]}.{kind}"] = value
    head.load_state_dict(state)
    visual, audio = golden["video"].float(), golden["audio"]
    got = head(FeatureBatch.of(visual, audio, torch.ones(2, 10, dtype=torch.bool))).softmax(dim=-1)
    torch.testing.assert_close(got, golden["out"], rtol=1e-4, atol=5e-5)
    padded = torch.cat([visual, torch.full((2, 3, 7, 7, 512), torch.nan)], dim=1)
    heard = torch.cat([audio, torch.full((2, 3, 128), torch.nan)], dim=1)
    got = head(FeatureBatch.of(padded, heard, (torch.arange(13) < 10).expand(2, 13)))[:, :10].softmax(dim=-1)
    torch.testing.assert_close(got, golden["out"], rtol=1e-4, atol=5e-5)


def test_soft_margin_equals_torch() -> None:
    _, _, classes = features()
    scores = torch.randn(3, 10, 4)
    sums, counts = soft_margin(scores, classes, torch.ones(3, 10, dtype=torch.bool))
    wanted = nn.MultiLabelSoftMarginLoss()(scores, nn.functional.one_hot(classes, 4).float())
    torch.testing.assert_close(sums.sum() / counts.sum(), wanted)


def test_loss_default_is_the_soft_margin_of_probabilities_and_cross_entropy_an_option() -> None:
    visual, audio, classes = features()
    target = Target(classes_BT=classes, background=3)
    logits = built()(FeatureBatch.of(visual, audio, MASK))
    wanted = soft_margin(logits.softmax(dim=-1), classes, MASK)
    for got, want in zip(built().loss(FeatureBatch.of(visual, audio, MASK), target), wanted, strict=True):
        torch.testing.assert_close(got, want)
    assert wanted[1].tolist() == [10, 7, 0]
    plain, _ = built(loss="cross-entropy").loss(FeatureBatch.of(visual, audio, MASK), target)
    torch.testing.assert_close(plain, cross_entropy(logits, classes, MASK)[0])


@pytest.mark.parametrize("loss", ["soft-margin", "cross-entropy"])
def test_loss_several_labels_is_sigmoid_cross_entropy(loss: str) -> None:
    visual, audio, _ = features()
    labels = torch.rand(3, 10, 4) < 0.3
    head = built(loss=loss)
    got, _ = head.loss(FeatureBatch.of(visual, audio, MASK), Target(labels_BTK=labels))
    torch.testing.assert_close(got, binary_cross_entropy(head(FeatureBatch.of(visual, audio, MASK)), labels, MASK)[0])


def test_configure_shapes_of_a_store_give_the_published_net() -> None:
    config = Avel.Config.for_features(
        HeadInput(visual_shape=(7, 7, 512), audio_shape=(128,), num_classes=29, modality="both")
    )
    assert (config.places, config.hidden, config.agva, config.loss) == (49, 128, "published", "soft-margin")
    assert not config.standardise
    with torch.device("meta"):
        parameters = sum(p.numel() for p in Avel(config).parameters())
    attention, lstms = 128 * 512 + 512 + 512 * 512 + 512 + 2 * 512 * 49 + 49, 8 * 128 * (128 + 512 + 2 * (128 + 2))
    assert parameters == attention + lstms + 512 * 64 + 64 + 64 * 29 + 29
    assert (SPEC.training["epochs"], SPEC.training["batch_size"], SPEC.training["learning_rate"]) == (300, 64, 1e-3)


def test_init_linear_maps_begin_as_xavier_says() -> None:
    head = built(hidden=32, places=49)
    assert head.attend is not None
    for linear in (head.attend.visual, head.attend.guide, head.inner):
        bound = (6 / sum(linear.weight.shape)) ** 0.5
        assert 0.9 * bound < linear.weight.abs().max().item() <= bound


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"loss": "hinge"}, "loss must be one of soft-margin, cross-entropy, got 'hinge'"),
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"num_classes": 2**25}, "num_classes must be at most 16777216"),
        ({"places": 0}, "places must be at least 1"),
        ({"modality": "smell"}, "modality must be one of both, audio, visual, got 'smell'"),
        ({"audio_width": 0}, "needs both, got modality both and widths 6"),
    ],
)
def test_config_wrong_field_raises(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Avel.Config(**(SMALL | wrong))


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_one_modality_is_its_bilstm_alone(modality: Literal["audio", "visual"]) -> None:
    config = Avel.Config.for_features(
        HeadInput(visual_shape=(4, 6), audio_shape=(5,), num_classes=3, modality=modality)
    )
    head = Avel(replace(config, hidden=4)).eval()
    visual, audio, mask = torch.randn(2, 7, 4, 6), torch.randn(2, 7, 5), torch.arange(7) < torch.tensor([[7], [4]])
    lost = mask & (torch.arange(7) != 2)
    used = {"audio": audio, "visual": visual}[modality]
    used[~lost] = float("nan")
    given = {"visual": None, "audio": None} | {modality: used}
    logits = head(FeatureBatch.of(given["visual"], given["audio"], mask, lost, lost))
    lstm = head.audio_lstm if modality == "audio" else head.visual_lstm
    clean = torch.where(lost[..., None], audio if modality == "audio" else visual.mean(dim=2), 0.0)
    wanted = head.classify(torch.relu(head.inner(torch.relu(lstm(clean, mask)))))
    torch.testing.assert_close(logits[mask], wanted[mask])
    assert not [key for key in head.state_dict() if key.startswith({"audio": "visual", "visual": "audio"}[modality])]
    with pytest.raises(ValueError, match=f"{modality} features of .* got none"):
        head(FeatureBatch.of(visual if modality == "audio" else None, audio if modality == "visual" else None, mask))
    with pytest.raises(ValueError, match=f"nothing to look at: modality {modality}"):
        Avel.Config.for_features(HeadInput(visual_shape=None, audio_shape=None, num_classes=3, modality=modality))
