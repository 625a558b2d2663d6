"""OV-AVEL's training-free rule against the goldens of the published script and a slow loop."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from heads.features import FeatureBatch
from heads.metrics.ovavebench import video_scores
from heads.models.ov_avel_free import OvAvelFree
from heads.registry import build, read_config, restore
from heads.spec import HeadInput


def made(width: int = 4, num_classes: int = 5, **fields: Any) -> OvAvelFree:
    given: dict[str, Any] = {"width": width, "num_classes": num_classes, "modality": "both"} | fields
    return OvAvelFree(OvAvelFree.Config(**given)).eval()


def random_input(seed: int, *, gaps: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Visual, audio, mask, validity of each, texts: in four dimensions the modalities agree often."""
    rng = torch.Generator().manual_seed(seed)
    texts = torch.randn(5, 4, generator=rng)
    base = torch.randn(40, 8, 4, generator=rng)
    visual, audio = (base + 0.7 * torch.randn(40, 8, 4, generator=rng) for _ in range(2))
    mask = torch.arange(8).expand(40, 8) < (torch.randint(3, 9, (40, 1), generator=rng) if gaps else 8)
    visual_valid, audio_valid = (mask & ((torch.rand(40, 8, generator=rng) < 0.8) if gaps else mask) for _ in range(2))
    return visual, audio, mask, visual_valid, audio_valid, texts


@pytest.mark.parametrize(("strategy", "other"), [("v01", True), ("v0", False)])
def test_decide_published_strategies_equal_golden(shared: Path, strategy: str, other: bool) -> None:
    with np.load(shared / "parity" / "heads" / "ovavel" / "ovavel.npz", allow_pickle=False) as arrays:
        golden: dict[str, NDArray[Any]] = {k.removeprefix("tf/"): arrays[k] for k in arrays if k.startswith("tf/")}
    head = made(24, 68, other=other, published=True)
    head.set_texts(torch.from_numpy(golden["text"]))
    visual, audio = torch.from_numpy(golden["visual"]), torch.from_numpy(golden["audio"])
    mask = torch.ones(audio.shape[:2], dtype=torch.bool)
    decision = head.decide(FeatureBatch.of(visual, audio, mask))
    np.testing.assert_array_equal(decision.event_BT.numpy(), golden[f"{strategy}/is_event"] > 0)
    np.testing.assert_array_equal(decision.class_B.numpy(), golden[f"{strategy}/event_onehot"].argmax(axis=1))

    predicted = head(FeatureBatch.of(visual, audio, mask)).argmax(dim=-1).numpy()
    true = np.where(golden["avc"] > 0, golden["category"][:, None], 67)
    scores = video_scores(predicted, true, background=67, flagged_NT=decision.event_BT.numpy())
    got = np.stack([scores.accuracy_N, scores.segment_f1_N, scores.event_f1_N], axis=1)
    np.testing.assert_allclose(got, golden[f"{strategy}/per_video_acc_seg_eve"], atol=1e-6)


def slow_decision(
    visual: Tensor, audio: Tensor, known: list[bool], texts: Tensor, *, other: bool, published: bool
) -> tuple[list[bool], int]:
    """One item, from the description."""
    last = len(texts) - 1

    def nearest(vector: Tensor) -> int:
        candidates = texts if other else texts[:-1]
        cosines = [float(vector @ text / vector.norm() / text.norm()) for text in candidates]
        return cosines.index(max(cosines))

    events: list[bool] = []
    category = last
    for t, is_known in enumerate(known):
        heard = nearest(audio[t]) if is_known else None
        agree = is_known and heard == nearest(visual[t]) and (published or heard != last)
        if agree and not any(events):
            assert heard is not None
            category = heard
        events.append(agree)
    return events, category


@pytest.mark.parametrize("other", [True, False])
@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("gaps", [True, False])
def test_forward_random_features_equal_slow_loop(other: bool, published: bool, gaps: bool) -> None:
    visual, audio, mask, visual_valid, audio_valid, texts = random_input(0, gaps=gaps)
    known = mask & visual_valid & audio_valid
    wanted = [
        slow_decision(visual[b], audio[b], known[b].tolist(), texts, other=other, published=published)
        for b in range(len(mask))
    ]
    assert {events.count(True) > 0 for events, _ in wanted} == {True, False} or not gaps
    visual[~visual_valid] = float("nan")
    audio[~audio_valid] = float("nan")
    head = made(other=other, published=published)
    head.set_texts(texts)
    decision = head.decide(FeatureBatch.of(visual, audio, mask, visual_valid, audio_valid))
    assert decision.event_BT.tolist() == [events for events, _ in wanted]
    assert decision.class_B.tolist() == [category for _, category in wanted]
    logits = head(FeatureBatch.of(visual, audio, mask, visual_valid, audio_valid))
    assert bool(torch.isfinite(logits).all())
    classes = [[category if event else 4 for event in events] for events, category in wanted]
    assert logits.argmax(dim=-1).tolist() == classes


def test_decide_agreement_on_other_is_an_event_as_published_only() -> None:
    texts = torch.eye(3)
    first_other = torch.tensor([[2, 0, 0], [1, 2, 0]])  # both items agree throughout; 2 is other
    vectors = texts[first_other]
    batch = FeatureBatch.of(vectors, vectors, torch.ones(2, 3, dtype=torch.bool))
    published, corrected = made(3, 3, published=True), made(3, 3)
    for head in (published, corrected):
        head.set_texts(texts)
    assert published(batch).argmax(dim=-1).tolist() == [[2, 2, 2], [1, 1, 1]]
    assert corrected(batch).argmax(dim=-1).tolist() == [[2, 0, 0], [1, 2, 1]]


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_forward_one_modality_is_its_nearest_text(modality: str) -> None:
    visual, audio, mask, _, _, texts = random_input(1, gaps=False)
    mask = mask.clone()
    mask[:, 5:] = False
    head = made(modality=modality)
    head.set_texts(texts)
    looked_at = audio if modality == "audio" else visual
    logits = head(
        FeatureBatch.of(None if modality == "audio" else visual, None if modality == "visual" else audio, mask)
    )
    wanted = torch.nn.functional.cosine_similarity(looked_at[:, :, None], texts, dim=-1).argmax(dim=-1)
    assert logits.argmax(dim=-1).tolist() == wanted.where(mask, 4).tolist()
    with pytest.raises(ValueError, match="needs both modalities"):
        head.decide(FeatureBatch.of(visual, audio, mask))


def test_forward_padding_and_order_of_items_change_nothing() -> None:
    visual, audio, mask, visual_valid, audio_valid, texts = random_input(2, gaps=True)
    head = made()
    head.set_texts(texts)
    whole = head(FeatureBatch.of(visual, audio, mask, visual_valid, audio_valid))
    garbage = torch.full((40, 3, 4), float("nan"))
    no = torch.zeros(40, 3, dtype=torch.bool)
    padded = head(
        FeatureBatch.of(
            torch.cat([visual, garbage], dim=1),
            torch.cat([audio, garbage], dim=1),
            *(torch.cat([m, no], dim=1) for m in (mask, visual_valid, audio_valid)),
        )
    )
    torch.testing.assert_close(padded[:, :8][mask], whole[mask], atol=1e-6, rtol=0)
    order = torch.randperm(40)
    moved = head(FeatureBatch.of(*(x[order] for x in (visual, audio, mask, visual_valid, audio_valid))))
    torch.testing.assert_close(moved, whole[order], atol=1e-6, rtol=0)


def test_forward_several_vectors_a_segment_are_averaged() -> None:
    visual, audio, mask, _, _, texts = random_input(3, gaps=False)
    head = made()
    head.set_texts(texts)
    several = visual[:, :, None] + torch.tensor([-1.0, 0.0, 1.0])[:, None]
    torch.testing.assert_close(
        head(FeatureBatch.of(several, audio[:, :, None], mask)),
        head(FeatureBatch.of(visual, audio, mask)),
        atol=1e-5,
        rtol=0,
    )


def test_restore_of_a_saved_head_gives_equal_logits() -> None:
    visual, audio, mask, _, _, texts = random_input(4, gaps=False)
    head = made()
    head.set_texts(texts)
    fields = dataclasses.asdict(head.config)
    again = restore("ov_avel_free", read_config("ov_avel_free", fields), head.state_dict())
    assert torch.equal(again(FeatureBatch.of(visual, audio, mask)), head(FeatureBatch.of(visual, audio, mask)))
    assert not list(head.parameters())


def test_forward_without_texts_or_a_modality_raises() -> None:
    head, mask = made(), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="call set_texts"):
        head(FeatureBatch.of(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4), mask))
    head.set_texts(torch.ones(5, 4))
    with pytest.raises(ValueError, match="needs audio features"):
        head(FeatureBatch.of(torch.zeros(1, 2, 4), None, mask))


@pytest.mark.parametrize("wrong", [{"modality": "smell"}, {"width": 0}, {"num_classes": 1}, {"width": 2**25}])
def test_config_wrong_field_raises(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        made(**wrong)


def test_configure_shapes_of_a_store_give_the_shared_width() -> None:
    config = OvAvelFree.Config.for_features(
        HeadInput(visual_shape=(16,), audio_shape=(16,), num_classes=68, modality="both")
    )
    assert config == OvAvelFree.Config(width=16, num_classes=68, modality="both")
    assert isinstance(build("ov_avel_free", config), OvAvelFree)
