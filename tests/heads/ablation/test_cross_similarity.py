"""Cross-similarity against a slow loop, and what LCC does to it."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from catalog.dataset import Item
from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.store.modal import Modal
from heads.ablation.cross_similarity import cross_similarity, mean_of_std
from heads.data.split import Split
from heads.features import FeatureBatch
from heads.models.linear import LinearProbe
from heads.models.loco.head import Loco

LENGTHS = (9, 5, 0, 4)


def planted(*, audio_width: int = 6, seed: int = 0) -> Split:
    """Four items; the second lacks a sound's feature, the third has none at all, the fourth no sound."""
    rng = np.random.default_rng(seed)
    count = sum(LENGTHS)
    rows = np.full((4, max(LENGTHS)), -1, dtype=np.int64)
    valid = np.ones(count, dtype=bool)
    first = 0
    for n, length in enumerate(LENGTHS):
        rows[n, :length] = np.arange(first, first + length)
        first += length
    valid[11] = False
    valid[14:] = False
    visual, audio = (rng.standard_normal((count, width)).astype(np.float32) for width in (6, audio_width))
    audio[~valid] = np.nan
    return Split(
        name="test",
        items=tuple(Item(id=f"v{n}", video_id=f"v{n}", split="test", events=()) for n in range(4)),
        recipe=Recipe(
            name="told",
            encoder="descriptors",
            grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1), tail="drop"),
            video=VideoSampling(frames_per_segment=1, height_px=1, width_px=1),
            audio=AudioSampling(rate_hz=16000),
        ),
        visual=Modal(values=visual, valid=np.ones(count, dtype=bool)),
        audio=Modal(values=audio, valid=valid),
        rows_NT=rows,
        counted_NT=rows >= 0,
        absent={"v2": "no stream"},
    )


def head_of(**fields: Any) -> Loco:
    torch.manual_seed(0)
    given: dict[str, Any] = {"visual_width": 6, "audio_width": 6, "num_classes": 3, "modality": "both", "width": 8}
    return Loco(Loco.Config(**(given | {"num_heads": 2, "levels": 2, "window": 4} | fields)))


def slow(visual: NDArray[np.float32], audio: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.array(
        [[float(np.dot(v, a)) / math.sqrt(float(v @ v) * float(a @ a)) for a in audio] for v in visual],
        dtype=np.float64,
    )


def test_raw_similarity_equals_slow_loop_over_what_is_there() -> None:
    split = planted()
    assert split.visual is not None
    assert split.audio is not None
    found = cross_similarity(None, split, 1, stage="raw")
    wanted = slow(split.visual.values[9:14], split.audio.values[[9, 10, 12, 13]])
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert found.shape == (5, 4)


def test_mean_of_std_is_that_of_the_matrices() -> None:
    split = planted()
    figure = mean_of_std(None, split, stage="raw")
    matrices = [cross_similarity(None, split, n, stage="raw") for n in (0, 1)]
    assert figure.std_by_item == pytest.approx({f"v{n}": float(m.std()) for n, m in enumerate(matrices)}, rel=1e-5)
    assert figure.mean == pytest.approx(np.mean([m.std() for m in matrices]), rel=1e-5)
    assert mean_of_std(None, split, stage="raw", items=[1]).mean == pytest.approx(matrices[1].std(), rel=1e-5)


@pytest.mark.parametrize("stage", ["encoded", "common"])
def test_similarity_of_a_head_is_that_of_its_encoders(stage: Any) -> None:
    head, split = head_of().train(), planted(seed=3)
    assert split.visual is not None
    assert split.audio is not None
    visual, audio = (torch.from_numpy(rows.values[None, :9]) for rows in (split.visual, split.audio))
    found = cross_similarity(head, split, 0, stage=stage)
    assert head.trunk.training  # put back
    head.eval()
    with torch.no_grad():
        streams = head.trunk.encoded(FeatureBatch.of(visual, audio, torch.ones(1, 9, dtype=torch.bool)))
        pair = (streams["visual"], streams["audio"])
        if stage == "common":
            assert head.trunk.lcc is not None
            pair = head.trunk.lcc.project(*pair)
    np.testing.assert_allclose(found, slow(*(x[0].numpy() for x in pair)), atol=1e-5)
    figure = mean_of_std(head, split, stage=stage)
    assert figure.std_by_item["v0"] == pytest.approx(float(found.std()), rel=1e-4)


def test_equal_features_have_no_spread_and_alternating_ones_have_all() -> None:
    split = planted()
    assert split.visual is not None
    assert split.audio is not None
    same = np.ones_like(split.visual.values)
    signs = np.where(np.arange(len(same)) % 2, -1.0, 1.0)[:, None].astype(np.float32)
    for values, wanted in ((same, 0.0), (same * signs, 1.0)):
        rows = [dataclasses.replace(one, values=values) for one in (split.visual, split.audio)]
        found = mean_of_std(None, dataclasses.replace(split, visual=rows[0], audio=rows[1]), stage="raw", items=[0])
        assert found.mean == pytest.approx(wanted, abs=0.02)  # nine segments: one sign more than the other


def test_training_with_lcc_raises_the_mean_of_std() -> None:
    """Audio and frames share what changes from segment to segment, under a much larger part that does not."""
    rng = np.random.default_rng(0)
    split = planted()
    assert split.visual is not None
    assert split.audio is not None
    hidden, still = rng.standard_normal((18, 3)), 3 * rng.standard_normal((1, 6))
    rows = [
        dataclasses.replace(one, values=(hidden @ rng.standard_normal((3, 6)) + still).astype(np.float32))
        for one in (split.visual, split.audio)
    ]
    split = dataclasses.replace(split, visual=rows[0], audio=rows[1])
    head = head_of(unimodal_layers=1, attention_window=4)
    before = mean_of_std(head, split, stage="common", items=[0, 1]).mean
    visual, audio = (torch.from_numpy(one.values[None]) for one in rows)
    stepper = torch.optim.Adam(head.parameters(), lr=5e-3)
    head.train()
    for _ in range(60):
        loss = head(FeatureBatch.of(visual, audio, torch.ones(1, 18, dtype=torch.bool))).auxiliary
        assert loss is not None
        stepper.zero_grad()
        torch.autograd.backward(loss)
        stepper.step()
    assert mean_of_std(head, split, stage="common", items=[0, 1]).mean > 1.2 * before


@pytest.mark.parametrize(
    ("head", "stage", "item", "told"),
    [
        (None, "encoded", 0, "needs a head with encoders"),
        (LinearProbe, "encoded", 0, "needs a head with encoders"),
        ({"modality": "audio"}, "encoded", 0, "with both modalities"),
        ({"lcc": "off"}, "common", 0, "made without"),
        ({}, "coded", 0, "stage must be"),
        (None, "raw", 2, "v2: has no features"),
        (None, "raw", 3, "v3: similarity needs features of both"),
    ],
)
def test_what_there_is_not_is_an_error(head: Any, stage: Any, item: int, told: str) -> None:
    made = head_of(**head) if isinstance(head, dict) else head
    with pytest.raises(ValueError, match=told):
        cross_similarity(made, planted(), item, stage=stage)


def test_raw_features_of_two_widths_and_splits_without_pairs_are_errors() -> None:
    with pytest.raises(ValueError, match="one width, got 6 and 5"):
        mean_of_std(None, planted(audio_width=5), stage="raw")
    with pytest.raises(ValueError, match="no item of test"):
        mean_of_std(None, planted(), stage="raw", items=[3])
