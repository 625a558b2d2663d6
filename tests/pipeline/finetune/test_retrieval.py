"""Recall at k by hand and against a slow count."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.finetune.retrieval import chance, recall_at


def test_recall_by_hand() -> None:
    image = np.eye(4)[[0, 1, 2, 3]]
    audio = np.array([[9.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 2]])
    # image 0: sound 1 (cosine 1) beats sound 0; image 1 likes sound 3, then 0, and its own not at all (ties with 2).
    found = recall_at(image, audio, ranks=(1, 2))
    assert found["image_to_audio_r1"] == 0.5
    assert found["image_to_audio_r2"] == 0.75
    assert found["audio_to_image_r1"] == 0.75
    assert chance(4, (1, 10)) == {"r1": 0.25, "r10": 1.0}


def test_recall_equal_features_are_no_retrieval() -> None:
    assert recall_at(np.ones((10, 3)), np.ones((10, 3)))["image_to_audio_r5"] == 0


def test_recall_not_finite_raises() -> None:
    with pytest.raises(ValueError, match="finite"):
        recall_at(np.full((2, 2), np.nan), np.ones((2, 2)))


def test_recall_equals_a_slow_count() -> None:
    rng = np.random.default_rng(0)
    image, audio = rng.normal(size=(2, 12, 3))
    cosine = [[float(i @ a / np.sqrt((i @ i) * (a @ a))) for a in audio] for i in image]
    found = recall_at(image, audio, ranks=(1, 3, 50))
    for k in (1, 3, 50):
        hits = [sum(cosine[n][m] > cosine[n][n] for m in range(12)) < k for n in range(12)]
        assert found[f"image_to_audio_r{k}"] == sum(hits) / 12
        hits = [sum(cosine[m][n] > cosine[n][n] for m in range(12)) < k for n in range(12)]
        assert found[f"audio_to_image_r{k}"] == sum(hits) / 12
