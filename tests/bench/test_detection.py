"""The bench of detection: sizes are those it tells of, and its figures keep their limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import detection, measurement


@pytest.mark.slow
def test_detection_is_found_and_keeps_its_limits(tmp_path: Path) -> None:
    assert "detection" in measurement.names()
    measured = measurement.run("detection", tmp_path)
    assert [one.unit for one in measured] == ["x", "s", "s"]
    # Limits are an order of magnitude away: a loaded machine's CPU seconds keep them too.
    assert [one.met for one in measured] == [True] * 3, measured


def test_made_up_split_has_the_real_ones_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(detection, "_SHARED", tmp_path)
    truth, whence = detection.test_split()
    assert whence == "made-up videos"
    assert (len(truth), len(np.unique(truth.item_N)), len(np.unique(truth.label_N))) == (5900, 2167, 100)
    assert (truth.end_N > truth.start_N).all()


@pytest.mark.slow
def test_predictions_are_a_hundred_a_video_and_half_near(shared: Path) -> None:
    truth, whence = detection.test_split()
    scored = detection.score(truth, rounds=1)
    assert whence == "UnAV-100's test split"
    assert scored.predictions == 216_700
    assert scored.near / scored.predictions == pytest.approx(0.5, abs=0.01)


def test_a_videos_candidates_fill_every_level() -> None:
    # All pairs lie above the threshold: 2,000 of each of four levels, and 16 and 8 points x 100 classes.
    assert detection.video(0.5, rounds=1)[2] == 10_400
