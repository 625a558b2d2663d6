"""Results and rows check themselves; the media column has one spelling."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from catalog.store.rows import media_json
from catalog.video import EXTRACTED, Outcome
from tests import sample_store as sample


def test_video_result_is_of_a_video_that_was_tried() -> None:
    with pytest.raises(ValueError, match="v1: a result is of a video that was tried, got status 'pending'"):
        sample.result(1, status="pending", features={})


def test_rows_that_contradict_themselves_are_refused() -> None:
    good = sample.rows(1, 3)
    with pytest.raises(ValueError, match="end_s needs 3 entries"):
        replace(good, end_s=np.zeros(2))
    valid = np.array([True, False, True])
    with pytest.raises(ValueError, match="audio: row 1 is not valid and not NaN"):
        replace(good, audio=replace(good.audio, valid=valid))
    values = np.where(valid[:, None], good.visual.values, np.inf)
    with pytest.raises(ValueError, match="visual: row 1 is valid and not finite in float32"):
        replace(good, visual=replace(good.visual, values=values))


def test_rows_without_a_modality_are_valid_nowhere_in_it() -> None:
    rows = sample.rows(1, 3, audio=False, invalid=(1,))
    assert len(rows) == 3
    assert rows.valid("visual").tolist() == [True, False, True]
    assert rows.valid("audio").tolist() == [False] * 3


def test_outcome_of_a_recipe_is_its_own_where_it_has_one() -> None:
    own = replace(sample.rows(1, 3), outcome=EXTRACTED)
    result = sample.result(1, status="partial", reason="no_audio", features={"own": own, "shared": sample.rows(1, 3)})
    assert result.outcome_of("own") == EXTRACTED
    assert result.outcome_of("shared") == result.outcome_of("absent") == Outcome(status="partial", reason="no_audio")


def test_media_json_of_equal_facts_is_one_ascii_text() -> None:
    one, other = {"b": 1, "a": {"ü": [1], "x": "é"}}, {"a": {"x": "é", "ü": [1]}, "b": 1}
    text = media_json(one)
    assert text == media_json(other)
    assert text.isascii()
    assert " " not in text
    assert json.loads(text) == one
